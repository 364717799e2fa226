"""Transactions that the server hands over in blocks while they are under way."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from adapters.pgoutput.changes import bulk_reader, bulk_steps, reader_choice
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.changes.in_progress_transactions import InProgressTransactions
from tests.support.changes import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings

ROWS = 3000


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The kinds of the messages about blocks and whose they are, as they come."""
    seen: list[bytes] = []
    put = InProgressTransactions.put

    def noted(self: InProgressTransactions, messages: Any) -> Iterator[Any]:
        seen.extend(m[:1] for m in messages.to_pylist() if m[:1] in b"SEcA")
        return put(self, messages)

    monkeypatch.setattr(InProgressTransactions, "put", noted)
    return seen


def decode_in_little_memory(sql: psycopg.Connection, database: str) -> None:
    name = database.rpartition("/")[2]
    for setting in ("logical_decoding_work_mem = '64kB'", "effective_cache_size = '8kB'"):
        sql.execute(f'ALTER DATABASE "{name}" SET {setting}')


def followed(settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection) -> set[int]:
    """An empty table, published, and a slot."""
    sql.execute("CREATE TABLE a (id int PRIMARY KEY, note text, big text)")
    tables = {t.relation.oid for t in catalog.publish()}
    with PgChangeSource(settings) as source:
        source.create_slot()
    return tables


def fill(sql: psycopg.Connection, note: str, first: int, rows: int = ROWS) -> None:
    sql.execute(
        "INSERT INTO a SELECT i, %s, CASE WHEN i %% 500 = 0 THEN repeat('x', 5000) END "
        "FROM generate_series(%s::int, %s::int) i",
        [note, first, first + rows - 1],
    )


def read(
    settings: SourceSettings, tables: set[int], *, streaming: bool = False
) -> list[tuple[Any, ...]]:
    with PgChangeSource(settings) as source:
        slot = source.slot()
        assert slot is not None
        start = slot.confirmed_flush_lsn
        assert start is not None
        until = source.current_lsn()
        if streaming:
            # What goes on where a reading ended is streamed.
            list(source.read(start, start, tables))
        return stream(source.read(start, until, tables))


def test_large_transactions_tell_the_same_in_blocks_and_whole(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    database: str,
    marks: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk_reader, "_SMALL_BYTES", 1 << 40)
    decode_in_little_memory(sql, database)
    sql.execute("CREATE TYPE mood AS ENUM ('well')")
    sql.execute("CREATE TABLE a (id int PRIMARY KEY, note text, big text)")
    sql.execute("ALTER TABLE a ALTER big SET STORAGE EXTERNAL")
    sql.execute("CREATE TABLE b (x text, y mood); ALTER TABLE b REPLICA IDENTITY FULL")
    tables = {t.relation.oid for t in catalog.publish()}
    with PgChangeSource(settings) as source:
        source.create_slot()
    with ExitStack() as stack:
        one, two, three = (stack.enter_context(psycopg.connect(database)) for _ in range(3))
        # Two that overlap with one another and with small ones, in another order of commits.
        fill(one, "one", 1)
        fill(two, "two", 10_001)
        sql.execute("INSERT INTO a VALUES (-1, 'small')")
        fill(one, "one again", 20_001)
        two.execute("UPDATE a SET note = 'updated' WHERE id > 12000")
        two.execute("UPDATE a SET id = id + 100000 WHERE id BETWEEN 10001 AND 10100")
        two.commit()
        sql.execute("INSERT INTO a VALUES (-2, 'small')")
        # Parts that are rolled back, the first of them with the only message about the table b.
        with one.transaction(force_rollback=True):
            one.execute("INSERT INTO b SELECT 'undone', 'well' FROM generate_series(1, 2000)")
        one.execute("INSERT INTO b SELECT 'done', 'well' FROM generate_series(1, 2000)")
        with one.transaction(force_rollback=True):
            one.execute("DELETE FROM a WHERE note = 'one'")
            with one.transaction():
                fill(one, "undone", 30_001)
        with one.transaction():
            one.execute("DELETE FROM a WHERE id < 100")
        one.execute("DELETE FROM b WHERE ctid IN (SELECT ctid FROM b LIMIT 10)")
        # One that never commits.
        fill(three, "never", 40_001)
        one.commit()
        three.rollback()
        # Definitions that change within one, and then are changed back.
        with one.transaction(force_rollback=True):
            one.execute("ALTER TABLE a ADD new int DEFAULT 1")
            one.execute("INSERT INTO a (id) SELECT i FROM generate_series(50001, 53000) i")
        fill(one, "without", 60_001)
        one.commit()
        one.execute("TRUNCATE a")
        fill(one, "last", 1)
        one.commit()
        fill(one, "open", 70_001)
        whole = read(settings, tables)
        assert not marks
        monkeypatch.setattr(bulk_reader, "_SMALL_BYTES", 1)
        for streaming in (False, True):
            for limits in ({}, {"batch_max_bytes": 200_000}):
                marks.clear()
                told = read(replace(settings, **limits), tables, streaming=streaming)
                assert marks.count(b"S") > 10
                assert {b"c", b"A"} <= {*marks}
                assert told == whole
    assert len([1 for event in whole if event[0] == "public.b"]) == 2010


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """`restart_lsn` is soon too far for bulk, and small reads are none."""
    monkeypatch.setattr(bulk_reader, "_SMALL_BYTES", 1)
    for module in (bulk_steps, reader_choice):
        monkeypatch.setattr(module, "MOST_RESTART_BYTES", 200_000)
    for name in ("_TAIL_BYTES", "_OPENING_BYTES"):
        monkeypatch.setattr(reader_choice, name, 0)


