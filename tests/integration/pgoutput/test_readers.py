"""Bulk and streaming reading: the same changes, bounded batches, a slot that stays in its place."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from adapters.pgoutput.catalog.catalog_types import CatalogTypes
from adapters.pgoutput.catalog.value_format import all_read_binary
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.session.wal_position import current_lsn
from cdc_core.ports.change_source import ReadAgain
from cdc_core.values.changes import Op
from cdc_core.values.errors import ContinuityLost, OperatorNeeded, SourceUnavailable
from cdc_core.values.lsn import Lsn
from tests.support.changes import stream
from tests.support.postgres import is_streaming

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.values.changes import ChangeBatch
    from tests.support.postgres import Server

BULK, STREAMING = "bulk", "streaming"
READERS = [BULK, STREAMING]


def prepared(catalog: PgCatalog, sql: psycopg.Connection) -> set[int]:
    sql.execute("CREATE TABLE a (id int PRIMARY KEY, note text, big text)")
    sql.execute("ALTER TABLE a ALTER big SET STORAGE EXTERNAL")
    sql.execute("CREATE TABLE b (x text, y int); ALTER TABLE b REPLICA IDENTITY FULL")
    sql.execute("CREATE TABLE other (id int PRIMARY KEY)")
    return {t.relation.oid for t in catalog.publish() if t.relation.table.name != "other"}


def workload(sql: psycopg.Connection) -> None:
    for i in range(30):
        with sql.transaction():
            sql.execute("INSERT INTO a VALUES (%s, 'n', repeat('x', 5000))", [i])
            sql.execute("INSERT INTO b VALUES ('twin', %s), ('twin', %s)", [i, i])
            sql.execute("INSERT INTO other VALUES (%s)", [i])
    sql.execute("UPDATE a SET note = NULL WHERE id % 3 = 0")
    sql.execute("UPDATE a SET id = id + 100 WHERE id < 5")
    with sql.transaction():
        sql.execute("DELETE FROM b WHERE ctid = (SELECT min(ctid) FROM b)")
        with sql.transaction(force_rollback=True):
            sql.execute("DELETE FROM a")
        sql.execute("UPDATE b SET x = 'other' WHERE y = 7")
    sql.execute("TRUNCATE a, other")
    sql.execute("INSERT INTO a VALUES (1, 'after', '')")


def using(reader: str, source: PgChangeSource, tables: set[int]) -> Lsn:
    """Bring the source to where it reads by this reader; the position to read from."""
    slot = source.slot()
    assert slot is not None
    assert slot.confirmed_flush_lsn is not None
    if reader == STREAMING:
        # What goes on where a reading ended is streamed.
        assert list(source.read(slot.confirmed_flush_lsn, slot.confirmed_flush_lsn, tables))
    return slot.confirmed_flush_lsn


@pytest.mark.parametrize("reader", READERS)
def test_both_readers_tell_the_same(
    reader: str, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        assert using(reader, source, tables) == start
        workload(sql)
        until = source.current_lsn()
        whole = list(source.read(start, until, tables))
        assert is_streaming(sql, settings.slot_name) is (reader == STREAMING)
        slot = source.slot()
        assert slot is not None
        assert slot.confirmed_flush_lsn == start
    with PgChangeSource(settings) as source:
        again = list(source.read(start, until, tables))
    assert stream(whole) == stream(again)
    told = stream(whole)
    assert len([t for t in told if t[0] == "public.a"]) == 30 + 10 + 5 + 5 + 1 + 1
    assert {t[0] for t in told} == {"public.a", "public.b"}
    assert [t[2] for t in told if t[0] == "public.a"][-2:] == ["TRUNCATE", "INSERT"]
    toast = [t for batch in whole for t in batch.tables if t.unchanged]
    assert toast
    assert all(set(t.unchanged) == {"big"} for t in toast)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("limits", [{"batch_max_rows": 7}, {"batch_max_bytes": 4000}])
def test_batches_are_whole_transactions_and_a_read_may_start_at_any_of_them(
    reader: str,
    limits: dict[str, int],
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
) -> None:
    tables = prepared(catalog, sql)
    settings = replace(settings, **limits)  # type: ignore[arg-type]
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        using(reader, source, tables)
        workload(sql)
        until = source.current_lsn()
        whole = list(source.read(start, until, tables))
        with_rows = [batch for batch in whole if batch.complete and batch.transactions]
        assert len(with_rows) > 5
        told = stream(whole)
        ends = [batch.end_lsn for batch in whole if batch.complete]
        assert ends == sorted(ends)
        assert ends[-1] >= until
        for here in (with_rows[0], with_rows[3]):
            before = [t for t in told if t[1] < here.end_lsn]
            rest = stream(source.read(here.end_lsn, until, tables))
            assert stream([]) + sorted(before + rest, key=lambda t: t[:2]) == told
            source.confirm(here.end_lsn)
            assert stream(source.read(here.end_lsn, until, tables)) == rest
        source.confirm(until)
        assert stream(source.read(until, until, tables)) == []


def test_a_batch_of_the_stream_ends_with_the_transaction_in_which_its_time_is_over(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(replace(settings, batch_max_seconds=1e-9)) as source:
        start = source.create_slot()
        using("streaming", source, tables)
        workload(sql)
        batches = list(source.read(start, source.current_lsn(), tables))
    assert max(batch.transactions for batch in batches) == 1
    assert sum(batch.transactions for batch in batches) > 5


@pytest.mark.parametrize("reader", READERS)
def test_a_transaction_beyond_the_limit_arrives_in_parts(
    reader: str, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(replace(settings, batch_max_bytes=50_000)) as source:
        start = source.create_slot()
        using(reader, source, tables)
        sql.execute("INSERT INTO a SELECT i, 'n', repeat('x', 100) FROM generate_series(1, 3000) i")
        sql.execute("INSERT INTO b VALUES ('next', 1)")
        until = source.current_lsn()
        parts = list(source.read(start, until, tables))
        large = [batch for batch in parts if any(len(t) > 1 for t in batch.tables)]
        assert len(large) > 3
        assert not any(part.complete for part in large[:-1])
        ends = [batch.end_lsn for batch in parts if batch.complete]
        assert ends == sorted(ends)
        assert ends[-1] >= until
        assert sum(batch.transactions for batch in parts) == 2
    with PgChangeSource(settings) as source:
        whole = list(source.read(start, until, tables))
    assert all(batch.complete for batch in whole)
    assert stream(parts) == stream(whole)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("size", ["whole", "in parts"])
def test_a_type_that_is_not_read_in_binary_is_asked_for_as_text(
    reader: str, size: str, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    """All of the catalog's types are read so by now, but one of before is not."""
    tables = prepared(catalog, sql)
    limit = 20_000 if size == "in parts" else settings.batch_max_bytes
    with PgChangeSource(replace(settings, batch_max_bytes=limit)) as source:
        start = source.create_slot()
        using(reader, source, tables)
        sql.execute("INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1, 1000) i")
        with sql.transaction():
            sql.execute(
                "INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1001, 2000) i"
            )
            sql.execute("ALTER TABLE a ADD token uuid")
            sql.execute("INSERT INTO a VALUES (0, '', '', gen_random_uuid())")
        sql.execute("ALTER TABLE a DROP token")
        until = source.current_lsn()
        with suppress(ReadAgain):
            first = list(source.read(start, until, tables))
        told = stream(source.read(start, until, tables))
        if size == "whole":
            assert stream(first) == told
        assert len(told) == 2001
        assert sum(len(str(event[3][-1])) == 36 for event in told) == 1


