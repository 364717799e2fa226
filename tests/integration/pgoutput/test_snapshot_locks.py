"""What a snapshot locks: a table while its own rows are read, and few relations at a time."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from adapters.pgoutput.snapshot import guards, page_ranges, range_readers, row_ranges, row_sessions
from adapters.pgoutput.snapshot.snapshot_source import CopySnapshot, PgSnapshotSource
from adapters.pgoutput.snapshot.sql_database import SqlDatabaseSnapshotSource
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import CdcError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.values.relation import Relation

#: Rows of 1 kB.
LARGE = 12_000

#: User tables, and what belongs to them, that sessions of ours have locked.
_LOCKS = """
SELECT a.pid, l.relation::regclass::text FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE a.application_name LIKE 'pgbronze/%' AND a.datname = current_database()
  AND l.database = a.datid AND l.relation >= 16384
"""
_OURS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'pgbronze/%'
"""


@pytest.fixture(params=["socket", "packing"], autouse=True)
def small_ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over plain connections, and as over encrypted ones."""
    if request.param == "packing":
        monkeypatch.setattr(row_sessions, "_is_plain", lambda _: False)
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 100)
    monkeypatch.setattr(row_sessions, "SEGMENT_BYTES", 100_000)
    monkeypatch.setattr(range_readers, "AHEAD_BYTES", 300_000)


def relation_of(catalog: PgCatalog, name: str) -> Relation:
    return next(t.relation for t in catalog.tables() if t.relation.table.name == name)


def locks(sql: psycopg.Connection) -> list[Any]:
    return sql.execute(_LOCKS).fetchall()


def ids(snapshot: Any, relation: Relation) -> list[int]:
    pieces = [piece.rows.column("id").to_pylist() for piece in snapshot.read(relation)]
    return sorted(i for piece in pieces for i in piece)


@pytest.fixture
def small_and_large(sql: psycopg.Connection, catalog: PgCatalog) -> tuple[Relation, Relation]:
    for name, count in (("small", 1), ("large", LARGE)):
        sql.execute(
            f"CREATE TABLE {name} AS SELECT i AS id, repeat('x', 1000) AS x "
            f"FROM generate_series(1, {count}) i".encode()
        )
        sql.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)".encode())
    catalog.publish()
    return relation_of(catalog, "small"), relation_of(catalog, "large")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize(
    ("source", "count"), [(PgSnapshotSource, LARGE), (SqlDatabaseSnapshotSource, 1)]
)
def test_nothing_stays_locked_once_it_was_read(
    source: Any,
    settings: SourceSettings,
    sql: psycopg.Connection,
    small_and_large: tuple[Relation, Relation],
    count: int,
) -> None:
    small, large = small_and_large
    with source(settings).begin(create_slot=False) as snapshot:
        assert locks(sql) == []
        for relation, rows in ((small, 1), (large, LARGE))[: 2 if count > 1 else 1]:
            assert snapshot.page_ranges(relation)
            assert len(ids(snapshot, relation)) == rows
            assert snapshot.unchanged(relation, WHOLE, rows, snapshot.horizon)
            assert locks(sql) == []


def test_definitions_change_while_a_busy_destination_keeps_a_table_waiting(
    settings: SourceSettings,
    sql: psycopg.Connection,
    catalog: PgCatalog,
    small_and_large: tuple[Relation, Relation],
) -> None:
    small, large = small_and_large
    sql.execute("CREATE TABLE later AS SELECT * FROM large; ALTER TABLE later ADD PRIMARY KEY (id)")
    later = relation_of(catalog, "later")
    with PgSnapshotSource(settings).begin(create_slot=False) as snapshot:
        snapshot.expect([(small, WHOLE), (large, WHOLE), (later, WHOLE)])
        assert ids(snapshot, small) == [1]
        found: list[int] = []
        for number, piece in enumerate(snapshot.read(large)):
            found += piece.rows.column("id").to_pylist()
            if number == 5:
                # Nobody takes rows meanwhile: the table that is read, those read before and after.
                for name in ("small", "later", "large"):
                    with at_most(range_readers.STALL_SECONDS + 2):
                        sql.execute(f"ALTER TABLE {name} ADD COLUMN more int".encode())
                # A session that still found room locks the table once more, and gives it up.
                now = unlocked = time.monotonic()
                give_up = now + 3 * range_readers.STALL_SECONDS + 5
                while now < give_up and now - unlocked < range_readers.STALL_SECONDS:
                    time.sleep(0.05)
                    now = time.monotonic()
                    unlocked = now if locks(sql) else unlocked
                assert locks(sql) == []
        assert sorted(found) == [*range(1, LARGE + 1)]
        assert ids(snapshot, later) == [*range(1, LARGE + 1)]


def test_a_snapshot_outlives_its_first_session_and_its_guards(
    settings: SourceSettings,
    sql: psycopg.Connection,
    small_and_large: tuple[Relation, Relation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One at a time is lost, and at last every session that there was in the beginning."""
    monkeypatch.setattr(guards, "CHECK_SECONDS", 0.0)
    _, large = small_and_large
    with PgSnapshotSource(settings).begin(create_slot=False) as snapshot:
        first = [pid for (pid,) in sql.execute(_OURS)]
        sql.execute("DELETE FROM large")
        for number, _ in enumerate(snapshot.read(large)):
            if number % 10 == 0 and first:
                sql.execute("SELECT pg_terminate_backend(%s)", [first.pop()])
        assert not first
        assert len(ids(snapshot, large)) == LARGE


