"""The contracts of the source's ports on PostgreSQL and on the fake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from adapters.pgoutput.changes import reader_choice
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot import page_ranges
from adapters.pgoutput.snapshot.sql_database import SqlDatabaseSnapshotSource
from tests.contracts.catalog_contract import CatalogContract
from tests.contracts.change_source_contract import ChangeSourceContract
from tests.contracts.snapshot_source_contract import SnapshotSourceContract
from tests.contracts.source_inspector_contract import SourceInspectorContract
from tests.contracts.source_monitor_contract import SourceMonitorContract
from tests.contracts.sources import InMemory, RealPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from cdc_core.ports.change_source import ChangeSource


@pytest.fixture
def fake() -> InMemory:
    return InMemory()


@pytest.fixture
def real(database: str, sql: psycopg.Connection) -> Iterator[RealPostgres]:
    slot_name = f"slot_{sql.info.dbname}"
    source = RealPostgres(sql, SourceSettings(database, slot_name, "contract_pub"))
    yield source
    source.close()


class TestChangeSourceInMemory(ChangeSourceContract):
    @pytest.fixture
    def db(self, fake: InMemory) -> InMemory:
        return fake


class TestChangeSourceInBulk(ChangeSourceContract):
    @pytest.fixture
    def db(self, real: RealPostgres, monkeypatch: pytest.MonkeyPatch) -> RealPostgres:
        monkeypatch.setattr(reader_choice, "_STREAMING_FACTOR", sys.maxsize)
        monkeypatch.setattr(reader_choice, "_TAIL_BYTES", -1)
        return real

    def test_it_reads_in_bulk(self, db: RealPostgres) -> None:
        with db.change_source() as source:
            assert reader_is_streaming(source, db) is False


class TestChangeSourceStreaming(ChangeSourceContract):
    @pytest.fixture
    def db(self, real: RealPostgres, monkeypatch: pytest.MonkeyPatch) -> RealPostgres:
        monkeypatch.setattr(reader_choice, "_OPENING_BYTES", -sys.maxsize)
        return real

    def test_it_streams(self, db: RealPostgres) -> None:
        with db.change_source() as source:
            assert reader_is_streaming(source, db) is True


def reader_is_streaming(source: ChangeSource, db: RealPostgres) -> bool:
    """Whether a reading has made a session of its own take the slot."""
    oid = db.create_table("t")
    db.catalog().publish()
    point = source.create_slot()
    with db.transaction() as tx:
        tx.insert(oid, 1, None)
    assert list(source.read(point, source.current_lsn(), {oid}))
    slot = source.slot()
    assert slot is not None
    return slot.active_pid is not None


class TestCatalogInMemory(CatalogContract):
    @pytest.fixture
    def db(self, fake: InMemory) -> InMemory:
        return fake


class TestCatalog(CatalogContract):
    @pytest.fixture
    def db(self, real: RealPostgres) -> RealPostgres:
        return real


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_ranges, "RANGE_PAGES", 6)
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 2)


class TestSnapshotSourceInMemory(SnapshotSourceContract):
    @pytest.fixture
    def db(self, fake: InMemory) -> InMemory:
        return fake


@pytest.mark.usefixtures("small_parts")
class TestSnapshotSourceByCopy(SnapshotSourceContract):
    @pytest.fixture
    def db(self, real: RealPostgres) -> RealPostgres:
        return real


@pytest.mark.usefixtures("small_parts")
class TestSnapshotSourceBySqlDatabase(SnapshotSourceContract):
    @pytest.fixture
    def db(self, real: RealPostgres) -> RealPostgres:
        real.snapshots = SqlDatabaseSnapshotSource
        return real


class TestSourceMonitorInMemory(SourceMonitorContract):
    @pytest.fixture
    def db(self, fake: InMemory) -> InMemory:
        return fake


class TestSourceMonitor(SourceMonitorContract):
    @pytest.fixture
    def db(self, real: RealPostgres) -> RealPostgres:
        return real


class TestSourceInspectorInMemory(SourceInspectorContract):
    @pytest.fixture
    def db(self, fake: InMemory) -> InMemory:
        return fake


class TestSourceInspector(SourceInspectorContract):
    @pytest.fixture
    def db(self, real: RealPostgres) -> RealPostgres:
        return real
