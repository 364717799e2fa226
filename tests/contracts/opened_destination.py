"""What every contract of a destination starts from: a way to open it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdc_core.ports.destination import Destination


class OpenedDestination:
    """A subclass of a contract overrides `opened`."""

    @pytest.fixture
    def opened(self) -> Callable[[], Destination]:
        """A function that gives a destination, not yet opened, always of the same place."""
        raise NotImplementedError

    @pytest.fixture
    def destination(self, opened: Callable[[], Destination]) -> Iterator[Destination]:
        with opened() as destination:
            yield destination
