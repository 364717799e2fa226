"""The contract of the snapshot source, of large tables that no destination wants in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot import page_ranges
from adapters.spark.snapshot_source import SparkSnapshotSource
from tests.contracts.snapshot_source_contract import SnapshotSourceContract
from tests.contracts.sources import RealPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.usefixtures("small_is_large")


class TestSnapshotSourceBySpark(SnapshotSourceContract):
    @pytest.fixture
    def db(
        self,
        database: str,
        sql: psycopg.Connection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[RealPostgres]:
        monkeypatch.setattr(page_ranges, "RANGE_PAGES", 6)
        monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 2)
        slot_name = f"slot_{sql.info.dbname}"
        source = RealPostgres(sql, SourceSettings(database, slot_name, "contract_pub"))
        source.snapshots = lambda settings: SparkSnapshotSource(settings, 2)
        yield source
        source.close()
