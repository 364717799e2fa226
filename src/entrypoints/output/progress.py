"""Progress of long work: live bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from entrypoints.output.log import is_terminal
from entrypoints.output.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from cdc_core.ports.progress import Progress

logger = logging.getLogger("pgbronze.progress")

EVERY_SECONDS = 5.0
#: Tables that are done and still have a bar: each one is drawn again ten times a second.
DONE_SHOWN = 20


def open_progress() -> LineProgress | TerminalProgress:
    return TerminalProgress() if is_terminal(sys.stderr) else LineProgress()


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def time_left(rows: int, speed: float) -> str:
    """The end of a sentence; nothing where it cannot be told."""
    if rows <= 0 or speed <= 0:
        return ""
    seconds = round(rows / speed)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f", about {hours} h {minutes} min left"
    return f", about {minutes} min left" if minutes else f", about {seconds} s left"


@dataclass
class _Table:
    estimated: int
    started: float
    rows: int = 0


@dataclass
class LineProgress:
    """Plain log lines; see `cdc_core.ports.progress.Progress`."""

    monotonic: Callable[[], float] = time.monotonic
    _tables: dict[str, _Table] = field(default_factory=dict)
    _told: float = float("-inf")
    _changes: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def table_started(self, table: str, estimated_rows: int) -> None:
        now = self.monotonic()
        self._tables[table] = _Table(estimated_rows, now)
        self._told = max(self._told, now)

    def rows_read(self, table: str, rows: int) -> None:
        state = self._tables.setdefault(table, _Table(0, self.monotonic()))
        state.rows += rows
        if self._due():
            of = f" of about {state.estimated:,}" if state.estimated > state.rows else ""
            speed = self._speed(state)
            left = time_left(state.estimated - state.rows, speed)
            logger.info(
                "%s: %s rows%s, %s", table, f"{state.rows:,}", of, f"{speed:,.0f} rows/s{left}"
            )

    def table_finished(self, table: str) -> None:
        state = self._tables.pop(table, None)
        if state is not None:
            speed = self._speed(state)
            logger.info("%s: %s rows, %s", table, f"{state.rows:,}", f"{speed:,.0f} rows/s")

    def batch_loaded(self, changes: int, transactions: int, lag_bytes: int) -> None:
        self._changes += changes
        if changes and self._due():
            logger.info(
                "%s changes of %s transactions loaded, %s in all, lag %s",
                f"{changes:,}",
                f"{transactions:,}",
                f"{self._changes:,}",
                size(lag_bytes),
            )

    def note(self, message: str) -> None:
        logger.info("%s", message)

    def warn(self, message: str) -> None:
        logger.warning("%s", message)

    def _due(self) -> bool:
        now = self.monotonic()
        if now - self._told < EVERY_SECONDS:
            return False
        self._told = now
        return True

    def _speed(self, state: _Table) -> float:
        return state.rows / max(self.monotonic() - state.started, 1e-3)


class TerminalProgress:
    """Bars of rich, drawn from the first work on; see `cdc_core.ports.progress.Progress`."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        #: Bars of tables that are done, the latest ones.
        self._done: deque[TaskID] = deque()
        self._stream: TaskID | None = None
        self._changes = 0
        self._transactions = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._stream = None

    def table_started(self, table: str, estimated_rows: int) -> None:
        bars, task, total = self._open(), self._task(table), estimated_rows or None
        bars.reset(task, total=total, told="")

    def rows_read(self, table: str, rows: int) -> None:
        bars, task = self._open(), self._task(table)
        bars.advance(task, rows)
        state = bars.tasks[bars.task_ids.index(task)]
        if state.speed:
            left = time_left(int((state.total or 0) - state.completed), state.speed)
            bars.update(task, told=f"{state.speed:,.0f} rows/s{left}")

    def table_finished(self, table: str) -> None:
        bars, task = self._open(), self._task(table)
        del self._tasks[table]
        done = bars.tasks[bars.task_ids.index(task)].completed
        bars.update(task, total=max(done, 1), completed=max(done, 1), told=f"{done:,.0f} rows")
        self._done.append(task)
        if len(self._done) > DONE_SHOWN:
            bars.remove_task(self._done.popleft())

    def batch_loaded(self, changes: int, transactions: int, lag_bytes: int) -> None:
        if not changes and self._stream is None:
            return
        bars = self._open()
        if self._stream is None:
            self._stream = bars.add_task("changes", total=None, told="")
        self._changes += changes
        bars.advance(self._stream, changes)
        speed = bars.tasks[bars.task_ids.index(self._stream)].speed
        rate = f", {speed:,.0f} rows/s" if speed else ""
        self._transactions += transactions
        told = (
            f"{self._changes:,} of {self._transactions:,} transactions{rate}, lag {size(lag_bytes)}"
        )
        bars.update(self._stream, told=told)

    def note(self, message: str) -> None:
        logger.info("%s", message)

    def warn(self, message: str) -> None:
        logger.warning("%s", message)

    def _task(self, table: str) -> TaskID:
        """The bar of the table that is being read."""
        if table not in self._tasks:
            self._tasks[table] = self._open().add_task(printable(table), total=None, told="")
        return self._tasks[table]

    def _open(self) -> Bars:
        if self._bars is None:
            from rich.progress import (
                BarColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
                TimeElapsedColumn,
            )

            from entrypoints.output.terminal import error_console

            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[told]}", markup=False),
                TimeElapsedColumn(),
                console=error_console(),
            )
            self._bars.start()
        return self._bars


def _fits(terminal: TerminalProgress, lines: LineProgress) -> tuple[Progress, Progress]:
    """Checked by mypy: both are the port."""
    return terminal, lines
