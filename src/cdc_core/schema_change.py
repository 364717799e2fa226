"""Following a table's definition: from the state last loaded to the catalog's now.

The catalog describes now, a Relation message describes then; columns are the same column when their
`attnum` is. What cannot be followed exactly is a reason to read the table again, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.checkpoint import ColumnState, TableState, TableStatus
from cdc_core.fingerprint import Fingerprint
from cdc_core.naming import RESERVED_COLUMNS, map_columns
from cdc_core.staging import ColumnRename, TargetTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdc_core.lsn import Lsn
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.relation import Column, Relation

_ARROW_TYPES: dict[str, pa.DataType] = {
    str(t): t
    for t in (
        pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(),
        pa.string(), pa.binary(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", tz="UTC"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Evolution:
    """A table's new state, what was changed, and why it must be read again (empty: it need not)."""

    state: TableState
    renames: tuple[ColumnRename, ...] = ()
    #: Sentences for people, one a change.
    changes: tuple[str, ...] = ()
    reread: str = ""
    #: Columns that the target does not have yet.
    added: bool = False


def first_state(source: SourceTable, target: str, snapshot_lsn: Lsn) -> TableState:
    """The state of a table that is read for the first time, or anew."""
    relation = source.relation
    names = map_columns(relation.column_names)
    return TableState(
        oid=relation.oid,
        table=relation.table,
        target=target,
        columns=tuple(_column_state(column, names[column.name]) for column in relation.columns),
        key=relation.key,
        snapshot_lsn=snapshot_lsn,
        status=TableStatus.NOT_STREAMED if source.not_streamed else TableStatus.STREAMING,
        reason=source.not_streamed,
        fingerprint=source.fingerprint.to_text(),
    )


def reread_state(before: TableState, source: SourceTable, snapshot_lsn: Lsn) -> TableState:
    """The state of a known table once it was read again: columns keep their target names, dropped
    ones stay."""
    fresh = first_state(source, before.target, snapshot_lsn)
    live = {column.attnum for column in fresh.columns}
    held = {column.attnum: column.target for column in before.columns}
    gone = [replace(c, dropped=True) for c in before.columns if c.attnum not in live]
    taken = [*RESERVED_COLUMNS, *held.values()]
    columns = []
    for column in fresh.columns:
        target = held.get(column.attnum)
        if target is None:
            target = map_columns([column.name], taken)[column.name]
            # A column added under the name of one that was dropped takes its place.
            if any(c.target == column.name for c in gone):
                gone = [c for c in gone if c.target != column.name]
                target = column.name
            taken.append(target)
        columns.append(replace(column, target=target))
    return replace(fresh, columns=(*columns, *gone))


def evolve(state: TableState, source: SourceTable) -> Evolution:
    """Compare a streamed table's state with the catalog's description of the same table (same
    oid)."""
    relation = source.relation
    now = {column.attnum: column for column in relation.columns}
    before = {column.attnum: column for column in state.columns}
    old, new = Fingerprint.from_text(state.fingerprint), source.fingerprint
    reread = new.reread_reason(old)
    changes: list[str] = []
    renames: list[ColumnRename] = []
    # Names are free for others once their column is renamed: two columns may swap theirs.
    renamed = {c.attnum for c in state.columns if c.attnum in now and now[c.attnum].name != c.name}
    taken = [
        *RESERVED_COLUMNS,
        *(column.target for column in state.columns if column.attnum not in renamed),
    ]
    columns: list[ColumnState] = []

    for column in state.columns:
        current = now.get(column.attnum)
        if current is None:
            if not column.dropped:
                changes.append(f"column {column.name} dropped")
            columns.append(replace(column, dropped=True))
            continue
        if column.dropped:
            reread = reread or f"column {current.name} is published again"
        target = column.target
        if current.name != column.name:
            changes.append(f"column {column.name} renamed to {current.name}")
            target = map_columns([current.name], taken)[current.name]
            taken.append(target)
            if target != column.target:
                renames.append(ColumnRename(state.target, column.target, target))
        if (current.type_oid, current.typmod) != (column.type_oid, column.typmod):
            changes.append(f"column {current.name} changed type to {current.pg_type}")
            if not widens(_arrow_type(column.arrow_type), current.arrow_type):
                reread = reread or f"type of column {current.name} changed"
        columns.append(_column_state(current, target))

    added = [c for c in relation.columns if c.attnum not in before]
    for new_column in added:
        changes.append(f"column {new_column.name} added")
        if new_column.has_default:
            reread = reread or f"column {new_column.name} was added with a default"
        # A dropped column's name comes back with another column: old values must not show in it.
        if any(c.dropped and c.target == new_column.name for c in columns):
            reread = reread or f"column {new_column.name} was dropped and added again"
        target = map_columns([new_column.name], taken)[new_column.name]
        taken.append(target)
        columns.append(_column_state(new_column, target))

    if relation.key != state.key and {*relation.key} != _renamed(state.key, before, now):
        changes.append("key changed")
        reread = reread or "its key changed"
    if relation.table != state.table:
        changes.append(f"table {state.table} renamed to {relation.table}")
    evolved = replace(
        state,
        table=relation.table,
        columns=tuple(columns),
        key=relation.key,
        fingerprint=new.to_text(),
    )
    return Evolution(evolved, _ordered(renames), tuple(changes), reread, bool(added))


