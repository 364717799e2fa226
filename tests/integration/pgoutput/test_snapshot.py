from __future__ import annotations

import time
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from adapters.pgoutput.snapshot import page_ranges, range_readers, row_sessions
from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from adapters.pgoutput.snapshot.sql_database import SqlDatabaseSnapshotSource
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import SnapshotGone

if TYPE_CHECKING:
    import psycopg

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings

SOURCES = [PgSnapshotSource, SqlDatabaseSnapshotSource]


def rows(snapshot: Any, relation: Any) -> list[tuple[Any, ...]]:
    return [
        tuple(row.values()) for piece in snapshot.read(relation) for row in piece.rows.to_pylist()
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_every_type_reads_the_same(
    source: Any, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    sql.execute(
        """CREATE TABLE odd (id int PRIMARY KEY, "a b:c" text, c char(5), b bool, y bytea,
             n numeric(10,3), u numeric, d date, ts timestamp, tz timestamptz, f float8, m mood,
             a int[], j jsonb, i interval)"""
    )
    sql.execute(
        """INSERT INTO odd VALUES (1, E'tab\\there\\nline \\\\ back', 'x', true, '\\x00ff', 1.5,
             'NaN', '2020-02-29', '2020-01-01 00:00:00.000001', '2020-01-01 00:00+02', 'NaN', 'ok',
             '{1,NULL,3}', '{"a": 1}', '1 day')"""
    )
    sql.execute(
        'INSERT INTO odd (id, "a b:c", c, b, y, n, u, d)'
        " VALUES (2, '', '', false, '', -0.001, 1e40, 'infinity')"
    )
    (table,) = catalog.publish()
    with source(settings).begin(create_slot=True) as snapshot:
        (first, second) = rows(snapshot, table.relation)
        pieces = list(snapshot.read(table.relation))
    assert pieces[0].rows.schema.types == [c.arrow_type for c in table.relation.columns]
    assert first[:5] == (1, "tab\there\nline \\ back", "x    ", True, b"\x00\xff")
    assert first[11:] == ("ok", "[1,null,3]", '{"a": 1}', "1 day")
    assert second[:5] == (2, "", "     ", False, b"")
    assert second[7:] == (None,) * 8
    (odd,) = pieces[0].unrepresentable
    assert (odd.column, odd.row, odd.text) == ("d", 1, "infinity")


@pytest.mark.parametrize("source", SOURCES)
def test_sees_the_consistent_point_and_nothing_later(
    source: Any, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    sql.execute("CREATE TABLE empty ()")
    sql.execute("INSERT INTO t SELECT generate_series(1, 100)")
    empty, t = catalog.publish()
    with source(settings).begin(create_slot=False) as snapshot:
        sql.execute("DELETE FROM t")
        assert len(rows(snapshot, t.relation)) == 100
        assert rows(snapshot, empty.relation) == []
        slots = sql.execute(
            "SELECT temporary FROM pg_replication_slots WHERE database = current_database()"
        )
        assert slots.fetchall() == [(True,)]


@pytest.mark.parametrize("source", SOURCES)
def test_reads_what_the_stream_would_tell(
    source: Any, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    sql.execute("CREATE TABLE child (more int, PRIMARY KEY (id)) INHERITS (parent)")
    sql.execute("INSERT INTO parent VALUES (1)")
    sql.execute("INSERT INTO child VALUES (2, 3)")
    sql.execute("CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    sql.execute("CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (9)")
    sql.execute("INSERT INTO part VALUES (4)")
    child, parent, part = catalog.publish()
    with source(settings).begin(create_slot=True) as snapshot:
        assert rows(snapshot, parent.relation) == [(1,)]
        assert rows(snapshot, child.relation) == [(2, 3)]
        assert rows(snapshot, part.relation) == [(4,)]


@pytest.mark.parametrize("source", SOURCES)
def test_a_table_without_columns_has_rows(
    source: Any, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE bare (); ALTER TABLE bare REPLICA IDENTITY FULL")
    sql.execute("INSERT INTO bare DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES")
    (bare,) = catalog.publish()
    with source(settings).begin(create_slot=False) as snapshot:
        assert sum(piece.rows.num_rows for piece in snapshot.read(bare.relation)) == 2


SESSIONS = ["socket", "packing"]


@pytest.fixture(params=SESSIONS)
def session_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Over plain connections, and as over encrypted ones; in small pieces and shares."""
    if request.param == "packing":
        monkeypatch.setattr(row_sessions, "_is_plain", lambda _: False)
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 7)
    monkeypatch.setattr(row_sessions, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(range_readers, "AHEAD_BYTES", 50_000)
    monkeypatch.setattr(range_readers, "_FIRST_WAIT_SECONDS", 0.02)
    return str(request.param)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every range that a session began to read, in order."""
    found: list[str] = []
    for kind in (row_sessions.SocketSession, row_sessions.PackingSession):
        plain = kind.rows

        def noting(self: Any, columns: Any, source: str, check: str, plain: Any = plain) -> Any:
            found.append(source)
            return plain(self, columns, source, check)

        monkeypatch.setattr(kind, "rows", noting)
    return found


@pytest.mark.parametrize("parallelism", [1, 3])
def test_several_readers_share_a_table_and_may_be_closed_early(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    session_kind: str,
    parallelism: int,
) -> None:
    assert session_kind
    sql.execute(
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 100) AS x FROM generate_series(1, 5000) i"
    )
    sql.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    (table,) = catalog.publish()
    with PgSnapshotSource(replace(settings, parallelism=parallelism)).begin(
        create_slot=False
    ) as snapshot:
        sql.execute("INSERT INTO t SELECT i, 'later' FROM generate_series(5001, 9000) i")
        sql.execute("UPDATE t SET x = 'other' WHERE id % 10 = 0")
        assert next(iter(snapshot.read(table.relation))).rows.num_rows < 2000
        pieces = [piece.rows.column("id").to_pylist() for piece in snapshot.read(table.relation)]
        assert sorted(chain(*pieces)) == list(range(1, 5001))
        assert len(pieces) > 10
    with PgSnapshotSource(replace(settings, parallelism=parallelism)).begin(
        create_slot=False
    ) as snapshot:
        assert next(iter(snapshot.read(table.relation))).rows.num_rows < 2000


_READERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND (query LIKE '%record_send%FROM ONLY%' OR query LIKE '%COPY (%'{or_})"
)


@pytest.mark.parametrize(
    "ending",
    [
        f"SELECT pg_terminate_backend(pid) {_READERS.format(or_='')}",
        f"SELECT pg_cancel_backend(pid) {_READERS.format(or_='')}",
        # The session too that created the slot and with it the snapshot.
        "SELECT pg_terminate_backend(pid) " + _READERS.format(or_=" OR backend_type = 'walsender'"),
    ],
    ids=["connections cut", "statements cancelled", "and the exporter gone"],
)
def test_lost_sessions_go_on_where_they_were(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    session_kind: str,
    begun: list[str],
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    assert session_kind
    # More than sockets hold, so that there is a statement to be ended.
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 1500)
    monkeypatch.setattr(row_sessions, "SEGMENT_BYTES", 200_000)
    sql.execute(
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 1000) AS x FROM generate_series(1, 36000) i"
    )
    sql.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    (table,) = catalog.publish()
    with PgSnapshotSource(replace(settings, parallelism=2)).begin(create_slot=False) as snapshot:
        found, losses = [], 0
        for number, piece in enumerate(snapshot.read(table.relation)):
            found += piece.rows.column("id").to_pylist()
            if number in (3, 40, 80):
                losses += len(sql.execute(ending.encode()).fetchall())
    assert sorted(found) == list(range(1, 36001))
    again = [source for source in begun if " OFFSET " in source]
    assert 1 <= len(again) <= losses
    assert len(begun) - len(again) >= 3


def test_a_snapshot_whose_every_session_is_gone_says_so(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection, session_kind: str
) -> None:
    assert session_kind
    sql.execute(
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 1000) AS x FROM generate_series(1, 9000) i"
    )
    sql.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    (table,) = catalog.publish()
    end_all = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )

    def read() -> None:
        with PgSnapshotSource(settings).begin(create_slot=False) as snapshot:
            for _ in snapshot.read(table.relation):
                sql.execute(end_all.encode())

    with pytest.raises(SnapshotGone):
        read()


def test_tables_are_read_side_by_side(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    session_kind: str,
    begun: list[str],
) -> None:
    assert session_kind
    for name in "abcd":
        sql.execute(
            f"CREATE TABLE {name} AS SELECT i AS id, repeat('x', 100) AS x "
            "FROM generate_series(1, 100) i".encode()
        )
        sql.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)".encode())
    tables = catalog.publish()
    relations = [table.relation for table in tables]
    with PgSnapshotSource(replace(settings, parallelism=2)).begin(create_slot=False) as snapshot:
        snapshot.expect([(relation, WHOLE) for relation in relations])
        give_up = time.monotonic() + 20
        while len(begun) < 2 and time.monotonic() < give_up:
            time.sleep(0.01)
        assert len(set(begun)) >= 2
        for relation in relations:
            ids = [row[0] for row in rows(snapshot, relation)]
            assert sorted(ids) == list(range(1, 101))
    assert len(begun) == 4