def readers(log: pytest.LogCaptureFixture) -> list[str]:
    """Which readers were chosen, in order."""
    told = [r.getMessage() for r in log.records if r.getMessage().startswith("reading by")]
    return [message.split()[2].rstrip(":") for message in told]


def test_what_the_server_has_decoded_is_taken_however_far_restart_lsn_is(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    near: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tables = followed(settings, catalog, sql)
    fill(sql, "large", 1, 20_000)
    fill(sql, "behind it", 20_001, 10)
    fill(sql, "another", 30_001, 10)
    with caplog.at_level(logging.INFO):
        told = read(replace(settings, batch_max_bytes=30_000), tables)
    assert readers(caplog) == ["bulk"]
    assert [event[3][0] for event in told] == [*range(1, 20_011), *range(30_001, 30_011)]


def test_an_open_transaction_ends_bulk_between_two_steps(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    database: str,
    near: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tables = followed(settings, catalog, sql)
    with psycopg.connect(database) as one, caplog.at_level(logging.INFO):
        fill(one, "open", 1, 10)
        for number in range(100):
            fill(sql, "small", 10_000 + number * 50, 50)
            sql.execute("CHECKPOINT")
        told = read(replace(settings, batch_max_bytes=30_000), tables)
    assert readers(caplog) == ["bulk", "streaming"]
    assert [event[3][0] for event in told] == [*range(10_000, 15_000)]


def test_a_transaction_too_large_for_bulk_is_streamed_in_blocks_and_what_follows_is_not(
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    database: str,
    marks: list[bytes],
    near: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bulk_steps, "_QUIET_STEP_BYTES", 200_000)
    decode_in_little_memory(sql, database)
    sql.execute("CREATE TABLE a (id int PRIMARY KEY, note text, big text)")
    tables = {t.relation.oid for t in catalog.publish()}
    settings = replace(settings, batch_max_bytes=30_000)
    with PgChangeSource(settings) as source, caplog.at_level(logging.INFO):
        position = source.create_slot()
        fill(sql, "large", 1, 20_000)
        for number in range(100):
            fill(sql, "small", 30_000 + number * 50, 50)
            sql.execute("CHECKPOINT")  # from which a slot can decode later
        told = []
        for batch in source.read(position, source.current_lsn(), tables):
            told.append(batch)
            if batch.complete and batch.changes:
                source.confirm(batch.end_lsn)
    assert readers(caplog) == ["bulk", "streaming", "bulk"]
    assert b"c" in marks
    assert [event[3][0] for event in stream(told)] == [*range(1, 20_001), *range(30_000, 35_000)]
    row: Any = sql.execute(
        "SELECT spill_txns, stream_txns FROM pg_stat_replication_slots WHERE slot_name = %s",
        [settings.slot_name],
    ).fetchone()
    assert row[0] == 0
    assert row[1] > 0
