"""The stream of committed changes: a replication slot and its publication."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cdc_core.values.changes import ChangeBatch
    from cdc_core.values.checkpoint import SourceIdentity
    from cdc_core.values.lsn import Lsn


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
    #: WAL kept because of the slot, and how much more may be written before it is lost (None: no
    #: limit).
    retained_bytes: int
    safe_bytes: int | None
    #: Prepared transactions come when they are prepared, in messages of their own.
    two_phase: bool = False

    @property
    def lost(self) -> bool:
        return self.wal_status == "lost" or self.restart_lsn is None


class ReadAgain(Exception):
    """A reading ended within a batch that came in parts, though nothing is wrong with the source:
    the parts are void, and the next reading from the same position goes another way."""


class ChangeSource(Protocol):
    """One slot of one database. Opened (as a context manager) before use, else `RuntimeError`; one
    run at a time.

    Opening takes the slot's writer lock, or raises `WriterBusy` naming the holder; closing gives
    it up.
    """

    def __enter__(self) -> ChangeSource: ...

    def __exit__(self, *exc: object) -> None: ...

    def identity(self) -> SourceIdentity: ...

    def left_timeline(self, timeline: int) -> Lsn | None:
        """Where the source's WAL left an earlier timeline; None if it never was on it."""
        ...

    def current_lsn(self) -> Lsn:
        """A position at or past every commit that has returned to its client by now."""
        ...

    def slot(self) -> SlotState | None:
        """The slot as it is now, None if there is none."""
        ...

    def create_slot(self) -> Lsn:
        """Create the slot; its consistent point, after which every commit will come.

        A slot that exists is `OperatorNeeded`. Prefer `SnapshotSource.begin`, which does both.
        """
        ...

    def drop_slot(self) -> bool:
        """Drop the slot; False if there was none. Raises `WriterBusy` while another process reads
        it."""
        ...

    def note_transactions(self) -> None:
        """Have the server note which transactions are under way: reading past that note lets the
        slot give up the WAL before the oldest. It does so by itself too, every 15 seconds or so;
        where it cannot be asked to, this waits as long.
        """
        ...

    def expect_read(self) -> Lsn:
        """Say that a `read` will come, most likely from the slot's position on, up to the one that
        this returns: `current_lsn()`.

        Nothing need happen; a source that takes long to begin may begin now. What is wrong with the
        slot is for the other calls to tell.
        """
        ...

    def read(
        self,
        after: Lsn,
        until: Lsn,
        tables: Collection[int],
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[ChangeBatch]:
        """Whole transactions that committed after `after`, in commit order, of the tables with
        these oids.

        Ends once nothing that committed before `until` is left; the last batch's `end_lsn` is at or
        past `until` then, even if it has no rows. A transaction whose commit record ends at or
        before `after` never comes (the slot may
        be behind). Does not move the slot: reading again from the same position gives the same
        changes, though batches may be cut elsewhere. Memory is bounded, whatever a transaction's
        size: what is too much comes in parts (see `ChangeBatch`). Changes of other tables are left
        out. `stop` is asked between batches. A relation's columns have the numbers that the catalog
        has for their names now, 0 for names it does not know.

        Raises `ContinuityLost` where the slot is gone or lost, `WriterBusy` while another process
        reads it; `ReadAgain`.
        """
        ...

    def confirm(self, durable_lsn: Lsn) -> None:
        """Move the slot to `durable_lsn`, which the destination holds; never beyond it, never
        back. May be called between the batches of a reading; raises as `read` does."""
        ...
