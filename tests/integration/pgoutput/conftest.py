"""Parts of the source adapter on a fresh database, and what they tell as plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.session.settings import SourceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def settings(database: str) -> SourceSettings:
    name = database.rpartition("/")[2]
    return SourceSettings(database, slot_name=f"slot_{name}", pub_name="pgbronze_pub")


@pytest.fixture
def catalog(settings: SourceSettings) -> Iterator[PgCatalog]:
    catalog = PgCatalog(settings)
    yield catalog
    catalog.close()
