from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from adapters.pgoutput import snapshot_source
from adapters.pgoutput.snapshot_source import PgSnapshotSource
from adapters.pgoutput.sql_database import SqlDatabaseSnapshotSource

if TYPE_CHECKING:
    import psycopg

    from adapters.pgoutput.catalog import PgCatalog
    from adapters.pgoutput.settings import SourceSettings

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


@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_table_comes_in_pieces_by_several_readers_and_may_be_left_half_way(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    parallelism: int,
) -> None:
    monkeypatch.setattr(snapshot_source, "_SHARE_PAGES", 7)
    monkeypatch.setattr(snapshot_source, "_PIECE_BYTES", 20_000)
    monkeypatch.setattr(snapshot_source, "_AHEAD_BYTES", 50_000)
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
        pieces = [piece.rows.column("id").to_pylist() for piece in snapshot.read(table.relation)]
        assert sorted(chain(*pieces)) == list(range(1, 5001))
        assert len(pieces) > 10
    with PgSnapshotSource(replace(settings, parallelism=parallelism)).begin(
        create_slot=False
    ) as snapshot:
        assert next(iter(snapshot.read(table.relation))).rows.num_rows < 2000
