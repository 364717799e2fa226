from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from tests.support.changes import events

if TYPE_CHECKING:
    import psycopg

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings


def test_snapshot_then_changes(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE orders (id int PRIMARY KEY, what text, price numeric(10,2))")
    sql.execute("INSERT INTO orders VALUES (1, 'tea', 1.50), (2, NULL, NULL)")
    (table,) = catalog.publish()
    assert table.published
    assert not table.not_streamed
    with PgChangeSource(settings) as source:
        with PgSnapshotSource(settings).begin(create_slot=True) as snapshot:
            sql.execute("UPDATE orders SET what = 'water' WHERE id = 2")
            rows = [
                row for piece in snapshot.read(table.relation) for row in piece.rows.to_pylist()
            ]
            after = snapshot.lsn
        assert [(row["id"], row["what"]) for row in rows] == [(1, "tea"), (2, None)]
        sql.execute("DELETE FROM orders WHERE id = 1")
        sql.execute("INSERT INTO orders VALUES (3, 'milk', 2)")
        until = source.current_lsn()
        batches = list(source.read(after, until, {table.relation.oid}))
        assert [(op, row["id"], row["what"]) for _, op, row in events(batches)] == [
            ("UPDATE", 2, "water"),
            ("DELETE", 1, None),
            ("INSERT", 3, "milk"),
        ]
        assert batches[-1].end_lsn >= until
        slot = source.slot()
        assert slot is not None
        assert slot.confirmed_flush_lsn == after
        source.confirm(batches[-1].end_lsn)
        slot = source.slot()
        assert slot is not None
        assert slot.confirmed_flush_lsn == batches[-1].end_lsn


def test_following_streams_from_the_second_read_on(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    (table,) = catalog.publish()
    tables = {table.relation.oid}
    with PgChangeSource(settings) as source:
        position = source.create_slot()
        for round_ in range(5):
            if round_ != 2:
                sql.execute("INSERT INTO t VALUES (%s)", [round_])
            until = source.current_lsn()
            batches = list(source.read(position, until, tables))
            assert batches[-1].end_lsn >= until
            expected = [] if round_ == 2 else [("public.t", "INSERT", {"id": round_})]
            assert events(batches) == expected
            if expected:
                position = batches[-1].end_lsn
                source.confirm(position)
                slot = source.slot()
                assert slot is not None
                assert slot.confirmed_flush_lsn == position
