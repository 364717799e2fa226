"""Reading whole tables at one LSN and replacing them in the destination.

Shared by the full load and by the stream, which reads again what it cannot follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.checkpoint import TableStatus
from cdc_core.errors import CdcError
from cdc_core.renames import table_renames
from cdc_core.schema_change import first_state, reread_state, target_key, target_table
from cdc_core.staging import EMPTY_BATCH, METADATA_FIELDS, LoadBatch, Replacement
from cdc_core.unrepresentable import joined, unrepresentable_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdc_core.checkpoint import Checkpoint, TableState
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.progress import Progress
    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.staging import ColumnRename, SchemaStep

#: Tables are loaded together up to this estimate of their bytes at the source.
GROUP_BYTES = 512 << 20
GROUP_TABLES = 100
#: How often tables are read anew whose definitions change while they are read.
READ_ATTEMPTS = 5


@dataclass
class TablesRead:
    """Counts of a reading, and oids of the tables that must be read again."""

    tables: int = 0
    rows: int = 0
    unrepresentable: int = 0
    unsteady: set[int] = field(default_factory=set)


def read_tables(
    snapshot: Snapshot,
    tables: Sequence[tuple[SourceTable, str]],
    look: Callable[[], Sequence[SourceTable]],
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
    count as read, nor do those whose reading failed because of that.
    """
    counts = TablesRead()
    leftover: list[pa.Table] = []
    done: set[int] = set()
    targets = {table.relation.oid: target for table, target in tables}
    steps: list[SchemaStep] = [*table_renames(checkpoint.tables, targets).possible]
    snapshot.expect([table.relation for table, _ in tables])
    groups = list(_groups(tables))
    # Of what is there from before a checkpoint that was begun anew, some may be a dropped column;
    # else those are known, and what more there is was left by a reading that did not come to count.
    began = checkpoint.full_load
    begun_anew = began is not None and all(
        state.snapshot_lsn >= began for state in checkpoint.tables.values()
    )
    for number, group in enumerate(groups):
        known = {state.target for state in checkpoint.tables.values()}
        states = []
        for table, target in group:
            state, renames = _state(checkpoint, table, target, snapshot)
            states.append(state)
            steps += renames
        collected: list[pa.Table] = []
        replacements = tuple(
            Replacement(
                target_table(state),
                _rows(snapshot, table, state, collected, counts, progress),
                target_key(state),
                exact=not begun_anew or state.oid in checkpoint.tables or state.target in known,
            )
            for (table, _), state in zip(group, states, strict=True)
        )
        try:
            destination.load(LoadBatch(steps=tuple(steps), replacements=replacements), checkpoint)
        except (CdcError, ValueError):  # of reading what has another type by now, too
            if not _changed(group, look()):
                raise
            counts.unsteady |= targets.keys() - done
            known_before = (checkpoint.tables.get(oid) for oid in counts.unsteady)
            unread = [_unsteady(state) for state in known_before if state is not None]
            return checkpoint.with_table(*unread), EMPTY_BATCH, counts
        changed = _changed(group, look())
        counts.unsteady |= changed
        states = [_unsteady(state) if state.oid in changed else state for state in states]
        checkpoint = checkpoint.with_table(*states)
        steps, leftover = [], collected
        done |= {state.oid for state in states}
        if number < len(groups) - 1:
            destination.load(LoadBatch(unrepresentable=joined(leftover)), checkpoint)
            leftover = []
    return checkpoint, LoadBatch(unrepresentable=joined(leftover)), counts


def _changed(group: Sequence[tuple[SourceTable, str]], now: Sequence[SourceTable]) -> set[int]:
    """Oids that the catalog describes in another way than when their reading began."""
    described = {table.relation.oid: (table.relation, table.fingerprint) for table in now}
    return {
        table.relation.oid
        for table, _ in group
        if described.get(table.relation.oid) != (table.relation, table.fingerprint)
    }


def _unsteady(state: TableState) -> TableState:
    reason = "its definition changed while it was read"
    return replace(state, status=TableStatus.NEEDS_SNAPSHOT, reason=reason)


def _state(
    checkpoint: Checkpoint, table: SourceTable, target: str, snapshot: Snapshot
) -> tuple[TableState, tuple[ColumnRename, ...]]:
    before = checkpoint.tables.get(table.relation.oid)
    if before is None:
        return first_state(table, target, snapshot.lsn), ()
    return reread_state(replace(before, target=target), table, snapshot.lsn)


def _rows(
    snapshot: Snapshot,
    table: SourceTable,
    state: TableState,
    unrepresentable: list[pa.Table],
    counts: TablesRead,
    progress: Progress,
) -> Iterator[pa.Table]:
    relation = table.relation
    name = str(relation.table)
    target = target_table(state)
    names = {c.name: c.target for c in state.columns if not c.dropped}
    schema = pa.schema([*target.schema, *METADATA_FIELDS])
    progress.table_started(name, table.estimated_rows)
    for piece in snapshot.read(relation):
        rows = piece.rows
        count = len(rows)
        sources = {names[column]: rows.column(column) for column in relation.column_names}
        columns = [sources.get(f.name, pa.nulls(count, f.type)) for f in target.schema]
        columns += [
            pa.repeat(pa.scalar(int(snapshot.lsn), pa.int64()), count),
            pa.repeat(pa.scalar(snapshot.taken_at, METADATA_FIELDS[1].type), count),
        ]
        if piece.unrepresentable:
            found = unrepresentable_rows(
                state.target, names, relation.key, rows, piece.unrepresentable,
                int(snapshot.lsn), snapshot.taken_at,
            )  # fmt: skip
            unrepresentable.append(found)
            counts.unrepresentable += len(found)
        counts.rows += count
        progress.rows_read(name, count)
        yield pa.table(columns, schema=schema)
    counts.tables += 1
    progress.table_finished(name)


def _groups(tables: Sequence[tuple[SourceTable, str]]) -> Iterator[list[tuple[SourceTable, str]]]:
    group: list[tuple[SourceTable, str]] = []
    size = 0
    for table, target in tables:
        if group and (size + table.total_bytes > GROUP_BYTES or len(group) == GROUP_TABLES):
            yield group
            group, size = [], 0
        group.append((table, target))
        size += table.total_bytes
    if group:
        yield group
