"""Reading whole tables at one LSN and replacing them at the destination.

The full load uses this, and the stream for tables that it cannot follow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdc_core.fold.unrepresentable import HeldUnrepresentable
from cdc_core.full_load.resume import divide_table, write_ranges
from cdc_core.full_load.table_reading import TableReading, TablesRead
from cdc_core.ports.progress import Checkpointed, Note
from cdc_core.tables.history_of_rows import (
    difference,
    ended,
    fits,
    free_number,
    has_history,
    reserved,
)
from cdc_core.tables.renames import set_aside, table_renames, tables_of
from cdc_core.tables.schema_change import (
    RULES_CHANGED,
    hides_more,
    masked_otherwise,
    redefined,
    rules_changed,
    state_when_read,
)
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.errors import CdcError, DestinationRefused, OperatorNeeded
from cdc_core.values.history import (
    END_LSN_COLUMN,
    LOG_FIELDS,
    SORT_COLUMN,
    TRUNCATE_NUMBERS,
    VERSION_FIELDS,
    Moment,
    log_of,
    versions_of,
)
from cdc_core.values.merges import (
    DELETED_AT_COLUMN,
    EMPTY_BATCH,
    ForgetUnrepresentable,
    LoadBatch,
    TableRename,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from cdc_core.full_load.table_reading import TableRanges
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.progress import Progress
    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.checkpoint import Checkpoint, TableState
    from cdc_core.values.merges import SchemaStep

    #: A table with its target name.
    Pair = tuple[SourceTable, str]
    Describe = Callable[[Collection[int]], Sequence[SourceTable]]

#: Tables are loaded together up to this estimate of their bytes at the source.
GROUP_BYTES = 512 << 20
GROUP_TABLES = 100
#: How often tables are read whose definitions change while they are read.
READ_ATTEMPTS = 5


def read_tables(
    snapshot: Snapshot,
    tables: Sequence[Pair],
    describe: Describe,
    destination: Destination,
    checkpoint: Checkpoint,
    progress: Progress,
) -> tuple[Checkpoint, TablesRead]:
    """Replace each table by its content at the snapshot; return the checkpoint, which is durable.

    Tables are loaded in groups: first the rows of all its tables are written, then one load
    replaces the tables and counts them as read. The checkpoint's LSN stays.

    A snapshot holds rows, not definitions, and a table rewritten meanwhile looks empty in it. So a
    table is replaced only if the catalog (`describe`) still describes it as given after its rows
    were read. Otherwise it stays as it was, as does a table that the source refuses to read or the
    destination refuses to take. The counts name them; the other tables are read.
    """
    reader = _Reader(snapshot, tables, describe, destination, checkpoint, progress)
    return reader.run()


@dataclass(frozen=True)
class _Prepared:
    """A table's state once it is read, the renames to do before, and how it is read.

    `begins`: its history begins, and the one in its place is set aside.
    """

    state: TableState
    renames: tuple[SchemaStep, ...]
    ranges: TableRanges
    begins: bool


class _Reader:
    def __init__(
        self,
        snapshot: Snapshot,
        tables: Sequence[Pair],
        describe: Describe,
        destination: Destination,
        checkpoint: Checkpoint,
        progress: Progress,
    ) -> None:
        self._snapshot, self._describe = snapshot, describe
        self._destination = destination
        self._checkpoint = self._durable = checkpoint
        self._progress = progress
        self._counts = TablesRead()
        self._unrepresentable = HeldUnrepresentable(destination.stage)
        self._targets = {table.relation.oid: target for table, target in tables}
        renames = table_renames(checkpoint.tables, self._targets, destination.columns)
        self._steps: list[SchemaStep] = [*renames.possible]
        blocked = {rename.old for rename in renames.blocked}
        #: The states of the tables that the destination has.
        self._before = {
            oid: replace(state, misplaced=True)
            if state.target in blocked and self._targets.get(oid, state.target) != state.target
            else state
            for oid, state in checkpoint.tables.items()
        }
        self._there = self._columns_there(tables)
        self._prepared = {pair[0].relation.oid: self._prepare(*pair) for pair in tables}
        # Page ranges of an earlier run first: the checkpoint has room for one such table.
        self._tables = sorted(
            (table for table, _ in tables), key=lambda table: not self._ranges(table).reading.ranges
        )
        # A checkpoint that was started over does not know which columns of the tables there were
        # dropped at the source; any other checkpoint does.
        began = checkpoint.full_load
        self._started_over = began is not None and all(
            state.snapshot_lsn >= began for state in checkpoint.tables.values()
        )

    def run(self) -> tuple[Checkpoint, TablesRead]:
        self._refuse_taken_names()
        self._mark_waiting()
        self._expect(table for table in self._tables if table.relation.oid not in self._counts.lost)
        alone = {oid for oid, found in self._prepared.items() if not found.ranges.whole}
        for group in _groups(self._tables, alone):
            wanted = [table for table in group if table.relation.oid not in self._counts.lost]
            self._load(self._write(wanted))
        if self._steps or self._checkpoint is not self._durable:
            self._destination.load(LoadBatch(steps=tuple(self._steps)), self._checkpoint)
            self._progress.emit(Checkpointed(self._checkpoint))
        return self._checkpoint, self._counts

    def _columns_there(self, tables: Sequence[Pair]) -> Mapping[str, Collection[str]]:
        """Return the columns that the destination has of tables with a history, of that, and of
        tables with such a name."""
        names = {target for _, target in tables if _is_named_as_history(target)}
        for table, target in tables:
            if table.rules.history:
                known = self._before.get(table.relation.oid)
                names |= {target, log_of(target), versions_of(target)}
                names |= {*tables_of(known)} if known is not None else set()
        return self._destination.columns(names, current=True) if names else {}

    def _refuse_taken_names(self) -> None:
        """Refuse tables whose history needs the name of another table in the destination, and those
        that would replace a history."""
        own = {
            name: (oid, column)
            for oid, found in self._prepared.items()
            for name, column in (
                (found.state.log, SORT_COLUMN),
                (found.state.versions, END_LSN_COLUMN),
            )
        }
        for name, columns in self._there.items():
            oid, column = own.get(name, (0, ""))
            if oid and column not in columns:
                self._counts.refused[oid] = OperatorNeeded(
                    f"its history needs the name {name}, which another table in the destination "
                    "has",
                    f"rename or drop {name} there, or set history = [] for this table",
                )
        for oid, target in self._targets.items():
            if self._replaces_history(oid, target):
                self._counts.refused[oid] = OperatorNeeded(
                    f"the destination has a history of another table under its name {target}",
                    f"rename or drop {target} there, or rename or exclude this table",
                )

    def _replaces_history(self, oid: int, target: str) -> bool:
        """Whether the history of another table is in the place of this one: of a table that has no
        history now, or that is not followed."""
        before, found = self._before.get(oid), self._prepared[oid]
        if before is not None and before.target == target and not before.misplaced:
            return False
        steps = [*self._steps]
        steps += (step for each in self._prepared.values() for step in each.renames)
        if any(isinstance(step, TableRename) and step.old == target for step in steps):
            return False
        others = {*self._there.get(target, ())} - {column.target for column in found.state.stored}
        return _is_named_as_history(target) and not others.isdisjoint((SORT_COLUMN, END_LSN_COLUMN))

    def _lacks_columns(self, former: TableState, state: TableState) -> bool:
        """Whether the table and its history have a column under neither its old nor its new name: a
        run that died renamed it, and it was dropped or renamed again since."""
        table, *history = (
            self._there.get(now or "", self._there.get(before or ""))
            for before, now in (
                (former.target, state.target),
                (former.log, state.log),
                (former.versions, state.versions),
            )
        )
        names = {column.attnum: column.target for column in state.columns}
        return table is not None and any(
            {column.target, names.get(column.attnum, column.target)}.isdisjoint({*table, *held})
            for held in history
            if held is not None
            for column in former.stored
        )

    def _has_more_columns(self, state: TableState) -> bool:
        """Whether the history in the place of a table that no checkpoint knows has columns which
        the table does not have. The images that end its rows would lack their values."""
        own = {column.target for column in state.stored}
        own |= {field.name for field in (*LOG_FIELDS, *VERSION_FIELDS)}
        there = (self._there.get(name, ()) for name in (state.log, state.versions) if name)
        return any(not own.issuperset(columns) for columns in there)

    def _mark_waiting(self) -> None:
        """Mark the tables that this run would leave half done if it ended early, so that the next
        run reads them again.

        These are known tables with a history, to which older changes of the stream can no longer be
        added; and tables whose place another one is about to take. Their rows will be gone, and if
        the names change back before the next run, nothing else shows that.
        """
        readers = {target: oid for oid, target in self._targets.items()}
        waiting = [
            known.needs_snapshot("a full load was cut short")
            for oid, found in self._prepared.items()
            if (known := self._checkpoint.tables.get(oid)) is not None
            and has_history(found.state)
            and oid not in self._counts.refused
        ]
        waiting += [
            replace(state.needs_snapshot("another table took its place"), misplaced=True)
            for oid, state in self._checkpoint.tables.items()
            if readers.get(state.target, oid) != oid
            and state.status is not TableStatus.DROPPED
            and not state.misplaced
        ]
        if waiting:
            self._checkpoint = self._checkpoint.with_table(*waiting)
            self._destination.load(EMPTY_BATCH, self._checkpoint)
            self._progress.emit(Checkpointed(self._checkpoint))

    def _prepare(self, table: SourceTable, target: str) -> _Prepared:
        before = self._before.get(table.relation.oid)
        if before is not None and before.rules.history and rules_changed(before, table):
            self._progress.emit(
                Note(
                    f"table {table.relation.table}: {RULES_CHANGED}; rows of its history from "
                    "before stay as they were"
                )
            )
        state, columns = state_when_read(before, table, target, self._snapshot.lsn)
        former = self._former(state)
        # Columns are renamed only in the table's own place.
        steps: tuple[SchemaStep, ...] = columns if former is before else ()
        if former is not None:
            aside = not fits(former, state) or self._lacks_columns(former, state)
        elif before is not None:
            aside = True  # what is in its place is not its own
        else:
            aside = self._has_more_columns(state)
        if aside:
            last = former or before or state
            steps = (*set_aside(state, last.snapshot_lsn), *steps)
        ranges = divide_table(
            self._snapshot, table, state, self._destination, self._checkpoint.reading,
            self._progress,
        )  # fmt: skip
        if hides_more(before, state) and not ranges.reading.ranges:
            steps = (*steps, ForgetUnrepresentable(target))
        return _Prepared(state, steps, ranges, aside)

    def _ranges(self, table: SourceTable) -> TableRanges:
        return self._prepared[table.relation.oid].ranges

    def _expect(self, wanted: Iterable[SourceTable]) -> None:
        self._snapshot.expect(
            [
                (table.relation, page_range)
                for table in wanted
                for page_range in self._ranges(table).unread
            ]
        )

    def _write(self, group: Sequence[SourceTable]) -> list[TableReading]:
        """Write the rows of a group; return its tables without those that are lost."""
        readings = [self._reading(table) for table in group]
        for reading in readings:
            reading.begin()
        for reading in readings:
            try:
                if not reading.ranges.whole:
                    self._write_ranges(reading)
                reading.write_last()
            except (CdcError, ValueError) as error:  # ValueError: a column has another type by now
                if not self._is_lost(reading, error):
                    raise
                following = self._tables[self._tables.index(reading.table) + 1 :]
                self._expect(following)
        read = [reading for reading in readings if reading.oid not in self._counts.lost]
        self._lose(self._changed([reading.table for reading in read]))
        return [reading for reading in read if reading.oid not in self._counts.lost]

    def _reading(self, table: SourceTable) -> TableReading:
        found = self._prepared[table.relation.oid]
        state, at = found.state, Moment(self._snapshot.lsn, self._snapshot.taken_at)
        first = free_number(state, self._destination)
        former = self._former(state)
        history = [] if former is None or found.begins else ended(former, state, at, first)
        if history:
            first += TRUNCATE_NUMBERS
        return TableReading(
            self._snapshot,
            table,
            reserved(state, first) if state.log else state,
            found.ranges,
            self._gone_columns(state),
            self._destination,
            self._progress,
            self._unrepresentable,
            soft_deletes=at if state.soft_deletes else None,
            history=tuple(history),
            difference=difference(state, at, self._destination, first),
            emptied=masked_otherwise(former, state),
        )

    def _write_ranges(self, large: TableReading) -> None:
        steps = [*self._steps, *self._prepared[large.oid].renames]
        self._checkpoint = write_ranges(large, steps, self._checkpoint)

    def _load(self, group: Sequence[TableReading]) -> None:
        """Replace the tables of a group, except those that the destination refuses."""
        while group:
            renames = [step for found in group for step in self._prepared[found.oid].renames]
            batch = LoadBatch(
                steps=(*self._steps, *renames),
                history=tuple(step for found in group for step in found.history),
                replacements=tuple(found.replacement for found in group),
                unrepresentable=self._unrepresentable.rows(),
            )
            checkpoint = self._checkpoint.with_table(*(found.state for found in group))
            if checkpoint.reading is not None and checkpoint.reading.oid in self._prepared:
                checkpoint = replace(checkpoint, reading=None)
            try:
                self._destination.load(batch, checkpoint)
            except DestinationRefused as error:
                if not self._refuse(error):
                    raise
                group = [found for found in group if found.oid not in self._counts.refused]
                continue
            self._progress.emit(Checkpointed(checkpoint))
            self._checkpoint = self._durable = checkpoint
            self._steps = []
            self._unrepresentable.take()
            self._counts.tables += len(group)
            self._counts.rows += sum(found.rows for found in group)
            self._counts.unrepresentable += sum(found.values for found in group)
            return

    def _is_lost(self, reading: TableReading, error: Exception) -> bool:
        """Whether a table cannot be read because of an error that concerns only this table."""
        changed = self._changed([reading.table])
        if not changed and reading.refused is not None:
            self._counts.refused[reading.oid] = reading.refused
            self._unrepresentable.discard(reading.oid)
        self._lose(changed)
        if isinstance(error, DestinationRefused):
            self._refuse(error)
        return reading.oid in self._counts.lost

    def _lose(self, changed: Collection[int]) -> None:
        """Note tables that must be read again, because their definitions have changed."""
        self._counts.unsteady |= {*changed}
        for oid in changed:
            self._unrepresentable.discard(oid)
        known = (self._checkpoint.tables.get(oid) for oid in changed)
        states = [_unsteady(state) for state in known if state is not None]
        if states:
            self._checkpoint = self._checkpoint.with_table(*states)
        reading = self._checkpoint.reading
        if reading is not None and reading.oid in changed:
            self._checkpoint = replace(self._checkpoint, reading=None)

    def _refuse(self, error: DestinationRefused) -> bool:
        """Note the tables that the destination refuses; return whether any is new."""
        refused = {
            oid: error.of(target)
            for oid, target in self._targets.items()
            if target in error.tables and oid not in self._counts.lost
        }
        self._counts.refused |= refused
        for oid in refused:
            self._unrepresentable.discard(oid)
        self._steps = [step for step in self._steps if not self._is_refused(step)]
        return bool(refused)

    def _changed(self, group: Sequence[SourceTable]) -> set[int]:
        if not group:
            return set()
        return redefined(group, self._describe([table.relation.oid for table in group]))

    def _is_refused(self, step: SchemaStep) -> bool:
        """Whether a step concerns a refused table; steps use the name after the rename."""
        name = step.new if isinstance(step, TableRename) else step.table
        refused = [self._targets[oid] for oid in self._counts.refused]
        return any(name in (target, log_of(target), versions_of(target)) for target in refused)

    def _gone_columns(self, state: TableState) -> frozenset[str] | None:
        """Return the columns that we wrote and that are not stored now, as in `Replacement`.

        In a table that the checkpoint knows, all other columns belong to somebody else. Any other
        table there is left over from a run that did not end.
        """
        before, now = self._former(state), {column.target for column in state.stored}
        if before is None:
            # An excluded column must not stay, even if nobody knows who wrote it.
            excluded = frozenset(column.target for column in state.columns) - now
            return excluded if self._started_over else None
        gone = frozenset(column.target for column in before.stored) - now
        hard = before.soft_deletes and not state.soft_deletes
        return gone | {DELETED_AT_COLUMN} if hard else gone

    def _former(self, state: TableState) -> TableState | None:
        """Return the state of the table that the destination has in this place.

        A renamed table may have taken the place of another one. None if it is not known.
        """
        own = self._before.get(state.oid)
        others = (
            other
            for other in self._before.values()
            if other.target == state.target and other.oid != state.oid and not other.misplaced
        )
        return next(others, None if own is None or own.misplaced else own)


def _is_named_as_history(target: str) -> bool:
    return target.casefold().endswith((log_of(""), versions_of("")))


def _unsteady(state: TableState) -> TableState:
    return state.needs_snapshot("its definition changed while it was read")


def _groups(tables: Sequence[SourceTable], alone: AbstractSet[int]) -> Iterator[list[SourceTable]]:
    """Yield tables in groups of limited size; those in `alone` form a group each."""
    group: list[SourceTable] = []
    size = 0
    for table in tables:
        full = size + table.total_bytes > GROUP_BYTES or len(group) == GROUP_TABLES
        if group and (full or alone & {table.relation.oid, group[-1].relation.oid}):
            yield group
            group, size = [], 0
        group.append(table)
        size += table.total_bytes
    if group:
        yield group
