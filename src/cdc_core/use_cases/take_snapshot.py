"""Take snapshot: every discovered table, or those named, read whole at one LSN and replaced."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cdc_core.fold.unrepresentable import warn_of_unrepresentable
from cdc_core.full_load.read_tables import READ_ATTEMPTS, read_tables
from cdc_core.ports.progress import Listeners, Note, Progress, Warned
from cdc_core.slot.continuity import confirmable, continuity_break
from cdc_core.tables.selection import choose_tables, require_schemas
from cdc_core.tables.target_names import target_names
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.values.checkpoint import Checkpoint, TableStatus
from cdc_core.values.errors import DefinitionChanged, TablesLocked, TablesRefused
from cdc_core.values.merges import EMPTY_BATCH
from cdc_core.values.naming import is_name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdc_core.full_load.table_reading import TablesRead
    from cdc_core.ports.catalog import Catalog, SourceTable
    from cdc_core.ports.change_source import ChangeSource, SlotState
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.snapshot_source import Snapshot, SnapshotSource
    from cdc_core.values.checkpoint import SourceIdentity, TableState
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.merges import LoadBatch


@dataclass(frozen=True)
class SnapshotReport:
    """`kept` of the tables are from an earlier run that did not end; `rows` are those read now."""

    lsn: Lsn
    tables: int
    rows: int
    unrepresentable: int
    kept: int = 0


@dataclass(frozen=True)
class TakeSnapshot:
    """The full load.

    Without a usable slot and checkpoint the slot is created, and its consistent point is the
    snapshot. With both, the slot stays where it is, and a temporary slot gives the snapshot's LSN:
    the stream goes on from the checkpoint whenever this run ends early.

    A run of all tables after one that did not end, with no `cdc` between, goes on with that one.
    """

    source: ChangeSource
    catalog: Catalog
    snapshots: SnapshotSource
    destination: Destination
    first_schema: str = "public"
    progress: Progress = field(default_factory=Listeners)

    def run(self, tables: Sequence[str] = ()) -> SnapshotReport:
        """Load the tables that match the globs, every discovered one without any."""
        with self.source, self.destination:
            checkpoint = self.destination.read_checkpoint()
            identity = self.source.identity()
            slot = self.source.slot()
            current, left = self.source.current_lsn(), self.source.left_timeline
            broken = (
                continuity_break(checkpoint, identity, slot, current, left) if checkpoint else None
            )
            if tables and broken:
                raise broken
            states = checkpoint.tables if checkpoint else {}
            require_schemas(self.catalog.schemas_found(), states, self.catalog.names)
            if tables:
                # Before anything is made there.
                choose_tables(self.catalog.tables(), tables)
            horizon = self.catalog.horizon()
            found = self.catalog.publish()
            names = {t.relation.oid: t.relation.table for t in found}
            known = self._known(checkpoint, identity, all_tables=not tables)
            targets = target_names(names, known, self.first_schema, self.destination.naming)
            chosen = choose_tables(found, tables)
            refused = {t.relation.oid: t.refused for t in chosen if t.refused}
            chosen = [table for table in chosen if not table.refused]
            if locked := [str(table.relation.table) for table in chosen if table.locked]:
                raise TablesLocked(locked)
            if checkpoint and checkpoint.full_load and not (broken or tables):
                return self._go_on(replace(checkpoint, source=identity), found)
            anew = checkpoint is None or broken is not None
            if anew and slot is not None:
                self._tell_of_slot(slot)
                self.source.drop_slot()
            with self.snapshots.begin(create_slot=anew) as snapshot:
                if checkpoint is None or anew:
                    waiting = self._waiting(checkpoint, identity, current)
                    checkpoint = Checkpoint(identity, snapshot.lsn, waiting)
                live = {t.relation.oid for t in found}
                states = {
                    oid: state if oid in live else state.dropped()
                    for oid, state in checkpoint.tables.items()
                }
                full_load = checkpoint.full_load if tables else snapshot.lsn
                checkpoint = Checkpoint(
                    identity,
                    checkpoint.lsn,
                    states,
                    checkpoint.committed_at,
                    full_load,
                    checkpoint.reading,
                    checkpoint.horizon,
                )
                self.progress.emit(Note(f"snapshot at LSN {snapshot.lsn}: {len(chosen)} tables"))
                pairs = [(table, targets[table.relation.oid]) for table in chosen]
                checkpoint, last, counts = self._read(snapshot, pairs, checkpoint)
                counts.refused |= refused
                lsn = snapshot.lsn
                taken_at = snapshot.taken_at
            # Every table is at the snapshot: the stream's older changes are in it. One that was
            # not read misses them from here on.
            if not tables:
                checkpoint = checkpoint.with_table(*_unread(checkpoint, counts))
                checkpoint = replace(
                    checkpoint.advanced(lsn, taken_at),
                    full_load=None,
                    reading=None,
                    horizon=horizon,
                )
            self.destination.load(last, checkpoint)
            self.source.confirm(confirmable(checkpoint))
            self._read_unsteady(checkpoint, counts)
            warn_of_unrepresentable(self.progress, counts.unrepresentable)
            if counts.refused:
                named = {str(names[oid]): error for oid, error in counts.refused.items()}
                raise TablesRefused(named)
            return SnapshotReport(lsn, len(chosen), counts.rows, counts.unrepresentable)

    def _go_on(self, checkpoint: Checkpoint, found: Sequence[SourceTable]) -> SnapshotReport:
        """End the full load of an earlier run: read the tables that it has not come to, and bring
        those that it has, by the stream, to the same commit."""
        unread = {
            table.relation.oid: "the full load has not come to it"
            for table in found
            if not table.refused
            and (table.not_streamed or not checkpoint.loaded(table.relation.oid))
        }
        kept = len(found) - len(unread)
        self.progress.emit(
            Note(
                f"going on with the full load that began at LSN {checkpoint.full_load}: "
                f"{kept} of {len(found)} tables are done"
            )
        )
        stream = StreamChanges(
            self.source, self.catalog, self.snapshots, self.destination, self.first_schema,
            progress=self.progress,
        )  # fmt: skip
        checkpoint, report = stream.catch_up(checkpoint, unread)
        self.destination.load(EMPTY_BATCH, replace(checkpoint, full_load=None))
        return SnapshotReport(
            checkpoint.lsn, len(found), report.rows_read, report.unrepresentable, kept
        )

    def _read_unsteady(self, checkpoint: Checkpoint, counts: TablesRead) -> None:
        """Read once more the tables whose definitions changed while they were read."""
        for attempt in range(READ_ATTEMPTS):
            unsteady = counts.unsteady
            if not unsteady:
                return
            found = self.catalog.publish()
            tables = {t.relation.oid: t.relation.table for t in found}
            targets = target_names(
                tables, checkpoint.tables, self.first_schema, self.destination.naming
            )
            chosen = [table for table in found if table.relation.oid in unsteady]
            names = [str(table.relation.table) for table in chosen]
            if attempt == READ_ATTEMPTS - 1 and chosen:
                raise DefinitionChanged(names)
            self.progress.emit(Note(f"reading {', '.join(names)} once more: definitions changed"))
            with self.snapshots.begin(create_slot=False) as snapshot:
                pairs = [(table, targets[table.relation.oid]) for table in chosen]
                checkpoint, last, again = self._read(snapshot, pairs, checkpoint)
            self.destination.load(last, checkpoint)
            counts.unsteady = again.unsteady
            counts.refused |= again.refused
            counts.unrepresentable += again.unrepresentable

    def _read(
        self,
        snapshot: Snapshot,
        tables: Sequence[tuple[SourceTable, str]],
        checkpoint: Checkpoint,
    ) -> tuple[Checkpoint, LoadBatch, TablesRead]:
        return read_tables(
            snapshot, tables, self.catalog.tables, self.destination, checkpoint, self.progress
        )

    def _tell_of_slot(self, slot: SlotState) -> None:
        """It may be what a snapshot left that was killed, or another pipeline's: nothing there says
        whose it is."""
        anew = f"slot {slot.name} has no usable checkpoint in this destination: creating it anew"
        if slot.lost:
            self.progress.emit(Note(anew))
            return
        self.progress.emit(
            Warned(
                f"{anew}; a pipeline of another destination that reads it needs a new snapshot "
                "then, and a sources.pg_replication.slot_name and pub_name of its own"
            )
        )

    def _waiting(
        self, checkpoint: Checkpoint | None, identity: SourceIdentity, current: Lsn
    ) -> Mapping[int, TableState]:
        """Where only the slot is another: tables that the destination has, so that their names are
        followed; each must be read. In a copy of the source other tables may have their oids."""
        if checkpoint is None or checkpoint.lsn > current:
            return {}
        if replace(checkpoint.source, slot_name=identity.slot_name) != identity:
            return {}
        reason = "the slot was created anew"
        return {
            oid: state if state.status is TableStatus.DROPPED else state.needs_snapshot(reason)
            for oid, state in checkpoint.tables.items()
        }

    def _known(
        self, checkpoint: Checkpoint | None, identity: SourceIdentity, *, all_tables: bool
    ) -> Mapping[int, TableState]:
        """States whose targets stay. `schemas` may be others than they were: where every table is
        read anew, its target is one that they give it."""
        if checkpoint is None or (checkpoint.source.system_id, checkpoint.source.database) != (
            identity.system_id,
            identity.database,
        ):
            return {}
        return {
            oid: state
            for oid, state in checkpoint.tables.items()
            if not all_tables
            or is_name_of(state.target, state.table, self.first_schema, self.destination.naming)
        }


def _unread(checkpoint: Checkpoint, counts: TablesRead) -> list[TableState]:
    """States of known tables that were not read, to be read by the next run."""
    return [
        state.needs_snapshot(str(error))
        for oid, error in counts.refused.items()
        if (state := checkpoint.tables.get(oid)) is not None
    ]