def target_table(state: TableState) -> TargetTable:
    """The destination table of a state: every column it ever had, in order."""
    schema = pa.schema([(c.target, _arrow_type(c.arrow_type)) for c in state.columns])
    return TargetTable(state.target, schema)


def target_key(state: TableState) -> tuple[str, ...]:
    by_name = {c.name: c.target for c in state.columns if not c.dropped}
    return tuple(by_name[name] for name in state.key)


def dropped_columns(state: TableState) -> tuple[str, ...]:
    """Target columns that the source has no more."""
    return tuple(c.target for c in state.columns if c.dropped)


def resolve_columns(
    relation: Relation, states: Sequence[TableState]
) -> tuple[ColumnState | None, ...] | None:
    """Which column of a state each column of a Relation message is.

    `states` are descriptions of the same table at moments before and after the message, newest
    last. A
    column that none knows was added and dropped again in between: None in the result. None for the
    whole if the names allow no reading with rising column numbers.
    """
    names = relation.column_names
    for state in states:
        live = [c for c in state.columns if not c.dropped]
        if tuple(c.name for c in live) == names:
            return _newest(tuple(live), states[-1])
    known: dict[str, set[int]] = {}
    for state in states:
        for column in state.columns:
            if not column.dropped:
                known.setdefault(column.name, set()).add(column.attnum)
    attnums: list[int | None] = []
    last = 0
    for name in names:
        options = sorted(attnum for attnum in known.get(name, ()) if attnum > last)
        if not options and name in known:
            return None
        attnums.append(options[0] if options else None)
        last = options[0] if options else last
    newest = {c.attnum: c for c in states[-1].columns}
    return tuple(newest.get(a) if a is not None else None for a in attnums)


def _newest(columns: Iterable[ColumnState], state: TableState) -> tuple[ColumnState | None, ...]:
    newest = {c.attnum: c for c in state.columns}
    return tuple(newest.get(column.attnum) for column in columns)


def _column_state(column: Column, target: str) -> ColumnState:
    return ColumnState(
        column.attnum, column.name, target, column.type_oid, column.typmod, str(column.arrow_type)
    )


def _renamed(
    key: Iterable[str], before: dict[int, ColumnState], now: dict[int, Column]
) -> set[str]:
    attnums = {c.name: c.attnum for c in before.values() if not c.dropped}
    return {now[attnums[name]].name for name in key if attnums.get(name) in now}


def _ordered(renames: list[ColumnRename]) -> tuple[ColumnRename, ...]:
    """Renames in an order in which no new name is taken yet; a circle goes through a spare name."""
    pending, done = list(renames), []
    while pending:
        old_names = {rename.old for rename in pending}
        free = next((r for r in pending if r.new not in old_names), None)
        if free is None:
            first = pending.pop(0)
            spare = f"{first.old}__renaming"
            done.append(replace(first, new=spare))
            pending.append(replace(first, old=spare))
            continue
        pending.remove(free)
        done.append(free)
    return tuple(done)


def widens(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether every value of `old` reads the same in `new`, without touching the rows."""
    if old == new:
        return True
    order = (pa.int16(), pa.int32(), pa.int64())
    if old in order and new in order:
        return order.index(new) > order.index(old)
    if pa.types.is_decimal(old) and pa.types.is_decimal(new):
        return bool(new.scale == old.scale and new.precision >= old.precision)
    return bool(old == pa.float32() and new == pa.float64())


def _arrow_type(text: str) -> pa.DataType:
    """Inverse of `str(arrow_type)` for the types that cross the ports."""
    if text.startswith("decimal128("):
        precision, scale = text[len("decimal128(") : -1].split(",")
        return pa.decimal128(int(precision), int(scale))
    return _ARROW_TYPES[text]
