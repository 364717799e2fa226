from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.session.connection import application_prefix, connect
from adapters.pgoutput.slot.writer_lock import end_if_dead
from cdc_core.values.errors import SourceUnavailable, WriterBusy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.session.settings import SourceSettings

HOLDER = """
import sys, time
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.session.settings import SourceSettings
settings = SourceSettings(sys.argv[1], slot_name=sys.argv[2], pub_name="pgbronze_pub")
with PgChangeSource(settings) as source:
    position = source.create_slot() if source.slot() is None else source.slot().confirmed_flush_lsn
    for _ in range(2):  # the second reading streams
        list(source.read(position, source.current_lsn(), set()))
    print("holding", flush=True)
    if len(sys.argv) > 3:
        source._control.execute("SELECT pg_sleep(60)")
    time.sleep(60)
"""


def holder(settings: SourceSettings, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, settings.conninfo, settings.slot_name, *more],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    return process


@pytest.fixture
def held(settings: SourceSettings) -> Iterator[subprocess.Popen[str]]:
    process = holder(settings)
    yield process
    process.kill()
    process.wait()


def test_a_second_writer_ends_at_once_naming_the_first(
    settings: SourceSettings, held: subprocess.Popen[str]
) -> None:
    started = time.monotonic()
    with pytest.raises(WriterBusy) as told, PgChangeSource(settings):
        pass
    assert time.monotonic() - started < 2
    assert f"process {held.pid} " in str(told.value)
    assert "backend" in str(told.value)
    assert told.value.exit_code == 3


def test_another_slot_is_another_lock(
    settings: SourceSettings, held: subprocess.Popen[str]
) -> None:
    with PgChangeSource(replace(settings, slot_name="another")) as source:
        assert source.slot() is None


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_writer_is_no_obstacle(settings: SourceSettings, busy: bool) -> None:
    process = holder(settings, *(["busy"] if busy else []))
    process.send_signal(signal.SIGKILL)
    process.wait()
    with PgChangeSource(settings) as source:
        slot = source.slot()
        assert slot is not None
        assert slot.confirmed_flush_lsn is not None
        list(source.read(slot.confirmed_flush_lsn, source.current_lsn(), set()))
        assert source.drop_slot()


def test_a_lost_lock_moves_nothing(settings: SourceSettings, sql: psycopg.Connection) -> None:
    with PgChangeSource(settings) as source:
        position = source.create_slot()
        sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'pgbronze/%' AND datname = current_database()"
        )
        with PgChangeSource(settings), pytest.raises(SourceUnavailable):
            source.confirm(position)


def test_a_slot_that_something_else_reads_is_named(settings: SourceSettings, database: str) -> None:
    with PgChangeSource(settings) as source:
        source.create_slot()
        stranger = psycopg.connect(
            database, autocommit=True, replication="database", application_name="stranger"
        )
        result = stranger.pgconn.exec_(
            f"START_REPLICATION SLOT {settings.slot_name} LOGICAL 0/0"
            " (proto_version '1', publication_names 'x')".encode()
        )
        assert result.status == psycopg.pq.ExecStatus.COPY_BOTH
        with pytest.raises(WriterBusy, match="stranger"):
            source.drop_slot()
        stranger.close()


def test_leaving_frees_the_lock(settings: SourceSettings) -> None:
    for _ in range(3):
        with PgChangeSource(settings) as source:
            source.current_lsn()


def test_only_the_backend_that_was_seen_is_terminated(
    settings: SourceSettings, database: str
) -> None:
    """Its number may be another one's by now, and a pool may have given it to somebody else."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    of_gone = f"{application_prefix()}{gone.pid}"
    with (
        connect(settings) as control,
        psycopg.connect(database, autocommit=True, application_name=of_gone) as other,
    ):
        seen: Any = control.execute(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE application_name = %s", [of_gone]
        ).fetchone()
        pid, started = seen
        assert end_if_dead(control, pid, of_gone, started - timedelta(seconds=1))
        other.execute("SELECT 1")
        other.execute("SET application_name = 'the application'")
        assert end_if_dead(control, pid, of_gone, started)
        other.execute(f"SET application_name = '{of_gone}'".encode())
        assert end_if_dead(control, pid, of_gone, started)
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT pg_sleep(1)")
