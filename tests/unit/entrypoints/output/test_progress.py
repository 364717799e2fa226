"""Progress as plain lines: few, and with what a person wants to know."""

from __future__ import annotations

import logging

import pytest

from cdc_core.ports.progress import (
    BatchLoaded,
    ChunkRead,
    Note,
    TableFinished,
    TableStarted,
    Warned,
)
from entrypoints.output.progress import DONE_SHOWN, LineProgress, TerminalProgress, size, time_left


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def progress(now, caplog):
    caplog.set_level(logging.INFO, "pgbronze")
    return LineProgress(lambda: now[0])


def test_a_long_table_is_logged_every_few_seconds(progress, now, caplog):
    progress.emit(TableStarted("public.orders", 1_000_000))
    for _ in range(80):
        now[0] += 0.125
        progress.emit(ChunkRead("public.orders", 6_250))
    progress.emit(TableFinished("public.orders"))
    assert [record.getMessage() for record in caplog.records] == [
        "public.orders: 250,000 rows of about 1,000,000, 50,000 rows/s, about 15 s left",
        "public.orders: 500,000 rows of about 1,000,000, 50,000 rows/s, about 10 s left",
        "public.orders: 500,000 rows, 50,000 rows/s",
    ]


def test_batches_log_totals_and_lag_but_not_each(progress, now, caplog):
    for _ in range(80):
        now[0] += 0.25
        progress.emit(BatchLoaded(10, 2, 3 << 20))
    progress.emit(BatchLoaded(0, 0, 0))
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "10 changes of 2 transactions loaded, 10 in all, lag 3.0 MB"
    assert len(told) == 4


def test_notes_and_warnings_are_log_lines(progress, caplog):
    progress.emit(Note("a note"))
    progress.emit(Warned("a warning"))
    assert [r.levelname for r in caplog.records] == ["INFO", "WARNING"]


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 kB"), (5 << 40, "5.0 TB")]
)
def test_size(count, told):
    assert size(count) == told


@pytest.mark.parametrize(
    ("rows", "speed", "told"),
    [
        (0, 10.0, ""),
        (-5, 10.0, ""),
        (10, 0.0, ""),
        (590, 10.0, ", about 59 s left"),
        (6_000, 10.0, ", about 10 min left"),
        (120_000, 10.0, ", about 3 h 20 min left"),
    ],
)
def test_time_left(rows, speed, told):
    assert time_left(rows, speed) == told


def test_a_table_larger_than_estimated_shows_no_time(progress, now, caplog):
    progress.emit(TableStarted("public.orders", 10))
    now[0] = 6.0
    progress.emit(ChunkRead("public.orders", 60))
    assert caplog.records[0].getMessage() == "public.orders: 60 rows, 10 rows/s"


def test_tables_side_by_side_show_their_own(progress, now, caplog):
    progress.emit(TableStarted("public.a", 1000))
    progress.emit(TableStarted("public.b", 0))
    now[0] = 10.0
    progress.emit(ChunkRead("public.a", 100))
    now[0] = 20.0
    progress.emit(ChunkRead("public.b", 40))
    assert [record.getMessage() for record in caplog.records] == [
        "public.a: 100 rows of about 1,000, 10 rows/s, about 1 min left",
        "public.b: 40 rows, 2 rows/s",
    ]


def test_bars_take_every_event():
    with TerminalProgress() as progress:
        progress.emit(TableStarted("public.orders", 0))
        progress.emit(ChunkRead("public.orders", 10))
        progress.emit(TableFinished("public.orders"))
        progress.emit(BatchLoaded(0, 0, 0))
        progress.emit(BatchLoaded(5, 1, 100))
        progress.emit(Note("x"))
        progress.emit(Warned("y"))


def test_bars_of_many_tables_are_those_of_the_latest() -> None:
    with TerminalProgress() as progress:
        for number in range(1000):
            progress.emit(TableStarted(f"public.t{number}", 1))
            progress.emit(ChunkRead(f"public.t{number}", 1))
            progress.emit(TableFinished(f"public.t{number}"))
        shown = [task.description for task in progress._open().tasks]
    assert shown == [f"public.t{number}" for number in range(1000 - DONE_SHOWN, 1000)]
