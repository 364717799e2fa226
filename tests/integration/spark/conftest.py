"""The two ways to reach Spark, and settings of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.session.settings import SourceSettings
from adapters.spark import snapshot_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

    from tests.support.spark import Sessions


@pytest.fixture(params=["classic", "connect"])
def session(spark: Sessions, request: pytest.FixtureRequest) -> SparkSession:
    found: SparkSession = getattr(spark, request.param)
    return found


@pytest.fixture
def settings(database: str) -> SourceSettings:
    name = database.rpartition("/")[2]
    return SourceSettings(database, slot_name=f"slot_{name}", pub_name="pgbronze_pub")


@pytest.fixture
def catalog(settings: SourceSettings) -> Iterator[PgCatalog]:
    catalog = PgCatalog(settings)
    yield catalog
    catalog.close()


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark reads every table that has a page."""
    monkeypatch.setattr(snapshot_source, "LARGE_PAGES", 0)
