"""Steps of a slot read through SQL: how many slots they need; two are at work at a time."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.changes import bulk_steps
from adapters.pgoutput.changes.bulk_steps import Steps
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.session.connection import server_major
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.session.sql_text import plugin_options
from tests.support.changes import stream
from tests.support.postgres import BIN, is_streaming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.wire.message_run import MessageRun


def transactions(sql: psycopg.Connection, count: int = 60) -> None:
    for i in range(count):
        sql.execute("INSERT INTO a SELECT %s * 1000 + j FROM generate_series(1, 50) j", [i])


@pytest.mark.parametrize(("slots", "streams"), [(1, True), (2, False), (3, False)])
def test_steps_get_by_with_the_slots_that_there_are(slots: int, streams: bool) -> None:
    limit = {"max_replication_slots": str(slots)}
    with (
        EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings=limit) as server,
        psycopg.connect(server.dsn, autocommit=True) as sql,
        psycopg.connect(server.dsn) as idle,
    ):
        settings = replace(SourceSettings(server.dsn), batch_max_bytes=30_000)
        sql.execute("CREATE TABLE a (id int PRIMARY KEY)")
        with closing(PgCatalog(settings)) as catalog:
            tables = [t.relation.oid for t in catalog.publish()]
        with PgChangeSource(settings) as source:
            start = source.create_slot()
            # It is open all the time, so that every step decodes from the same `restart_lsn`.
            idle.execute("SELECT pg_current_xact_id()")
            transactions(sql)
            until = source.current_lsn()
            batches = list(source.read(start, until, tables))
            assert is_streaming(sql, settings.slot_name) is streams
    told = [event[3][0] for event in stream(batches)]
    assert told == [i * 1000 + j for i in range(60) for j in range(1, 51)]
    assert batches[-1].end_lsn >= until


def test_steps_get_by_with_the_sessions_that_there_are(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection, database: str
) -> None:
    sql.execute("CREATE TABLE a (id int PRIMARY KEY)")
    tables = [t.relation.oid for t in catalog.publish()]
    role = f"limited_{settings.slot_name}"
    sql.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'secret-word' CONNECTION LIMIT 2")
    parts = urlsplit(database)
    login = f"{role}:secret-word@{parts.hostname}:{parts.port}"
    settings = replace(
        settings, conninfo=urlunsplit(parts._replace(netloc=login)), batch_max_bytes=30_000
    )
    try:
        with PgChangeSource(settings) as source:
            start = source.create_slot()
            transactions(sql)
            batches = list(source.read(start, source.current_lsn(), tables))
            assert not is_streaming(sql, settings.slot_name)
    finally:
        sql.execute(f"DROP ROLE {role}")
    assert len(stream(batches)) == 60 * 50


@pytest.fixture
def steps(settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection) -> Iterator[Steps]:
    settings = replace(settings, batch_max_bytes=100_000)
    sql.execute("CREATE TABLE a (id int PRIMARY KEY)")
    catalog.publish()
    with PgChangeSource(settings) as source:
        start = source.create_slot()
        transactions(sql, 120)
        sql.execute("INSERT INTO a SELECT -i FROM generate_series(1, 20000) i")
        sql.execute("DELETE FROM a")
        transactions(sql, 120)
        until = source.current_lsn()
        options = plugin_options(settings.pub_name, binary=False)
        with closing(
            Steps(settings, server_major(sql), options, start, start, start, until)
        ) as steps:
            yield steps


def copies(sql: psycopg.Connection) -> dict[str, str]:
    rows: Any = sql.execute(
        "SELECT slot_name, confirmed_flush_lsn::text FROM pg_replication_slots "
        "WHERE slot_name LIKE 'pgbronze_copy_%' AND database = current_database()"
    ).fetchall()
    return dict(rows)


def ends(pieces: Iterator[MessageRun]) -> list[int]:
    return [piece.end_lsn(commit) for piece in pieces for commit in piece.commits().tolist()]


def test_a_step_is_decoded_while_the_one_before_it_is_taken(
    steps: Steps, sql: psycopg.Connection
) -> None:
    pieces = steps.read(lambda: False)
    first = next(pieces)
    assert len(first)
    deadline = time.monotonic() + 10
    while len({*copies(sql).values()}) < 2:
        assert time.monotonic() < deadline, "the second step did not begin"
        time.sleep(0.01)
    told = ends(iter([first])) + ends(pieces)
    assert told == sorted(set(told))
    assert len(told) == 120 + 2 + 120


def test_steps_that_end_early_contain_whole_transactions(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_steps, "MOST_RESTART_BYTES", 50_000)
    pieces = list(steps.read(lambda: False))
    assert pieces[-1].reached is not None
    assert 0 < len(ends(iter(pieces))) < 120


def test_steps_leave_no_copy_of_the_slot(steps: Steps, sql: psycopg.Connection) -> None:
    next(steps.read(lambda: False))
    assert copies(sql)
    steps.close()
    deadline = time.monotonic() + 10
    while copies(sql):
        assert time.monotonic() < deadline, "a copy stays"
        time.sleep(0.01)
