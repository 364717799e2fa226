"""Reading whole tables at one LSN and replacing them in the destination.

Shared by the full load and by the stream, which reads again what it cannot follow.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from cdc_core.fold.unrepresentable import HeldUnrepresentable
from cdc_core.full_load.resume import keep_parts, plan_parts
from cdc_core.full_load.table_reading import TableReading, TablesRead
from cdc_core.tables.renames import table_renames
from cdc_core.tables.schema_change import (
    first_state,
    redefined,
    reread_state,
)
from cdc_core.values.errors import CdcError, DestinationRefused
from cdc_core.values.merges import LoadBatch, Replacement, TableRename

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from cdc_core.full_load.table_reading import Parts
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.progress import Progress
    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.checkpoint import Checkpoint, TableState
    from cdc_core.values.merges import ColumnRename, SchemaStep

#: Tables are loaded together up to this estimate of their bytes at the source.
GROUP_BYTES = 512 << 20
GROUP_TABLES = 100
#: How often tables are read anew whose definitions change while they are read.
READ_ATTEMPTS = 5


def read_tables(
    snapshot: Snapshot,
    tables: Sequence[tuple[SourceTable, str]],
    look: Callable[[Collection[int]], Sequence[SourceTable]],
    destination: Destination,
    checkpoint: Checkpoint,
    progress: Progress,
) -> tuple[Checkpoint, LoadBatch, TablesRead]:
    """Replace each table (given with its target name) by its content at the snapshot.

    Tables are loaded in groups. A group counts as read, in the checkpoint, once the load after its
    own has landed: only then are the values that it could not hold known and loaded with it. The
    last such load is the caller's: the batch and the checkpoint returned. The checkpoint's LSN
    stays.

    A snapshot holds rows, not definitions, and a rewritten table looks empty in it: a table whose
    description in the catalog, as `look` tells it, is not the given one once it was read does not
    count as read, nor does one whose reading failed because of that: it stays as it was.

    A table that the source refuses to read, or the destination to take, stays as it was too. Both
    are in the counts; the others are read.
    """
    counts = TablesRead()
    cells = HeldUnrepresentable(destination.stage)
    targets = {table.relation.oid: target for table, target in tables}
    steps: list[SchemaStep] = [*table_renames(checkpoint.tables, targets).possible]
    states: dict[int, tuple[TableState, tuple[ColumnRename, ...]]] = {}
    plans: dict[int, Parts] = {}
    for table, target in tables:
        state, renames = _state(checkpoint, table, target, snapshot)
        states[state.oid] = state, renames
        plans[state.oid] = plan_parts(
            snapshot, table, state, destination, checkpoint.reading, progress
        )
    # One table at a time has parts that are kept.
    tables = sorted(tables, key=lambda pair: not plans[pair[0].relation.oid].reading.parts)

    def expect(wanted: Iterable[tuple[SourceTable, str]]) -> None:
        relations = [table.relation for table, _ in wanted]
        snapshot.expect([(found, part) for found in relations for part in plans[found.oid].unread])

    expect(tables)
    groups = deque(_groups(tables, {oid for oid, parts in plans.items() if not parts.one}))
    # Of what is there from before a checkpoint that was begun anew, some may be a dropped column;
    # else those are known, and what more there is was left by a reading that did not come to count.
    began = checkpoint.full_load
    begun_anew = began is not None and all(
        state.snapshot_lsn >= began for state in checkpoint.tables.values()
    )
    while groups:
        group = groups.popleft()
        sources, readings = [table for table, _ in group], []
        oids = [table.relation.oid for table in sources]
        group_steps = list(steps)
        before = counts.tables, counts.rows, counts.unrepresentable
        refused = set(counts.refused)
        for table in sources:
            state, renames = states[table.relation.oid]
            gone = _gone(checkpoint, state, begun_anew=begun_anew)
            parts = plans[state.oid]
            readings.append(
                TableReading(snapshot, table, state, parts, gone, counts, progress, cells)
            )
            group_steps += renames
        try:
            checkpoint = _load_group(readings, group_steps, destination, checkpoint)
        except (CdcError, ValueError) as error:  # of reading what has another type by now, too
            if isinstance(error, DestinationRefused):
                for oid, target in targets.items():
                    if target in error.tables:
                        counts.refused[oid] = error.of(target)
            changed = redefined(sources, look(oids))
            for oid in changed:
                counts.refused.pop(oid, None)
            if not changed and refused == counts.refused.keys():
                raise
            steps = [step for step in steps if not _refused(step, counts, targets)]
            lost = changed | counts.refused.keys()
            rest = (
                [pair for pair in pairs if pair[0].relation.oid not in lost]
                for pairs in (group, *groups)
            )
            groups = deque(pairs for pairs in rest if pairs)
            counts.unsteady |= changed
            checkpoint = _waiting(checkpoint, changed)
            counts.tables, counts.rows, counts.unrepresentable = before
            cells.take()
            expect(pair for group in groups for pair in group)
            continue
        changed = redefined(sources, look(oids))
        counts.unsteady |= changed
        read = [reading.state for reading in readings]
        read = [_unsteady(state) if state.oid in changed else state for state in read]
        checkpoint = checkpoint.with_table(*read)
        if checkpoint.reading is not None and checkpoint.reading.oid in plans:
            checkpoint = replace(checkpoint, reading=None)
        steps = []
        if groups:
            destination.load(LoadBatch(unrepresentable=cells.take()), checkpoint)
    return checkpoint, LoadBatch(steps=tuple(steps), unrepresentable=cells.take()), counts


def _refused(step: SchemaStep, counts: TablesRead, targets: Mapping[int, str]) -> bool:
    """Whether a step is of a table that is refused, which it names as it is after the step."""
    name = step.new if isinstance(step, TableRename) else step.table
    return any(targets[oid] == name for oid in counts.refused)


def _gone(checkpoint: Checkpoint, state: TableState, *, begun_anew: bool) -> frozenset[str] | None:
    """Columns of ours that the destination's table has no more. Of a table that the checkpoint
    knows, all others are somebody else's; of any other, what is there was left by a reading that
    did not come to count."""
    before = checkpoint.tables.get(state.oid) or next(
        (other for other in checkpoint.tables.values() if other.target == state.target), None
    )
    if before is None:
        return frozenset() if begun_anew else None
    now = {column.target for column in state.columns}
    return frozenset(column.target for column in before.columns) - now


def _load_group(
    readings: Sequence[TableReading],
    steps: Sequence[SchemaStep],
    destination: Destination,
    checkpoint: Checkpoint,
) -> Checkpoint:
    """Replace these tables; the checkpoint with what is kept of one that is read in parts."""
    for reading in readings:
        reading.begin()
    kept: tuple[str, ...] = ()
    if not readings[0].parts.one:
        (large,) = readings
        checkpoint = keep_parts(large, steps, destination, checkpoint)
        assert checkpoint.reading is not None
        steps, kept = (), tuple(part.name for part in checkpoint.reading.parts)
    replacements = tuple(
        Replacement(
            reading.state.target_table,
            reading.last_rows(),
            reading.state.target_key,
            gone=reading.gone,
            kept=kept,
        )
        for reading in readings
    )
    destination.load(LoadBatch(steps=tuple(steps), replacements=replacements), checkpoint)
    return checkpoint


def _waiting(checkpoint: Checkpoint, oids: AbstractSet[int]) -> Checkpoint:
    """The checkpoint with these tables, as far as it knows them, waiting to be read."""
    known = (checkpoint.tables.get(oid) for oid in oids)
    checkpoint = checkpoint.with_table(*(_unsteady(state) for state in known if state is not None))
    if checkpoint.reading is not None and checkpoint.reading.oid in oids:
        checkpoint = replace(checkpoint, reading=None)
    return checkpoint


def _unsteady(state: TableState) -> TableState:
    reason = "its definition changed while it was read"
    return state.needs_snapshot(reason)


def _state(
    checkpoint: Checkpoint, table: SourceTable, target: str, snapshot: Snapshot
) -> tuple[TableState, tuple[ColumnRename, ...]]:
    before = checkpoint.tables.get(table.relation.oid)
    if before is None:
        return first_state(table, target, snapshot.lsn), ()
    return reread_state(replace(before, target=target), table, snapshot.lsn)


def _groups(
    tables: Sequence[tuple[SourceTable, str]], alone: AbstractSet[int]
) -> Iterator[list[tuple[SourceTable, str]]]:
    group: list[tuple[SourceTable, str]] = []
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
