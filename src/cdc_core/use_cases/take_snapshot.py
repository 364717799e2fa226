"""Take snapshot: read all tables, or those named, at one LSN and replace them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cdc_core.fold.unrepresentable import warn_of_unrepresentable
from cdc_core.full_load.read_tables import READ_ATTEMPTS, read_tables
from cdc_core.full_load.start import FullLoadStart, unread_tables
from cdc_core.ports.progress import Checkpointed, Listeners, Note, Progress, Warned
from cdc_core.runs.recorder import RunRecorder
from cdc_core.slot.continuity import confirmable
from cdc_core.tables.selection import choose_tables, refused_tables, require_schemas
from cdc_core.tables.target_names import target_names
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.values.errors import DefinitionChanged, TablesLocked, TablesRefused
from cdc_core.values.merges import EMPTY_BATCH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdc_core.full_load.table_reading import TablesRead
    from cdc_core.ports.catalog import Catalog, SourceTable
    from cdc_core.ports.change_source import ChangeSource, SlotState
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.snapshot_source import Snapshot, SnapshotSource
    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.errors import CdcError
    from cdc_core.values.lsn import Lsn


@dataclass(frozen=True)
class SnapshotReport:
    """`rows` were read by this run; an earlier, unfinished run read `kept` of the tables."""

    lsn: Lsn
    tables: int
    rows: int
    unrepresentable: int
    kept: int = 0


@dataclass(frozen=True)
class TakeSnapshot:
    """The full load.

    Without a usable slot and checkpoint, this creates the slot and reads at its consistent point.
    With both, the slot stays where it is and a temporary slot gives the snapshot's LSN; if this run
    ends early, the stream continues from the checkpoint.

    A run of all tables continues an unfinished one. A `cdc` in between completes it; the next
    snapshot then starts over.
    """

    source: ChangeSource
    catalog: Catalog
    snapshots: SnapshotSource
    destination: Destination
    first_schema: str = "public"
    progress: Progress = field(default_factory=Listeners)
    runs: RunRecorder = field(default_factory=RunRecorder)

    def run(self, tables: Sequence[str] = ()) -> SnapshotReport:
        """Load the tables that match the globs; without globs, every table found."""
        with (
            self.source,
            self.destination,
            self.runs.run("snapshot", self.source, self.destination),
        ):
            start = FullLoadStart.read(self.source, self.destination)
            self.progress.emit(Checkpointed(start.checkpoint))
            if tables and start.broken:
                raise start.broken
            chosen = self._choose(start, tables)
            if start.unfinished and not tables:
                return self._go_on(replace(start.unfinished, source=start.identity), chosen.found)
            if start.over and start.slot is not None:
                # A destination that cannot be written must not cost a pipeline its slot.
                self.destination.try_writing()
                self._warn_of_slot(start.slot)
                self.source.drop_slot()
            with self.snapshots.begin(create_slot=start.over) as snapshot:
                live = {table.relation.oid for table in chosen.found}
                checkpoint = start.first_checkpoint(snapshot.lsn, live, all_tables=not tables)
                self.progress.emit(
                    Note(f"snapshot at LSN {snapshot.lsn}: {len(chosen.tables)} tables")
                )
                checkpoint, counts = self._read(snapshot, chosen.tables, checkpoint)
                counts.refused |= chosen.refused
                lsn, taken_at = snapshot.lsn, snapshot.taken_at
            if not tables:
                checkpoint = _complete(checkpoint.advanced(lsn, taken_at), counts, chosen.horizon)
            self.destination.load(EMPTY_BATCH, checkpoint)
            self.progress.emit(Checkpointed(checkpoint))
            self.source.confirm(confirmable(checkpoint))
            self._read_unsteady(checkpoint, counts)
            warn_of_unrepresentable(self.progress, counts.unrepresentable)
            if counts.refused:
                names = {table.relation.oid: str(table.relation.table) for table in chosen.found}
                raise TablesRefused({names[oid]: error for oid, error in counts.refused.items()})
            return SnapshotReport(lsn, len(chosen.tables), counts.rows, counts.unrepresentable)

    def _choose(self, start: FullLoadStart, globs: Sequence[str]) -> _Chosen:
        """Publish the tables and choose those to read."""
        states = start.checkpoint.tables if start.checkpoint else {}
        require_schemas(self.catalog.schemas_found(), states, self.catalog.names)
        if globs:
            choose_tables(self.catalog.tables(), globs)  # raises before anything is published
        horizon = self.catalog.horizon()
        found = self.catalog.publish()
        names = {table.relation.oid: table.relation.table for table in found}
        naming = self.destination.naming
        known = start.with_targets(self.first_schema, naming, all_tables=not globs)
        targets = target_names(names, known, self.first_schema, naming)
        wanted = {table.relation.oid: table for table in choose_tables(found, globs)}
        refused = {
            oid: error
            for oid, error in refused_tables(found, targets, known).items()
            if oid in wanted
        }
        chosen = [table for oid, table in wanted.items() if oid not in refused]
        if locked := [str(table.relation.table) for table in chosen if table.locked]:
            raise TablesLocked(locked)
        pairs = [(table, targets[table.relation.oid]) for table in chosen]
        return _Chosen(found, pairs, refused, horizon)

    def _go_on(self, checkpoint: Checkpoint, found: Sequence[SourceTable]) -> SnapshotReport:
        """Finish the full load of an earlier run: read the tables that it had not read, and bring
        the others to the same commit through the stream."""
        unread = unread_tables(checkpoint, found)
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
        checkpoint = replace(checkpoint, full_load=None)
        self.destination.load(EMPTY_BATCH, checkpoint)
        self.progress.emit(Checkpointed(checkpoint))
        return SnapshotReport(
            checkpoint.lsn, len(found), report.rows_read, report.unrepresentable, kept
        )

    def _read_unsteady(self, checkpoint: Checkpoint, counts: TablesRead) -> None:
        """Read the tables again whose definitions changed while they were read."""
        for attempt in range(READ_ATTEMPTS):
            unsteady = counts.unsteady
            if not unsteady:
                return
            found = self.catalog.publish()
            tables = {t.relation.oid: t.relation.table for t in found}
            targets = target_names(
                tables, checkpoint.tables, self.first_schema, self.destination.naming
            )
            refused = refused_tables(found, targets, checkpoint.tables)
            counts.refused |= {oid: error for oid, error in refused.items() if oid in unsteady}
            chosen = [t for t in found if t.relation.oid in unsteady - refused.keys()]
            names = [str(table.relation.table) for table in chosen]
            if attempt == READ_ATTEMPTS - 1 and chosen:
                raise DefinitionChanged(names)
            self.progress.emit(Note(f"reading {', '.join(names)} once more: definitions changed"))
            with self.snapshots.begin(create_slot=False) as snapshot:
                pairs = [(table, targets[table.relation.oid]) for table in chosen]
                checkpoint, again = self._read(snapshot, pairs, checkpoint)
            counts.unsteady = again.unsteady
            counts.refused |= again.refused
            counts.unrepresentable += again.unrepresentable

    def _read(
        self,
        snapshot: Snapshot,
        tables: Sequence[tuple[SourceTable, str]],
        checkpoint: Checkpoint,
    ) -> tuple[Checkpoint, TablesRead]:
        return read_tables(
            snapshot, tables, self.catalog.tables, self.destination, checkpoint, self.progress
        )

    def _warn_of_slot(self, slot: SlotState) -> None:
        """The slot may be left over from a killed snapshot, or belong to another pipeline; nothing
        in it shows which."""
        replacing = (
            f"slot {slot.name} has no usable checkpoint in this destination and is being replaced"
        )
        if slot.lost:
            self.progress.emit(Note(replacing))
            return
        self.progress.emit(
            Warned(
                f"{replacing}; if a pipeline with another destination uses it, that pipeline needs "
                "a new snapshot, and its own sources.pg_replication.slot_name and pub_name"
            )
        )


@dataclass(frozen=True)
class _Chosen:
    """The tables found, those to read (with target names), those that cannot be read, and the
    horizon before they were described."""

    found: Sequence[SourceTable]
    tables: Sequence[tuple[SourceTable, str]]
    refused: Mapping[int, CdcError]
    horizon: int


def _complete(checkpoint: Checkpoint, counts: TablesRead, horizon: int) -> Checkpoint:
    """Return the checkpoint of a finished full load.

    Every table is at the snapshot, which contains all older changes of the stream. A table that was
    not read misses them, so the next run must read it.
    """
    refused = (
        state.needs_snapshot(str(error))
        for oid, error in counts.refused.items()
        if (state := checkpoint.tables.get(oid)) is not None
    )
    return replace(checkpoint.with_table(*refused), full_load=None, reading=None, horizon=horizon)
