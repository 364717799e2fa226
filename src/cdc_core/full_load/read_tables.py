"""Reading whole tables at one LSN and replacing them at the destination.

The full load uses this, and the stream for tables that it cannot follow.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdc_core.fold.unrepresentable import HeldUnrepresentable
from cdc_core.full_load.resume import divide_table, keep_ranges
from cdc_core.full_load.table_reading import TableReading, TablesRead
from cdc_core.ports.progress import Checkpointed, Note
from cdc_core.tables.history_of_rows import (
    archived_history,
    difference,
    free_number,
    has_history,
    key_changed,
    reserved,
)
from cdc_core.tables.renames import table_renames
from cdc_core.tables.schema_change import (
    RULES_CHANGED,
    redefined,
    rules_changed,
    state_when_read,
)
from cdc_core.values.errors import CdcError, DestinationRefused
from cdc_core.values.history import TRUNCATE_NUMBERS, Moment, log_of, versions_of
from cdc_core.values.merges import (
    DELETED_AT_COLUMN,
    EMPTY_BATCH,
    LoadBatch,
    Replacement,
    TableRename,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from cdc_core.full_load.table_reading import TableRanges
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.progress import Progress
    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.checkpoint import Checkpoint, TableState
    from cdc_core.values.history import HistoryDifference, HistoryStep
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
) -> tuple[Checkpoint, LoadBatch, TablesRead]:
    """Replace each table by its content at the snapshot.

    Tables are loaded in groups. The checkpoint counts a group as read with the load after its own,
    because that load also brings the values that the group could not represent. The caller does the
    last such load: the batch and the checkpoint returned. The checkpoint's LSN stays.

    A snapshot holds rows, not definitions, and a table rewritten meanwhile looks empty in it. So a
    table counts as read only if the catalog (`describe`) still describes it as given afterwards.
    Otherwise it stays as it was, as does a table that the source refuses to read or the destination
    refuses to take. The counts name them; the other tables are read.
    """
    reader = _Reader(snapshot, tables, describe, destination, checkpoint, progress)
    return reader.run()


@dataclass(frozen=True)
class _Prepared:
    """A table's state once it is read, the renames to do before, and how it is read."""

    state: TableState
    renames: tuple[SchemaStep, ...]
    ranges: TableRanges


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
        self._destination, self._checkpoint = destination, checkpoint
        self._progress = progress
        self._counts = TablesRead()
        self._unrepresentable = HeldUnrepresentable(destination.stage)
        self._targets = {table.relation.oid: target for table, target in tables}
        self._steps: list[SchemaStep] = [
            *table_renames(checkpoint.tables, self._targets).possible,
        ]
        self._prepared = {pair[0].relation.oid: self._prepare(*pair) for pair in tables}
        # Kept page ranges first: the checkpoint has room for one such table.
        self._tables = sorted(tables, key=lambda pair: not self._ranges(pair[0]).reading.ranges)
        # A checkpoint that was started over does not know which columns of the tables there were
        # dropped at the source; any other checkpoint does.
        began = checkpoint.full_load
        self._started_over = began is not None and all(
            state.snapshot_lsn >= began for state in checkpoint.tables.values()
        )

    def run(self) -> tuple[Checkpoint, LoadBatch, TablesRead]:
        self._mark_histories()
        self._expect(self._tables)
        alone = {oid for oid, found in self._prepared.items() if not found.ranges.whole}
        groups = deque(_groups(self._tables, alone))
        while groups:
            group = groups.popleft()
            before, refused = replace(self._counts), set(self._counts.refused)
            try:
                states = self._load(group)
            except (CdcError, ValueError) as error:  # ValueError: a column has another type by now
                lost = self._lost_to(error, group, refused)
                if not lost:
                    raise
                groups = deque(_without(lost, [group, *groups]))
                self._forget(before)
                self._expect(pair for each in groups for pair in each)
                continue
            self._count_as_read(group, states)
            if groups:
                batch = LoadBatch(unrepresentable=self._unrepresentable.take())
                self._destination.load(batch, self._checkpoint)
        last = LoadBatch(steps=tuple(self._steps), unrepresentable=self._unrepresentable.take())
        return self._checkpoint, last, self._counts

    def _mark_histories(self) -> None:
        """Have the next run read known tables with a history again if this one ends early.

        Their history is then at the snapshot, so older changes of the stream cannot be added.
        """
        waiting = [
            known.needs_snapshot("a full load was cut short")
            for oid, found in self._prepared.items()
            if (known := self._checkpoint.tables.get(oid)) is not None and has_history(found.state)
        ]
        if waiting:
            self._checkpoint = self._checkpoint.with_table(*waiting)
            self._destination.load(EMPTY_BATCH, self._checkpoint)
            self._progress.emit(Checkpointed(self._checkpoint))

    def _prepare(self, table: SourceTable, target: str) -> _Prepared:
        before = self._checkpoint.tables.get(table.relation.oid)
        if before is not None and before.rules.history and rules_changed(before, table):
            self._progress.emit(
                Note(
                    f"table {table.relation.table}: {RULES_CHANGED}; rows of its history from "
                    "before stay as they were"
                )
            )
        state, columns = state_when_read(before, table, target, self._snapshot.lsn)
        former = self._former(state)
        archived = archived_history(former, state) if former is not None else []
        renames: tuple[SchemaStep, ...] = (*archived, *columns)
        ranges = divide_table(
            self._snapshot, table, state, self._destination, self._checkpoint.reading,
            self._progress,
        )  # fmt: skip
        return _Prepared(state, renames, ranges)

    def _ranges(self, table: SourceTable) -> TableRanges:
        return self._prepared[table.relation.oid].ranges

    def _expect(self, wanted: Iterable[Pair]) -> None:
        self._snapshot.expect(
            [
                (table.relation, page_range)
                for table, _ in wanted
                for page_range in self._ranges(table).unread
            ]
        )

    def _load(self, group: Sequence[Pair]) -> list[TableState]:
        """Read and replace the tables of a group; return their new states."""
        steps, readings = list(self._steps), []
        history: list[HistoryStep] = []
        differences: list[HistoryDifference | None] = []
        at = Moment(self._snapshot.lsn, self._snapshot.taken_at)
        for table, _ in group:
            found = self._prepared[table.relation.oid]
            steps += found.renames
            first = free_number(found.state, self._destination)
            former = self._former(found.state)
            if former is not None and (began := key_changed(former, found.state, at, first)):
                history.append(began)
                first += TRUNCATE_NUMBERS
            differences.append(difference(found.state, at, self._destination, first))
            state = reserved(found.state, first) if found.state.log else found.state
            readings.append(
                TableReading(
                    self._snapshot,
                    table,
                    state,
                    found.ranges,
                    self._gone_columns(state),
                    self._counts,
                    self._progress,
                    self._unrepresentable,
                )
            )
        for reading in readings:
            reading.begin()
        checkpoint = self._checkpoint
        kept: tuple[str, ...] = ()
        if not readings[0].ranges.whole:
            (large,) = readings
            checkpoint = keep_ranges(large, steps, self._destination, checkpoint)
            assert checkpoint.reading is not None
            steps, kept = [], tuple(part.name for part in checkpoint.reading.ranges)
        replacements = tuple(
            Replacement(
                reading.state.target_table,
                reading.last_rows(),
                reading.state.target_key,
                gone=reading.gone,
                kept=kept,
                soft_deletes=at if reading.state.soft_deletes else None,
                history=found_difference,
            )
            for reading, found_difference in zip(readings, differences, strict=True)
        )
        batch = LoadBatch(steps=tuple(steps), history=tuple(history), replacements=replacements)
        self._destination.load(batch, checkpoint)
        self._progress.emit(Checkpointed(checkpoint))
        self._checkpoint = checkpoint
        return [reading.state for reading in readings]

    def _count_as_read(self, group: Sequence[Pair], states: Sequence[TableState]) -> None:
        """Mark the tables of a group as read, unless their definitions have changed."""
        changed = self._changed(group)
        self._counts.unsteady |= changed
        read = [_unsteady(state) if state.oid in changed else state for state in states]
        self._checkpoint = self._checkpoint.with_table(*read)
        reading = self._checkpoint.reading
        if reading is not None and reading.oid in self._prepared:
            self._checkpoint = replace(self._checkpoint, reading=None)
        self._steps = []

    def _lost_to(
        self, error: Exception, group: Sequence[Pair], refused: AbstractSet[int]
    ) -> AbstractSet[int]:
        """Return the tables that cannot be read because of an error; none if it concerns all.

        `refused` are those that were refused before.
        """
        counts = self._counts
        if isinstance(error, DestinationRefused):
            for oid, target in self._targets.items():
                if target in error.tables:
                    counts.refused[oid] = error.of(target)
        changed = self._changed(group)
        for oid in changed:
            counts.refused.pop(oid, None)
        if not changed and refused == counts.refused.keys():
            return frozenset()
        counts.unsteady |= changed
        self._steps = [step for step in self._steps if not self._is_refused(step)]
        known = (self._checkpoint.tables.get(oid) for oid in changed)
        self._checkpoint = self._checkpoint.with_table(
            *(_unsteady(state) for state in known if state is not None)
        )
        reading = self._checkpoint.reading
        if reading is not None and reading.oid in changed:
            self._checkpoint = replace(self._checkpoint, reading=None)
        return changed | counts.refused.keys()

    def _forget(self, before: TablesRead) -> None:
        """Take back the counts and values of a group that was not loaded."""
        counts = self._counts
        counts.tables, counts.rows = before.tables, before.rows
        counts.unrepresentable = before.unrepresentable
        self._unrepresentable.take()

    def _changed(self, group: Sequence[Pair]) -> set[int]:
        sources = [table for table, _ in group]
        return redefined(sources, self._describe([table.relation.oid for table in sources]))

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
        """Return the state of the table that the destination has in this place."""
        states = self._checkpoint.tables
        return states.get(state.oid) or next(
            (other for other in states.values() if other.target == state.target), None
        )


def _unsteady(state: TableState) -> TableState:
    return state.needs_snapshot("its definition changed while it was read")


def _without(lost: AbstractSet[int], groups: Iterable[Sequence[Pair]]) -> Iterator[list[Pair]]:
    """Yield the groups without the tables that are lost."""
    for group in groups:
        if rest := [pair for pair in group if pair[0].relation.oid not in lost]:
            yield rest


def _groups(tables: Sequence[Pair], alone: AbstractSet[int]) -> Iterator[list[Pair]]:
    """Yield tables in groups of limited size; those in `alone` form a group each."""
    group: list[Pair] = []
    size = 0
    for table, target in tables:
        full = size + table.total_bytes > GROUP_BYTES or len(group) == GROUP_TABLES
        if group and (full or alone & {table.relation.oid, group[-1][0].relation.oid}):
            yield group
            group, size = [], 0
        group.append((table, target))
        size += table.total_bytes
    if group:
        yield group