KINDS = ["FOR TABLE a, b, parts", "FOR ALL TABLES", "FOR TABLES IN SCHEMA public"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_format_is_chosen_while_a_published_table_is_locked(
    kind: str, database: str, sql: psycopg.Connection
) -> None:
    if "SCHEMA" in kind and sql.info.server_version < 150000:
        pytest.skip("publications have schemas from PostgreSQL 15 on")
    sql.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int, t text)")
    sql.execute("CREATE TABLE parts (id int) PARTITION BY RANGE (id)")
    sql.execute(f"CREATE PUBLICATION pub {kind}".encode())
    sql.execute("SET lock_timeout = '2s'")
    types = CatalogTypes(lambda: nullcontext(sql))
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE b IN ACCESS EXCLUSIVE MODE")
        assert all_read_binary(sql, "pub", types)
    for table in ("b", "parts"):
        sql.execute(f"ALTER TABLE {table} ADD u uuid".encode())
        assert not all_read_binary(sql, "pub", types)
        sql.execute(f"ALTER TABLE {table} DROP u".encode())
    assert all_read_binary(sql, "pub", types)
    sql.execute("DROP PUBLICATION pub; CREATE PUBLICATION pub")
    assert not all_read_binary(sql, "pub", types)


@pytest.mark.parametrize("reader", READERS)
def test_a_read_that_was_abandoned_starts_again(
    reader: str, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(replace(settings, batch_max_rows=10)) as source:
        start = source.create_slot()
        using(reader, source, tables)
        workload(sql)
        until = source.current_lsn()
        first = next(iter(source.read(start, until, tables)))
        stopped = list(source.read(start, until, tables, stop=lambda: True))
        assert len(stopped) <= 1
        again = list(source.read(start, until, tables))
        assert [t for t in stream(again) if t[1] < first.end_lsn] == stream([first])
        assert stream(again) == stream(source.read(start, until, tables))


@pytest.mark.parametrize("reader", READERS)
def test_an_idle_read_advances_past_other_databases_wal(
    reader: str,
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    postgres: Server,
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        using(reader, source, tables)
        with postgres.database("other") as dsn, psycopg.connect(dsn, autocommit=True) as other:
            other.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
        until = source.current_lsn()
        (batch,) = source.read(start, until, tables)
        assert batch.changes == 0
        assert batch.end_lsn >= until > start
        source.confirm(batch.end_lsn)
        slot = source.slot()
        assert slot is not None
        assert slot.confirmed_flush_lsn == batch.end_lsn


@pytest.mark.parametrize("reader", READERS)
def test_changes_of_an_open_transaction_come_when_it_commits(
    reader: str,
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    database: str,
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(settings) as source, psycopg.connect(database) as slow:
        position = source.create_slot()
        using(reader, source, tables)
        slow.execute("INSERT INTO a VALUES (1)")
        sql.execute("INSERT INTO a VALUES (2)")
        batches = list(source.read(position, source.current_lsn(), tables))
        assert [event[3][0] for event in stream(batches)] == [2]
        source.confirm(batches[-1].end_lsn)
        slow.commit()
        batches = list(source.read(batches[-1].end_lsn, source.current_lsn(), tables))
        assert [event[3][0] for event in stream(batches)] == [1]


def test_commits_that_were_not_flushed_yet_count(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        sql.execute("SET synchronous_commit = off")
        for i in range(20):
            sql.execute("INSERT INTO a VALUES (%s)", [i])
            told = stream(source.read(start, source.current_lsn(), tables))
            assert len(told) == i + 1


def test_a_table_that_joins_is_sent_from_the_same_position(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    tables = sorted(prepared(catalog, sql))
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        using(STREAMING, source, {tables[0]})
        sql.execute("INSERT INTO b VALUES ('x', 1)")
        until = source.current_lsn()
        assert stream(source.read(start, until, tables[:1])) == []
        assert len(stream(source.read(start, until, tables))) == 1


def test_columns_carry_the_numbers_of_the_catalog(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        sql.execute("INSERT INTO a VALUES (1)")
        sql.execute("ALTER TABLE a DROP COLUMN note; ALTER TABLE a ADD COLUMN fresh int")
        sql.execute("INSERT INTO a VALUES (2)")
        batches = list(source.read(start, source.current_lsn(), tables))
    relations = [t.relation for batch in batches for t in batch.tables]
    assert [[(c.name, c.attnum) for c in r.columns] for r in relations] == [
        [("id", 1), ("note", 0), ("big", 3)],
        [("id", 1), ("big", 3), ("fresh", 4)],
    ]
    assert [r.key for r in relations] == [("id",), ("id",)]


def test_full_identity_is_keyed_by_an_immediate_primary_key(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    for name, key in [("keyed", "PRIMARY KEY"), ("late", "PRIMARY KEY DEFERRABLE"), ("bare", "")]:
        sql.execute(f"CREATE TABLE {name} (id int {key}, v int)")
        sql.execute(f"ALTER TABLE {name} REPLICA IDENTITY FULL")
    keys = {t.relation.table.name: t.relation.key for t in catalog.publish()}
    assert keys == {"keyed": ("id",), "late": (), "bare": ()}
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        for name in keys:
            sql.execute(f"INSERT INTO {name} VALUES (1, 1)")
            sql.execute(f"UPDATE {name} SET v = 2")
        oids = {t.relation.oid for t in catalog.tables()}
        batches = list(source.read(start, source.current_lsn(), oids))
    told = {
        t.relation.table.name: (t.relation.key, [Op(op).name for op in t.op.tolist()])
        for batch in batches
        for t in batch.tables
    }
    assert told == {
        "keyed": (("id",), ["INSERT", "UPDATE"]),
        "late": ((), ["INSERT", "DELETE", "INSERT"]),
        "bare": ((), ["INSERT", "DELETE", "INSERT"]),
    }


def test_the_stream_outlives_a_slow_load(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection, database: str
) -> None:
    tables = prepared(catalog, sql)
    name = database.rpartition("/")[2]
    sql.execute(f'ALTER DATABASE "{name}" SET wal_sender_timeout = 600')
    with PgChangeSource(replace(settings, batch_max_rows=10)) as source:
        start = source.create_slot()
        using(STREAMING, source, tables)
        # More than the sockets hold, so that the server waits for its reader.
        sql.execute("INSERT INTO a SELECT i, repeat('x', 1000), '' FROM generate_series(1, 8000) i")
        for i in range(20):
            sql.execute("INSERT INTO b VALUES ('x', %s)", [i])
        seen: list[ChangeBatch] = []
        for batch in source.read(start, source.current_lsn(), tables):
            seen.append(batch)
            if len(seen) in (1, 3):
                time.sleep(1.5)
            source.confirm(batch.end_lsn)
        assert sum(batch.changes for batch in seen) == 8020
        assert is_streaming(sql, settings.slot_name)


def test_a_server_that_refuses_bulk_is_streamed(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection, database: str
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(settings) as source:
        start = source.create_slot()
    name = database.rpartition("/")[2]
    sql.execute(f"ALTER DATABASE \"{name}\" SET temp_file_limit = '64kB'")
    sql.execute(f"ALTER DATABASE \"{name}\" SET work_mem = '64kB'")
    sql.execute("INSERT INTO a SELECT i, repeat('x', 100), '' FROM generate_series(1, 5000) i")
    with PgChangeSource(settings) as source:
        batches = list(source.read(start, source.current_lsn(), tables))
        assert sum(batch.changes for batch in batches) == 5000
        assert is_streaming(sql, settings.slot_name)


@pytest.mark.parametrize("reader", READERS)
def test_a_dropped_slot_is_history_lost(
    reader: str, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    tables = prepared(catalog, sql)
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        using(reader, source, tables)
        sql.execute("INSERT INTO a VALUES (1)")
        assert source.drop_slot()
        assert not source.drop_slot()
        with pytest.raises(ContinuityLost, match="does not exist"):
            list(source.read(start, source.current_lsn(), tables))
        with pytest.raises(ContinuityLost):
            source.confirm(Lsn(start + 1))


def test_a_slot_of_another_plugin_is_refused(
    settings: SourceSettings, sql: psycopg.Connection
) -> None:
    try:
        sql.execute(
            "SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [settings.slot_name]
        )
    except psycopg.errors.UndefinedFile:
        pytest.skip("this server has no test_decoding")
    with PgChangeSource(settings) as source, pytest.raises(OperatorNeeded, match="test_decoding"):
        list(source.read(Lsn(1), source.current_lsn(), set()))


def test_a_publication_that_was_missing_is_history_lost(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
        sql.execute("INSERT INTO t VALUES (1)")
        (table,) = catalog.publish()
        try:
            told = stream(source.read(start, source.current_lsn(), {table.relation.oid}))
        except ContinuityLost as lost:
            assert settings.pub_name in str(lost)  # noqa: PT017 - newer servers leave changes out
        else:
            assert told == []


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("how", ["restart", "cut"])
def test_a_lost_connection_is_source_unavailable(
    reader: str,
    how: str,
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    postgres: Server,
) -> None:
    tables = prepared(catalog, sql)
    stop: Callable[[], object]
    if how == "restart":
        if postgres.embedded is None:
            pytest.skip("this server is not ours to restart")
        embedded = postgres.embedded
        stop = lambda: embedded.restart("immediate")  # noqa: E731
    else:
        stop = lambda: sql.execute(  # noqa: E731
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'pgbronze/%' AND datname = current_database()"
        )
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        using(reader, source, tables)
        sql.execute("INSERT INTO a VALUES (1)")
        until = source.current_lsn()
        stop()
        with pytest.raises(SourceUnavailable):
            list(source.read(start, until, tables))
    with PgChangeSource(settings) as source:
        assert len(stream(source.read(start, until, tables))) == 1


def test_the_position_is_past_every_commit(
    sql: psycopg.Connection, settings: SourceSettings
) -> None:
    with PgChangeSource(settings) as source:
        before = source.current_lsn()
        sql.execute("CREATE TABLE t (id int)")
        assert source.current_lsn() > before
        assert current_lsn(sql) >= before