def test_partitions_are_read_in_ranges_one_by_one(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    session_kind: str,
    begun: list[str],
) -> None:
    assert session_kind
    # An attached partition has its columns in an order of its own.
    sql.execute(
        """CREATE TABLE part (id int PRIMARY KEY, x text) PARTITION BY RANGE (id);
           CREATE TABLE "Large one" PARTITION OF part FOR VALUES FROM (0) TO (5000);
           CREATE TABLE nothing PARTITION OF part FOR VALUES FROM (5000) TO (5001);
           CREATE TABLE others PARTITION OF part FOR VALUES FROM (5001) TO (9000)
             PARTITION BY RANGE (id);
           CREATE TABLE small (gone int, x text, id int NOT NULL);
           ALTER TABLE small DROP gone;
           ALTER TABLE others ATTACH PARTITION small FOR VALUES FROM (5001) TO (9000);
           INSERT INTO part SELECT i, repeat('x', 100) FROM generate_series(1, 4900) i;
           INSERT INTO part SELECT i, repeat('y', 100) FROM generate_series(5001, 5300) i"""
    )
    (table,) = catalog.publish()
    with PgSnapshotSource(settings).begin(create_slot=False) as snapshot:
        found = rows(snapshot, table.relation)
    assert sorted(found) == [
        *((i, "x" * 100) for i in range(1, 4901)),
        *((i, "y" * 100) for i in range(5001, 5301)),
    ]
    assert sum('FROM ONLY "Large one" WHERE (ctid' in source for source in begun) > 4
    assert all("FROM ONLY " in source for source in begun)


@pytest.mark.parametrize(
    ("pages", "size", "bounds"),
    [
        ([], 8, []),
        ([8], 8, []),
        ([9], 8, [8]),
        ([24], 8, [8, 16]),
        ([20, 4], 8, [4, 12]),
        ([1] * 100, 8, []),
        ([3] * 100, 8, [1, 2]),
    ],
)
def test_statement_ranges(pages: list[int], size: int, bounds: list[int]) -> None:
    assert page_ranges._bounds(pages, size) == bounds
