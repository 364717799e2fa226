"""The stream of committed changes: a replication slot and its publication."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from cdc_core.values.changes import ChangeBatch
    from cdc_core.values.checkpoint import SourceIdentity
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.table_rules import ColumnRules


@dataclass(frozen=True)
class SlotState:
    """A row of `pg_replication_slots`, sizes in bytes."""

    name: str
    plugin: str
    database: str
    active_pid: int | None
    restart_lsn: Lsn | None
    confirmed_flush_lsn: Lsn | None
    wal_status: str
    #: WAL that the slot retains, and how much more can be written before the slot is lost (None:
    #: no limit).
    retained_bytes: int
    safe_bytes: int | None
    #: The slot sends prepared transactions when they are prepared, in separate messages.
    two_phase: bool = False

    @property
    def lost(self) -> bool:
        return self.wal_status == "lost" or self.restart_lsn is None


class ReadAgain(Exception):
    """`read` ended within a batch of several parts, though the source works.

    Discard these parts. The next `read` from the same position uses another method.
    """


class ChangeSource(Protocol):
    """One slot of one database, for one run at a time.

    Open it (as a context manager) before use, else `RuntimeError`. Opening takes the slot's writer
    lock or raises `WriterBusy`, which names the holder. Closing releases the lock.
    """

    def __enter__(self) -> ChangeSource: ...

    def __exit__(self, *exc: object) -> None: ...

    def identity(self) -> SourceIdentity: ...

    def left_timeline(self, timeline: int) -> Lsn | None:
        """Return where the source's WAL left an earlier timeline; None if it never was on it."""
        ...

    def current_lsn(self) -> Lsn:
        """Return a position at or past every commit that has returned to its client."""
        ...

    def slot(self) -> SlotState | None:
        """Return the slot as it is now; None if it does not exist."""
        ...

    def create_slot(self) -> Lsn:
        """Create the slot; return its consistent point, after which it sends every commit.

        Raises `OperatorNeeded` if the slot exists. `SnapshotSource.begin` also opens a snapshot.
        """
        ...

    def drop_slot(self) -> bool:
        """Drop the slot; False if it did not exist. Raises `WriterBusy` while another process reads
        it."""
        ...

    def note_transactions(self) -> None:
        """Have the server log the running transactions. Once the slot has read that record, it can
        release the WAL before the oldest of them.

        The server does this about every 15 seconds anyway; without permission to request it, this
        call waits that long.
        """
        ...

    def expect_read(self) -> Lsn:
        """Announce a `read`, probably from the slot's position, up to the position that this
        returns: `current_lsn()`.

        A source that is slow to start can start now. Errors of the slot are raised by the other
        calls.
        """
        ...

    def read(
        self,
        after: Lsn,
        until: Lsn,
        tables: Collection[int],
        stop: Callable[[], bool] = lambda: False,
        rules: Mapping[int, ColumnRules] | None = None,
    ) -> Iterator[ChangeBatch]:
        """Yield whole transactions that committed after `after`, in commit order, with the changes
        of the tables with these oids.

        Ends when nothing that committed before `until` is left; the last batch's `end_lsn` is then
        at or past `until`, even if it has no rows. Skips every transaction whose commit record ends
        at or before `after` (the slot may be behind). Does not move the slot: a second `read` from
        the same position yields the same changes, although batches may be cut elsewhere. Memory is
        limited whatever the size of a transaction: a large batch comes in parts (see
        `ChangeBatch`). `stop` is called between batches. Columns of a relation have the numbers
        that the catalog has for their names now, or 0 for unknown names. `rules` (by oid) say of
        columns by name how to read their values; the relations of the changes repeat them.

        Raises `ContinuityLost` if the slot does not exist or is lost, `WriterBusy` while another
        process reads it, and `ReadAgain`.
        """
        ...

    def confirm(self, durable_lsn: Lsn) -> None:
        """Move the slot to `durable_lsn`, which the destination holds; never beyond, never back.

        May be called between the batches of a `read`. Raises as `read` does.
        """
        ...