def test_a_table_that_is_locked_is_waited_for_without_a_lock(
    settings: SourceSettings,
    sql: psycopg.Connection,
    database: str,
    small_and_large: tuple[Relation, Relation],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, _ = small_and_large
    with (
        psycopg.connect(database) as other,
        PgSnapshotSource(settings).begin(create_slot=False) as snapshot,
    ):
        plan = snapshot._plan

        def locking(*arguments: Any) -> Any:
            found = plan(*arguments)
            other.execute("LOCK TABLE small IN ACCESS EXCLUSIVE MODE")
            return found

        monkeypatch.setattr(snapshot, "_plan", locking)
        snapshot.expect([(small, WHOLE)])
        give_up = time.monotonic() + 20
        while "public.small is locked" not in caplog.text and time.monotonic() < give_up:
            time.sleep(0.05)
        other.commit()
        assert ids(snapshot, small) == [1]
    assert caplog.text.count("public.small is locked by another session") == 1


# Partitions.


@pytest.fixture
def part(sql: psycopg.Connection, catalog: PgCatalog) -> Relation:
    sql.execute("CREATE TABLE part (id int PRIMARY KEY, x text) PARTITION BY RANGE (id)")
    for n in range(5):
        bounds = f"FROM ({n}00) TO ({n + 1}00)"
        sql.execute(f"CREATE TABLE part_{n} PARTITION OF part FOR VALUES {bounds}".encode())
    sql.execute("INSERT INTO part SELECT i, 'x' FROM generate_series(0, 499) i")
    catalog.publish()
    return relation_of(catalog, "part")


def reader(sql: psycopg.Connection, settings: SourceSettings, name: str) -> SourceSettings:
    """Settings of a role that may replicate, and nothing else yet."""
    user = f"{name}_{settings.slot_name}"
    sql.execute(f"CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'x'".encode())
    conninfo = psycopg.conninfo.make_conninfo(settings.conninfo, user=user, password="x")
    return replace(settings, conninfo=conninfo)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    source = row_ranges.RowRange.source

    def noting(self: Any, behind: int = 0) -> str:
        found.append(source(self, behind))
        return found[-1]

    monkeypatch.setattr(row_ranges.RowRange, "source", noting)
    return found


@pytest.mark.parametrize("rights", ["root", "all", "rls of a partition", "a partition's columns"])
def test_partitions_with_the_rights_that_there_are(
    settings: SourceSettings,
    sql: psycopg.Connection,
    part: Relation,
    begun: list[str],
    rights: str,
) -> None:
    own = reader(sql, settings, "reader")
    user = psycopg.conninfo.conninfo_to_dict(own.conninfo)["user"]
    tables = ["part", *(f"part_{n}" for n in range(5))]
    for name in ["part"] if rights == "root" else tables:
        sql.execute(f"GRANT SELECT ON {name} TO {user}".encode())
    if rights == "rls of a partition":
        sql.execute("ALTER TABLE part_2 ENABLE ROW LEVEL SECURITY")
    if rights == "a partition's columns":
        sql.execute(f"REVOKE SELECT ON part_2 FROM {user}".encode())
        sql.execute(f"GRANT SELECT (id) ON part_2 TO {user}".encode())
    try:
        with PgSnapshotSource(own).begin(create_slot=False) as snapshot:
            assert ids(snapshot, part) == [*range(500)]
            assert snapshot.unchanged(part, WHOLE, 500, snapshot.horizon)
        by_leaves = [source for source in begun if "FROM ONLY part_" in source]
        assert bool(by_leaves) == (rights == "all")
    finally:
        sql.execute(f"DROP OWNED BY {user}; DROP ROLE {user}".encode())


def test_policies_of_the_root_are_not_gone_round(
    settings: SourceSettings, sql: psycopg.Connection, part: Relation
) -> None:
    own = reader(sql, settings, "hidden")
    user = psycopg.conninfo.conninfo_to_dict(own.conninfo)["user"]
    sql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}".encode())
    sql.execute("ALTER TABLE part ENABLE ROW LEVEL SECURITY")
    try:
        with (
            PgSnapshotSource(own).begin(create_slot=False) as snapshot,
            pytest.raises(CdcError, match="row-level security"),
        ):
            ids(snapshot, part)
    finally:
        sql.execute(f"DROP OWNED BY {user}; DROP ROLE {user}".encode())


