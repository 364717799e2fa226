"""What the tests of use cases have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.cdc_core.use_cases.test_convergence import World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[False, True], ids=["loads-at-once", "loads-late"], scope="module")
def moment_of_loads(request: pytest.FixtureRequest) -> Iterator[None]:
    """A load that runs beside the reading of the next batch is done before it, or after it."""
    World.late = request.param
    yield
    World.late = False
