"""Show progress: live bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cdc_core.ports.progress import (
    BatchLoaded,
    ChunkRead,
    Note,
    TableFinished,
    TableStarted,
    Warned,
)
from entrypoints.output.log import is_terminal
from entrypoints.output.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from cdc_core.ports.progress import Event, Progress

logger = logging.getLogger("pgbronze.progress")

EVERY_SECONDS = 5.0
#: Finished tables that keep their bar. Each bar is redrawn ten times a second.
DONE_SHOWN = 20


def open_progress() -> LineProgress | TerminalProgress:
    return TerminalProgress() if is_terminal(sys.stderr) else LineProgress()


def size(count: float) -> str:
    """Bytes with a unit, powers of 1024."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def time_left(rows: int, speed: float) -> str:
    """The end of a sentence, or nothing if it cannot be estimated."""
    if rows <= 0 or speed <= 0:
        return ""
    seconds = round(rows / speed)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f", about {hours} h {minutes} min left"
    return f", about {minutes} min left" if minutes else f", about {seconds} s left"


class _Display:
    """A listener that shows events until it is closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def emit(self, event: Event) -> None:
        match event:
            case TableStarted(table, estimated_rows):
                self._start(table, estimated_rows)
            case ChunkRead(table, rows):
                self._read(table, rows)
            case TableFinished(table):
                self._finish(table)
            case BatchLoaded():
                self._load(event)
            case Note(message):
                logger.info("%s", message)
            case Warned(message):
                logger.warning("%s", message)

    def _start(self, table: str, estimated_rows: int) -> None:
        raise NotImplementedError

    def _read(self, table: str, rows: int) -> None:
        raise NotImplementedError

    def _finish(self, table: str) -> None:
        raise NotImplementedError

    def _load(self, batch: BatchLoaded) -> None:
        raise NotImplementedError


@dataclass
class _Table:
    estimated: int
    started: float
    rows: int = 0


@dataclass
class LineProgress(_Display):
    """Log progress as plain lines, at most one every `EVERY_SECONDS`."""

    monotonic: Callable[[], float] = time.monotonic
    _tables: dict[str, _Table] = field(default_factory=dict)
    _logged: float = float("-inf")
    _changes: int = 0

    def _start(self, table: str, estimated_rows: int) -> None:
        now = self.monotonic()
        self._tables[table] = _Table(estimated_rows, now)
        self._logged = max(self._logged, now)

    def _read(self, table: str, rows: int) -> None:
        state = self._tables.setdefault(table, _Table(0, self.monotonic()))
        state.rows += rows
        if self._due():
            of = f" of about {state.estimated:,}" if state.estimated > state.rows else ""
            speed = self._speed(state)
            left = time_left(state.estimated - state.rows, speed)
            logger.info(
                "%s: %s rows%s, %s", table, f"{state.rows:,}", of, f"{speed:,.0f} rows/s{left}"
            )

    def _finish(self, table: str) -> None:
        state = self._tables.pop(table, None)
        if state is not None:
            speed = self._speed(state)
            logger.info("%s: %s rows, %s", table, f"{state.rows:,}", f"{speed:,.0f} rows/s")

    def _load(self, batch: BatchLoaded) -> None:
        self._changes += batch.changes
        if batch.changes and self._due():
            logger.info(
                "%s changes of %s transactions loaded, %s in all, lag %s",
                f"{batch.changes:,}",
                f"{batch.transactions:,}",
                f"{self._changes:,}",
                size(batch.lag_bytes),
            )

    def _due(self) -> bool:
        now = self.monotonic()
        if now - self._logged < EVERY_SECONDS:
            return False
        self._logged = now
        return True

    def _speed(self, state: _Table) -> float:
        return state.rows / max(self.monotonic() - state.started, 1e-3)


class TerminalProgress(_Display):
    """Draw one bar per table and one for changes, once there is work."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        #: Bars of the latest finished tables.
        self._done: deque[TaskID] = deque()
        self._stream: TaskID | None = None
        self._changes = 0
        self._transactions = 0

    def __exit__(self, *exc: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._stream = None

    def _start(self, table: str, estimated_rows: int) -> None:
        bars, task = self._open(), self._task(table)
        bars.reset(task, total=estimated_rows or None, shown="")

    def _read(self, table: str, rows: int) -> None:
        bars, task = self._open(), self._task(table)
        bars.advance(task, rows)
        state = bars.tasks[bars.task_ids.index(task)]
        if state.speed:
            left = time_left(int((state.total or 0) - state.completed), state.speed)
            bars.update(task, shown=f"{state.speed:,.0f} rows/s{left}")

    def _finish(self, table: str) -> None:
        bars, task = self._open(), self._task(table)
        del self._tasks[table]
        done = bars.tasks[bars.task_ids.index(task)].completed
        bars.update(task, total=max(done, 1), completed=max(done, 1), shown=f"{done:,.0f} rows")
        self._done.append(task)
        if len(self._done) > DONE_SHOWN:
            bars.remove_task(self._done.popleft())

    def _load(self, batch: BatchLoaded) -> None:
        if not batch.changes and self._stream is None:
            return
        bars = self._open()
        if self._stream is None:
            self._stream = bars.add_task("changes", total=None, shown="")
        self._changes += batch.changes
        bars.advance(self._stream, batch.changes)
        speed = bars.tasks[bars.task_ids.index(self._stream)].speed
        rate = f", {speed:,.0f} rows/s" if speed else ""
        self._transactions += batch.transactions
        lag = size(batch.lag_bytes)
        shown = f"{self._changes:,} of {self._transactions:,} transactions{rate}, lag {lag}"
        bars.update(self._stream, shown=shown)

    def _task(self, table: str) -> TaskID:
        """The bar of a table."""
        if table not in self._tasks:
            self._tasks[table] = self._open().add_task(printable(table), total=None, shown="")
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
                TextColumn("{task.fields[shown]}", markup=False),
                TimeElapsedColumn(),
                console=error_console(),
            )
            self._bars.start()
        return self._bars


def _fits(terminal: TerminalProgress, lines: LineProgress) -> tuple[Progress, Progress]:
    """mypy checks that both are listeners."""
    return terminal, lines
