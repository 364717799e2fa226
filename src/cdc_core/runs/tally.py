"""Counts and positions of a run, added up from its events. Receipts and metrics read them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdc_core.ports.progress import (
    BatchLoaded,
    CaughtUp,
    Checkpointed,
    ChunkRead,
    ReadingUpTo,
    SlotObserved,
    TableRepaired,
    TableStarted,
)
from cdc_core.values.changes import Operations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdc_core.ports.change_source import SlotState
    from cdc_core.ports.progress import Event
    from cdc_core.values.checkpoint import Checkpoint, TableState
    from cdc_core.values.lsn import Lsn


def _now() -> int:
    return time.time_ns() // 1000


@dataclass
class Counts:
    """Sums over events. `tables` has a key for each table that was changed or read."""

    transactions: int = 0
    batches: int = 0
    bytes_read: int = 0
    tables: dict[str, Operations] = field(default_factory=dict)
    rows_read: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The tables that were changed or read."""
        return sorted(self.tables.keys() | self.rows_read.keys())

    @property
    def operations(self) -> Operations:
        return sum(self.tables.values(), Operations())

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.transactions or self.batches or self.tables or self.rows_read)


class Tally:
    """A listener; one run at a time. `now` returns microseconds since 1970-01-01 UTC."""

    def __init__(self, now: Callable[[], int] = _now) -> None:
        self._now = now
        self.counts = Counts()
        #: Where the checkpoint stood at the start; None without one.
        self.first_lsn: Lsn | None = None
        self.checkpoint: Checkpoint | None = None
        self.slot: SlotState | None = None
        self.source_lsn: Lsn | None = None
        #: Up to where everything is durable, and the newest state that the destination has, in
        #: microseconds since 1970-01-01 UTC.
        self._caught_up: Lsn | None = None
        self._as_of: int | None = None
        self._targets: dict[str, str] = {}
        self._known: Mapping[int, TableState] | None = None
        self._started = False

    def emit(self, event: Event) -> None:
        counts = self.counts
        match event:
            case TableStarted(table):
                counts.rows_read.setdefault(table, 0)
            case ChunkRead(table, rows, size):
                counts.rows_read[table] = counts.rows_read.get(table, 0) + rows
                counts.bytes_read += size
            case TableRepaired(table, operations):
                counts.tables[table] = counts.tables.get(table, Operations()) + operations
            case BatchLoaded():
                self._load(event)
            case Checkpointed(checkpoint):
                self._move_to(checkpoint)
            case ReadingUpTo(source_lsn):
                self._note_source(source_lsn)
            case CaughtUp(source_lsn, seconds_ago):
                self._note_source(source_lsn)
                self._caught_up = source_lsn
                self._note_state(self._now() - int(seconds_ago * 1e6))
            case SlotObserved(slot, source_lsn):
                self.slot = slot
                self._note_source(source_lsn)

    def take_counts(self) -> Counts:
        """Return the counts since the last call."""
        taken, self.counts = self.counts, Counts()
        return taken

    def target(self, table: str) -> str | None:
        """Return the destination table of a source table."""
        self._learn_targets()
        return self._targets.get(table)

    @property
    def lag_bytes(self) -> int | None:
        """Return the WAL that the source wrote after the checkpoint."""
        if self.source_lsn is None or self.checkpoint is None:
            return None
        return max(0, self.source_lsn - self.checkpoint.lsn)

    @property
    def lag_seconds(self) -> float | None:
        """Return how old the destination's state is; 0 if the source wrote nothing since."""
        if self.lag_bytes is None or self._as_of is None:
            return None
        written = self.source_lsn != self._caught_up and self.lag_bytes > 0
        return max(0.0, (self._now() - self._as_of) / 1e6) if written else 0.0

    def _load(self, batch: BatchLoaded) -> None:
        counts = self.counts
        counts.transactions += batch.transactions
        counts.batches += 1
        counts.bytes_read += batch.bytes_read
        for table, operations in batch.tables.items():
            counts.tables[table] = counts.tables.get(table, Operations()) + operations
        if batch.lsn is not None:
            self._note_source(type(batch.lsn)(batch.lsn + batch.lag_bytes))
        self._note_state(batch.committed_at)

    def _move_to(self, checkpoint: Checkpoint | None) -> None:
        self._learn_targets()
        self.checkpoint = checkpoint
        if checkpoint is not None:
            self._note_state(checkpoint.committed_at)
            if not self._started:
                self.first_lsn = checkpoint.lsn
        self._started = True

    def _note_source(self, lsn: Lsn) -> None:
        if self.source_lsn is None or lsn > self.source_lsn:
            self.source_lsn = lsn

    def _note_state(self, as_of: int | None) -> None:
        if as_of is not None:
            self._as_of = max(as_of, self._as_of or as_of)

    def _learn_targets(self) -> None:
        """Add the tables of the checkpoint. A renamed table keeps its entry under the old name."""
        if self.checkpoint is not None and self.checkpoint.tables is not self._known:
            self._known = self.checkpoint.tables
            self._targets |= {str(state.table): state.target for state in self._known.values()}
