"""Stream changes: drain what was committed before the run began, or follow until stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cdc_core.fold.unrepresentable import warn_of_unrepresentable
from cdc_core.full_load.read_tables import READ_ATTEMPTS, read_tables
from cdc_core.ports.change_source import ReadAgain
from cdc_core.ports.clock import Clock, SystemClock
from cdc_core.ports.progress import Progress, SilentProgress
from cdc_core.slot.continuity import confirmable, continuity_break, require_checkpoint
from cdc_core.slot.watch_budget import BudgetWatch
from cdc_core.tables.followed_tables import TablePlan
from cdc_core.tables.remove_rows import UnknownRows, removals
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
from cdc_core.values.merges import EMPTY_BATCH
from cdc_core.values.relation import tables_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog
    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.snapshot_source import SnapshotSource
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


@dataclass(frozen=True)
class StreamChanges:
    """Change data capture from the checkpoint on.

    Order is the whole of its safety: a batch and its checkpoint become durable in the destination,
    and only then does the slot move.
    """

    source: ChangeSource
    catalog: Catalog
    snapshots: SnapshotSource
    destination: Destination
    first_schema: str = "public"
    freeze_schema: bool = False
    #: Bytes of WAL that the slot may keep on the source's disk; None: no budget of ours.
    max_retained_wal: int | None = None
    poll_seconds: float = 0.5
    clock: Clock = field(default_factory=SystemClock)
    progress: Progress = field(default_factory=SilentProgress)

    def run(
        self, *, follow: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> StreamReport:
        """Bring every followed table to a commit at or past the WAL position at which this began.

        `stop` ends it cleanly after the batch in hand. Raises `TablesNeedSnapshot` when every other
        table is up to date, and `OperatorNeeded` when the slot still retains more WAL than it may
        once all is loaded: a transaction that is open holds it, which is not ours to end. Raises
        `NeverLoaded` before the first snapshot.
        """
        with self.source:
            return self._run(self.source.expect_read(), follow=follow, stop=stop)

    def catch_up(
        self, checkpoint: Checkpoint, unread: Mapping[int, str]
    ) -> tuple[Checkpoint, StreamReport]:
        """Read the tables `unread` (by oid, with the reason) and bring all tables to one commit, at
        or past the WAL position at which this began. Source and destination are open."""
        until = self.source.current_lsn()
        plan = self._plan(checkpoint, until, unread)
        report = StreamReport(checkpoint.lsn)
        self._drain(plan, until, report, lambda: False, idle_seconds=math.inf)
        warn_of_unrepresentable(self.progress, report.unrepresentable)
        _require_all(plan)
        return plan.checkpoint, report

    def _plan(
        self, checkpoint: Checkpoint, until: Lsn, unread: Mapping[int, str] | None = None
    ) -> TablePlan:
        plan = TablePlan(
            checkpoint,
            self.first_schema,
            self.catalog,
            self.source.current_lsn,
            self.destination.stage,
            self.freeze_schema,
            self.destination.naming,
        )
        plan.ask(until)
        plan.read_lost(self.destination.columns, checkpoint.tables)
        for oid, why in (unread or {}).items():
            plan.read_anew(oid, why)
        plan.forget_reading()
        return plan

    def _run(self, until: Lsn, *, follow: bool, stop: Callable[[], bool]) -> StreamReport:
        with self.destination:
            checkpoint = self._start()
            plan = self._plan(checkpoint, until)
            report = StreamReport(checkpoint.lsn)
            watch = BudgetWatch(self.source, self.max_retained_wal, self.progress)
            watch.warn()
            stale = self._warn_of_stale(plan, frozenset())
            self._drain(plan, until, report, stop, idle_seconds=0.0 if follow else math.inf)
            looked, batches = self.clock.monotonic(), report.batches
            position, moved = plan.checkpoint.lsn, self.clock.monotonic()
            while follow and not stop() and watch.lasting is None:
                if report.batches == batches:
                    self.clock.sleep(self.poll_seconds)
                batches = report.batches
                until = self.source.current_lsn()
                if self.clock.monotonic() - looked >= LOOK_SECONDS:
                    looked = self.clock.monotonic()
                    plan.ask(until)
                    stale = self._warn_of_stale(plan, stale)
                    watch.look()
                idle = math.inf if watch.over else self.clock.monotonic() - moved
                self._drain(plan, until, report, stop, idle_seconds=idle)
                if plan.checkpoint.lsn > position:
                    position, moved = plan.checkpoint.lsn, self.clock.monotonic()
            if follow:
                self._advance(plan, plan.checkpoint.lsn)
            warn_of_unrepresentable(self.progress, report.unrepresentable)
            exceeded = watch.lasting if follow else self._exceeded(watch, plan, report)
            _require_all(plan)
            if exceeded is not None:
                raise exceeded
            return report

    def _start(self) -> Checkpoint:
        source, found = self.source, self.destination.read_checkpoint()
        if found is None and source.slot() is None:
            raise NeverLoaded
        checkpoint = require_checkpoint(found)
        identity, current = source.identity(), source.current_lsn()
        broken = continuity_break(
            checkpoint, identity, source.slot(), current, source.left_timeline
        )
        if broken is not None:
            raise broken
        # A timeline that goes on from the checkpoint's is the checkpoint's from here on. A full
        # load that has not ended needs no end any more: what it has not come to is streamed on.
        return replace(checkpoint, source=identity, full_load=None)

    def _warn_of_stale(self, plan: TablePlan, told: frozenset[int]) -> frozenset[int]:
        """Name the tables that no run brings up to date, once; those named by now."""
        stale = {
            oid: (str(table.relation.table), table.not_streamed)
            for oid, table in plan.sources.items()
            if table.not_streamed
        }
        if named := sorted(stale[oid] for oid in stale.keys() - told):
            reasons = "; ".join(f"{name} {why}" for name, why in named)
            again = tables_option(name for name, _ in named)
            self.progress.warn(
                f"not streamed, so they stay as they were last read: {reasons}; "
                f"until then, to bring them up to date: pgbronze snapshot {again}"
            )
        return told | stale.keys()

    def _exceeded(
        self, watch: BudgetWatch, plan: TablePlan, report: StreamReport
    ) -> OperatorNeeded | None:
        """Whether the slot retains too much though all is loaded, and read past a new note."""
        if watch.exceeded() is None:
            return None
        self.source.note_transactions()
        self._drain(plan, self.source.current_lsn(), report, lambda: False, idle_seconds=math.inf)
        return watch.exceeded()

    def _drain(
        self,
        plan: TablePlan,
        until: Lsn,
        report: StreamReport,
        stop: Callable[[], bool],
        *,
        idle_seconds: float,
    ) -> None:
        """Load until `until`; then read what must be read, and drain up to that reading too.

        `idle_seconds`: how long the durable position has stood; a run that ends waits no longer.
        """
        attempts = 1
        while True:
            try:
                self._load_definitions(plan)
                reached = self._load_until(plan, until, report, stop)
            except ReadAgain:
                continue
            except DestinationRefused as refused:
                if not plan.refuse(refused):
                    raise
                continue
            report.unrepresentable, report.lsn = plan.unrepresentable, plan.checkpoint.lsn
            if plan.to_read and not stop():
                until = max(until, self._read_again(plan, report, attempts))
                attempts += 1
                continue
            if plan.removals and not stop():
                until = max(until, self._remove_gone(plan, reached))
                continue
            behind = reached - plan.checkpoint.lsn
            if behind > 0 and (behind >= IDLE_BYTES or idle_seconds >= IDLE_SECONDS):
                self._advance(plan, reached)
            report.lsn = plan.checkpoint.lsn
            return

    def _load_until(
        self, plan: TablePlan, until: Lsn, report: StreamReport, stop: Callable[[], bool]
    ) -> Lsn:
        """Load what one reading gives; how far it came."""
        reached = plan.checkpoint.lsn
        changes = transactions = 0
        plan.forget_parts()
        for batch in self.source.read(plan.checkpoint.lsn, until, plan.followed, stop):
            changes, transactions = changes + batch.changes, transactions + batch.transactions
            if batch.complete:
                reached = max(reached, batch.end_lsn)
            if not (batch.changes or plan.holds_parts):
                continue
            load = plan.apply(batch)
            if load is None:
                continue
            self._commit(plan, load, batch.end_lsn, batch.last_committed_at)
            report.changes += changes
            report.transactions += transactions
            report.batches += 1
            self.progress.batch_loaded(changes, transactions, max(0, until - batch.end_lsn))
            changes = transactions = 0
            if stop():
                break
        return reached

    def _load_definitions(self, plan: TablePlan) -> None:
        load = plan.pending()
        for note in plan.notes:
            self.progress.note(note)
        for alert in plan.alerts:
            self.progress.warn(alert)
        plan.notes.clear()
        plan.alerts.clear()
        if load is not None:
            self.destination.load(load, plan.checkpoint)
            plan.durable = plan.checkpoint

    def _commit(self, plan: TablePlan, load: LoadBatch, lsn: Lsn, committed_at: int | None) -> None:
        plan.checkpoint = plan.checkpoint.advanced(lsn, committed_at)
        self.destination.load(load, plan.checkpoint)
        plan.durable = plan.checkpoint
        self.source.confirm(confirmable(plan.checkpoint))

    def _advance(self, plan: TablePlan, lsn: Lsn) -> None:
        """Make a position without changes durable, so that an idle database pins no WAL."""
        self._commit(plan, EMPTY_BATCH, lsn, None)

    def _remove_gone(self, plan: TablePlan, reached: Lsn) -> Lsn:
        """Remove rows of partitions that are gone; up to where to drain before the others are.

        All changes before `reached` are loaded. Whether another partition has come in their place
        is seen once more: what it brings commits later.
        """
        due = {oid: removal for oid, removal in plan.removals.items() if removal.after <= reached}
        if due:
            plan.ask()
            self._load_definitions(plan)
        for oid, removal in due.items():
            if plan.removals.get(oid) != removal:
                continue
            state = plan.checkpoint.tables[oid]
            self.progress.note(f"{state.table}: removing the rows of partitions that are gone")
            try:
                for load in removals(state, removal.gone, self.destination, reached):
                    self.destination.load(load, plan.checkpoint)
            except UnknownRows:
                plan.read_anew(oid, "a partition was detached or dropped")
                continue
            plan.removed(oid)
            self._advance(plan, reached)
        return max((removal.after for removal in plan.removals.values()), default=reached)

    def _read_again(self, plan: TablePlan, report: StreamReport, attempt: int) -> Lsn:
        """Read new tables, and those that the stream could not follow; the LSN to drain up to.

        Those whose definitions change meanwhile are left to be read once more; one whose reading
        is refused does not stop the others.
        """
        for oid, why in plan.to_read.items():
            self.progress.note(f"reading {plan.sources[oid].relation.table}: {why}")
        oids = list(plan.to_read)
        try:
            lsn = self._read(plan, oids, report)
        except OperatorNeeded as refused:
            # Of all of them: no snapshot could be taken, say.
            lsn = plan.checkpoint.lsn
            for oid in oids:
                plan.read_refused(oid, str(refused))
        if plan.to_read:
            plan.ask()
            if attempt >= READ_ATTEMPTS:
                raise DefinitionChanged(plan.to_read_names)
        return lsn

    def _read(self, plan: TablePlan, oids: Sequence[int], report: StreamReport) -> Lsn:
        """Read these tables at one LSN, which it returns."""
        tables = [(plan.sources[oid], plan.targets[oid]) for oid in oids]
        with self.snapshots.begin(create_slot=False) as snapshot:
            checkpoint, last, counts = read_tables(
                snapshot, tables, self.catalog.tables, self.destination, plan.checkpoint,
                self.progress,
            )  # fmt: skip
            lsn = snapshot.lsn
        self.destination.load(last, checkpoint)
        unread = counts.unsteady | counts.refused.keys()
        plan.read_done(checkpoint, {*oids} - unread, counts.unrepresentable)
        for oid, error in counts.refused.items():
            plan.read_refused(oid, str(error))
            if isinstance(error, DestinationFailed):
                plan.unfit.add(oid)
        report.tables_read += counts.tables
        report.rows_read += counts.rows
        return lsn


def _require_all(plan: TablePlan) -> None:
    """Raise what keeps tables from being followed, now that all others are up to date."""
    if plan.set_aside:
        raise TablesNeedSnapshot(plan.set_aside, frozen=plan.frozen, unfit=bool(plan.unfit))
    if plan.unpublished:
        named = {str(plan.sources[oid].relation.table): e for oid, e in plan.unpublished.items()}
        raise TablesRefused(named)
    if plan.locked:
        raise TablesLocked(map(str, plan.locked), "; every other table is up to date")
