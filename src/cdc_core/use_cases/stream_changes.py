"""Stream changes: drain what was committed before the run began, or follow until stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cdc_core.fold.unrepresentable import warn_of_unrepresentable
from cdc_core.full_load.read_tables import READ_ATTEMPTS, read_tables
from cdc_core.ports.change_source import ReadAgain
from cdc_core.ports.clock import Clock, SystemClock
from cdc_core.ports.progress import (
    BatchLoaded,
    CaughtUp,
    Checkpointed,
    Listeners,
    Note,
    Progress,
    ReadingUpTo,
    Warned,
)
from cdc_core.runs.recorder import RunRecorder
from cdc_core.slot.continuity import confirmable, continuity_break, require_checkpoint
from cdc_core.slot.watch_budget import BudgetWatch
from cdc_core.tables.fold_batch import BatchFolding
from cdc_core.tables.follow import follow_tables
from cdc_core.tables.remove_rows import UnknownRows, removals
from cdc_core.values.changes import Operations
from cdc_core.values.errors import (
    DefinitionChanged,
    DestinationFailed,
    DestinationRefused,
    NeverLoaded,
    OperatorNeeded,
    TablesLocked,
    TablesNeedSnapshot,
    TablesRefused,
)
from cdc_core.values.history import DIFFERENCE_NUMBERS, Moment
from cdc_core.values.merges import EMPTY_BATCH
from cdc_core.values.relation import tables_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog
    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.snapshot_source import SnapshotSource
    from cdc_core.tables.followed_tables import FollowedTables
    from cdc_core.values.changes import ChangeBatch
    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.merges import LoadBatch

#: While following an idle database: how often, and after how much WAL, the position is made
#: durable.
IDLE_SECONDS = 60.0
IDLE_BYTES = 16 << 20
#: While following: how often the catalog is asked for new tables.
LOOK_SECONDS = 30.0


@dataclass
class StreamReport:
    lsn: Lsn
    changes: int = 0
    transactions: int = 0
    batches: int = 0
    tables_read: int = 0
    rows_read: int = 0
    unrepresentable: int = 0


@dataclass
class _Read:
    """What was read since the last load, which may be in several parts."""

    changes: int = 0
    transactions: int = 0
    wire_bytes: int = 0
    tables: dict[str, Operations] = field(default_factory=dict)

    def add(self, batch: ChangeBatch) -> None:
        self.changes += batch.changes
        self.transactions += batch.transactions
        self.wire_bytes += batch.wire_bytes
        for changes in batch.tables:
            table = str(changes.relation.table)
            self.tables[table] = self.tables.get(table, Operations()) + changes.operations


@dataclass(frozen=True)
class StreamChanges:
    """Change data capture from the checkpoint on.

    The order makes it safe: first a batch and its checkpoint become durable in the destination;
    only then does the slot move.
    """

    source: ChangeSource
    catalog: Catalog
    snapshots: SnapshotSource
    destination: Destination
    first_schema: str = "public"
    freeze_schema: bool = False
    #: Bytes of WAL that the slot may retain on the source's disk; None: no limit of our own.
    max_retained_wal: int | None = None
    poll_seconds: float = 0.5
    clock: Clock = field(default_factory=SystemClock)
    progress: Progress = field(default_factory=Listeners)
    runs: RunRecorder = field(default_factory=RunRecorder)

    def run(
        self, *, follow: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> StreamReport:
        """Bring every followed table to a commit at or past the WAL position at the start.

        `stop` ends the run cleanly after the current batch. Raises `NeverLoaded` before the first
        snapshot. Raises `TablesNeedSnapshot` once every other table is up to date. Raises
        `OperatorNeeded` if the slot retains more WAL than allowed although everything is loaded:
        an open transaction holds it, and only its owner can end that.
        """
        with self.source:
            return self._run(self.source.expect_read(), follow=follow, stop=stop)

    def catch_up(
        self, checkpoint: Checkpoint, unread: Mapping[int, str]
    ) -> tuple[Checkpoint, StreamReport]:
        """Read the tables `unread` (by oid, with the reason) and bring all tables to one commit, at
        or past the current WAL position. Source and destination must be open."""
        until = self.source.current_lsn()
        tables = self._follow(checkpoint, until, unread)
        report = StreamReport(checkpoint.lsn)
        self._drain(tables, until, report, lambda: False, idle_seconds=math.inf)
        warn_of_unrepresentable(self.progress, report.unrepresentable)
        _require_all(tables)
        return tables.checkpoint, report

    def _follow(
        self, checkpoint: Checkpoint, until: Lsn, unread: Mapping[int, str] | None = None
    ) -> FollowedTables:
        return follow_tables(
            checkpoint,
            self.catalog,
            self.destination,
            first_schema=self.first_schema,
            position=self.source.current_lsn,
            until=until,
            freeze=self.freeze_schema,
            unread=unread,
        )

    def _run(self, until: Lsn, *, follow: bool, stop: Callable[[], bool]) -> StreamReport:
        with (
            self.destination,
            self.runs.run("cdc", self.source, self.destination, follow=follow) as run,
        ):
            checkpoint = self._start()
            tables = self._follow(checkpoint, until)
            report = StreamReport(checkpoint.lsn)
            watch = BudgetWatch(self.source, self.max_retained_wal, self.progress)
            watch.warn()
            stale = self._warn_of_stale(tables, frozenset())
            idle = 0.0 if follow else math.inf
            self._drain(tables, until, report, stop, idle_seconds=idle, after_batch=run.tick)
            looked, batches = self.clock.monotonic(), report.batches
            position, moved = tables.checkpoint.lsn, self.clock.monotonic()
            while follow and not stop() and watch.lasting is None:
                if report.batches == batches:
                    self.clock.sleep(self.poll_seconds)
                batches = report.batches
                until = self.source.current_lsn()
                if self.clock.monotonic() - looked >= LOOK_SECONDS:
                    looked = self.clock.monotonic()
                    tables.refresh(until)
                    stale = self._warn_of_stale(tables, stale)
                    watch.look()
                idle = math.inf if watch.over else self.clock.monotonic() - moved
                self._drain(tables, until, report, stop, idle_seconds=idle, after_batch=run.tick)
                run.tick()
                if tables.checkpoint.lsn > position:
                    position, moved = tables.checkpoint.lsn, self.clock.monotonic()
            if follow:
                self._advance(tables, tables.checkpoint.lsn)
            warn_of_unrepresentable(self.progress, report.unrepresentable)
            exceeded = watch.lasting if follow else self._exceeded(watch, tables, report)
            _require_all(tables)
            if exceeded is not None:
                raise exceeded
            return report

    def _start(self) -> Checkpoint:
        source, found = self.source, self.destination.read_checkpoint()
        self.progress.emit(Checkpointed(found))
        if found is None and source.slot() is None:
            raise NeverLoaded
        checkpoint = require_checkpoint(found)
        identity, current = source.identity(), source.current_lsn()
        broken = continuity_break(
            checkpoint, identity, source.slot(), current, source.left_timeline
        )
        if broken is not None:
            raise broken
        # From here on the checkpoint is on the source's timeline, which continues its own. An
        # unfinished full load ends here: the tables that it did not reach are read by the stream.
        return replace(checkpoint, source=identity, full_load=None)

    def _warn_of_stale(
        self, tables: FollowedTables, named_before: frozenset[int]
    ) -> frozenset[int]:
        """Warn once of each table that no run brings up to date; return those named so far."""
        stale = {
            oid: (str(table.relation.table), table.not_streamed)
            for oid, table in tables.sources.items()
            if table.not_streamed
        }
        if named := sorted(stale[oid] for oid in stale.keys() - named_before):
            reasons = "; ".join(f"{name} {why}" for name, why in named)
            again = tables_option(name for name, _ in named)
            self.progress.emit(
                Warned(
                    f"not streamed, so they stay as they were last read: {reasons}; "
                    f"until then, to bring them up to date: pgbronze snapshot {again}"
                )
            )
        return named_before | stale.keys()

    def _exceeded(
        self, watch: BudgetWatch, tables: FollowedTables, report: StreamReport
    ) -> OperatorNeeded | None:
        """Return the error if the slot retains too much WAL although everything is loaded."""
        if watch.exceeded() is None:
            return None
        self.source.note_transactions()
        self._drain(tables, self.source.current_lsn(), report, lambda: False, idle_seconds=math.inf)
        return watch.exceeded()

    def _drain(
        self,
        tables: FollowedTables,
        until: Lsn,
        report: StreamReport,
        stop: Callable[[], bool],
        *,
        idle_seconds: float,
        after_batch: Callable[[], None] = lambda: None,
    ) -> None:
        """Load up to `until`, then read the tables that need it and load up to their snapshot.

        Changes that keep coming can have the same tables read again and again. Once they are at
        `until`, tables beyond a number of attempts are left to the next run.

        `idle_seconds`: how long the durable position has not moved; infinite in a run that ends.
        """
        attempts, began, goal = 1, self.clock.monotonic(), until
        self.progress.emit(ReadingUpTo(until))
        while True:
            try:
                self._load_definitions(tables)
                reached = self._load_until(tables, until, report, stop, after_batch)
            except ReadAgain:
                continue
            except DestinationRefused as refused:
                if not tables.set_aside_refused(refused):
                    raise
                continue
            report.lsn = tables.checkpoint.lsn
            if attempts > READ_ATTEMPTS:
                self._leave_to_next_run(tables, goal)
            if tables.to_read and not stop():
                until = max(until, self._read_again(tables, report, attempts))
                attempts += 1
                continue
            if tables.removals and not stop():
                until = max(until, self._remove_gone(tables, reached))
                continue
            if reached >= until:
                self.progress.emit(CaughtUp(until, self.clock.monotonic() - began))
            behind = reached - tables.checkpoint.lsn
            if behind > 0 and (behind >= IDLE_BYTES or idle_seconds >= IDLE_SECONDS):
                self._advance(tables, reached)
            report.lsn = tables.checkpoint.lsn
            return

    def _load_until(
        self,
        tables: FollowedTables,
        until: Lsn,
        report: StreamReport,
        stop: Callable[[], bool],
        after_batch: Callable[[], None],
    ) -> Lsn:
        """Load the batches of one read of the slot; return the position reached."""
        reached = tables.checkpoint.lsn
        read, began = _Read(), self.clock.monotonic()
        folding = BatchFolding(tables, self.destination.stage)
        batches = self.source.read(
            tables.checkpoint.lsn, until, tables.streamed, stop, tables.column_rules
        )
        for batch in batches:
            read.add(batch)
            if batch.complete:
                reached = max(reached, batch.end_lsn)
            if not (batch.changes or folding.holds_parts):
                continue
            load = folding.apply(batch)
            if load is None:
                continue
            self._commit(tables, load, batch.end_lsn, batch.last_committed_at)
            report.unrepresentable += sum(map(len, load.unrepresentable))
            report.changes += read.changes
            report.transactions += read.transactions
            report.batches += 1
            now = self.clock.monotonic()
            self.progress.emit(
                BatchLoaded(
                    read.changes, read.transactions, max(0, until - batch.end_lsn), now - began,
                    read.wire_bytes, batch.end_lsn, batch.last_committed_at, read.tables,
                )
            )  # fmt: skip
            read, began = _Read(), now
            after_batch()
            if stop():
                break
        return reached

    def _load_definitions(self, tables: FollowedTables) -> None:
        load = tables.take_definitions()
        for note in tables.notes:
            self.progress.emit(Note(note))
        for alert in tables.alerts:
            self.progress.emit(Warned(alert))
        tables.notes.clear()
        tables.alerts.clear()
        if load is not None:
            self.destination.load(load, tables.checkpoint)
            tables.durable = tables.checkpoint
            self.progress.emit(Checkpointed(tables.checkpoint))

    def _commit(
        self, tables: FollowedTables, load: LoadBatch, lsn: Lsn, committed_at: int | None
    ) -> None:
        tables.checkpoint = tables.checkpoint.advanced(lsn, committed_at)
        self.destination.load(load, tables.checkpoint)
        tables.durable = tables.checkpoint
        self.progress.emit(Checkpointed(tables.checkpoint))
        self.source.confirm(confirmable(tables.checkpoint))

    def _advance(self, tables: FollowedTables, lsn: Lsn) -> None:
        """Make a position without changes durable, so that an idle database retains no WAL."""
        self._commit(tables, EMPTY_BATCH, lsn, None)

    def _remove_gone(self, tables: FollowedTables, reached: Lsn) -> Lsn:
        """Remove rows of partitions that are gone; return the position to load up to before the
        others can be removed.

        All changes before `reached` are loaded. The catalog is compared once more, in case another
        partition has taken the place of one that is gone; its rows commit later.
        """
        due = {oid: removal for oid, removal in tables.removals.items() if removal.after <= reached}
        if due:
            tables.refresh()
            self._load_definitions(tables)
        for oid, removal in due.items():
            if tables.removals.get(oid) != removal:
                continue
            state = tables.checkpoint.tables[oid]
            self.progress.emit(
                Note(f"{state.table}: removing the rows of partitions that are gone")
            )
            if state.log is not None:
                # Numbers that no later run gives to other images, however this one ends.
                tables.note_images(oid, state.next_image + DIFFERENCE_NUMBERS)
                self._advance(tables, reached)
            at = Moment(reached, tables.checkpoint.committed_at or 0)
            try:
                for load in removals(state, removal.gone, self.destination, at):
                    self.destination.load(load, tables.checkpoint)
            except UnknownRows:
                tables.read_again(oid, "a partition was detached or dropped")
                continue
            tables.mark_removed(oid)
            self._advance(tables, reached)
        return max((removal.after for removal in tables.removals.values()), default=reached)

    def _leave_to_next_run(self, tables: FollowedTables, goal: Lsn) -> None:
        """Leave the tables to the next run that are to be read although they are at `goal`.

        The next run, or the next comparison of one that follows, finds them marked as waiting.
        """
        for oid in tables.beyond(goal):
            state = tables.checkpoint.tables[oid]
            self.progress.emit(
                Warned(
                    f"{state.table} must be read again each time it has been read "
                    f"({tables.to_read.pop(oid)}); it stays as of LSN {state.snapshot_lsn} until "
                    "the next run"
                )
            )

    def _read_again(self, tables: FollowedTables, report: StreamReport, attempt: int) -> Lsn:
        """Read new tables and those that the stream could not follow; return the LSN to load up to.

        Tables whose definitions change meanwhile are read again later. A table that the source
        refuses does not stop the others.
        """
        for oid, why in tables.to_read.items():
            self.progress.emit(Note(f"reading {tables.sources[oid].relation.table}: {why}"))
        oids = list(tables.to_read)
        try:
            lsn = self._read(tables, oids, report)
        except OperatorNeeded as refused:
            # It concerns all of them: for example, no snapshot could be taken.
            lsn = tables.checkpoint.lsn
            for oid in oids:
                tables.set_aside_table(oid, str(refused))
        if tables.to_read:
            tables.refresh()
            if attempt >= READ_ATTEMPTS:
                raise DefinitionChanged(tables.to_read_names)
        return lsn

    def _read(self, tables: FollowedTables, oids: Sequence[int], report: StreamReport) -> Lsn:
        """Read these tables at one LSN and return it."""
        pairs = [(tables.sources[oid], tables.targets[oid]) for oid in oids]
        with self.snapshots.begin(create_slot=False) as snapshot:
            checkpoint, counts = read_tables(
                snapshot, pairs, self.catalog.tables, self.destination, tables.checkpoint,
                self.progress,
            )  # fmt: skip
            lsn = snapshot.lsn
        tables.mark_read(checkpoint, {*oids} - counts.lost)
        report.unrepresentable += counts.unrepresentable
        for oid, error in counts.refused.items():
            tables.set_aside_table(oid, str(error))
            if isinstance(error, DestinationFailed):
                tables.unfit.add(oid)
        report.tables_read += counts.tables
        report.rows_read += counts.rows
        return lsn


def _require_all(tables: FollowedTables) -> None:
    """Raise the reason why tables are not followed, now that all others are up to date."""
    refused = {
        str(tables.sources[oid].relation.table): error
        for oid, error in {**tables.unpublished, **tables.conflicts}.items()
    }
    if tables.set_aside_names.keys() - refused.keys():
        raise TablesNeedSnapshot(
            tables.set_aside_names, frozen=tables.frozen, unfit=bool(tables.unfit)
        )
    if refused:
        raise TablesRefused(refused)
    if tables.locked:
        raise TablesLocked(map(str, tables.locked), "; every other table is up to date")