def test_a_foreign_partition_is_read_with_the_others(
    settings: SourceSettings, sql: psycopg.Connection, part: Relation, catalog: PgCatalog
) -> None:
    sql.execute(
        """CREATE TABLE elsewhere (id int, x text);
           INSERT INTO elsewhere VALUES (700, 'far');
           CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
           CREATE TABLE root (id int, x text) PARTITION BY RANGE (id);
           CREATE TABLE near PARTITION OF root FOR VALUES FROM (0) TO (500);
           INSERT INTO root VALUES (1, 'near');
           CREATE FOREIGN TABLE far PARTITION OF root FOR VALUES FROM (500) TO (900)
             SERVER files OPTIONS (program 'echo 700,far', format 'csv')"""
    )
    root = relation_of(catalog, "root")
    with PgSnapshotSource(settings).begin(create_slot=False) as snapshot:
        assert snapshot.page_ranges(root) == [WHOLE]
        assert ids(snapshot, root) == [1, 700]


def test_a_partition_that_takes_anothers_name_is_not_taken_for_it(
    settings: SourceSettings,
    sql: psycopg.Connection,
    part: Relation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names are exchanged after the reading was planned."""
    with PgSnapshotSource(settings).begin(create_slot=False) as snapshot:
        plan = CopySnapshot._plan

        def exchanging(*arguments: Any) -> Any:
            found = plan(*arguments)
            sql.execute(
                """BEGIN; ALTER TABLE part_1 RENAME TO part_9; ALTER TABLE part_3 RENAME TO part_1;
                   CREATE TABLE part_3 AS SELECT 1000 AS id, 'other' AS x; COMMIT"""
            )
            return found

        monkeypatch.setattr(CopySnapshot, "_plan", exchanging)
        assert ids(snapshot, part) == [*range(500)]


def test_a_partition_that_is_gone_is_an_error_of_its_table(
    settings: SourceSettings,
    sql: psycopg.Connection,
    part: Relation,
    small_and_large: tuple[Relation, Relation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, _ = small_and_large
    with PgSnapshotSource(settings).begin(create_slot=False) as snapshot:
        plan = CopySnapshot._plan

        def dropping(*arguments: Any) -> Any:
            found = plan(*arguments)
            sql.execute("DROP TABLE IF EXISTS part_3")
            return found

        monkeypatch.setattr(CopySnapshot, "_plan", dropping)
        snapshot.expect([(part, WHOLE), (small, WHOLE)])
        with pytest.raises(CdcError, match=r"public\.part"):
            ids(snapshot, part)
        assert ids(snapshot, small) == [1]
