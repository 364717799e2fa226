"""Following a table's definition, from the state last loaded to the catalog's description.

The catalog describes the present, a Relation message the past. Equal column numbers (`attnum`) mean
the same column. A change that cannot be followed exactly is a reason to read the table again; there
are no guesses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.tables.history_conflicts import history_names
from cdc_core.tables.message_columns import PRINTS_AS_IT_IS
from cdc_core.tables.renames import Renames, in_order, with_history
from cdc_core.values.checkpoint import ColumnState, TableState, TableStatus
from cdc_core.values.lsn import ZERO_LSN
from cdc_core.values.merges import ColumnRename
from cdc_core.values.naming import RESERVED_COLUMNS, map_columns
from cdc_core.values.table_rules import ColumnRule

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.values.fingerprint import Fingerprint
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Column, Relation


@dataclass(frozen=True)
class Evolution:
    """A table's new state, the changes, and why it must be read again (empty: it need not)."""

    state: TableState
    renames: tuple[ColumnRename, ...] = ()
    #: One sentence for each change.
    changes: tuple[str, ...] = ()
    reread: str = ""


def first_state(source: SourceTable, target: str, snapshot_lsn: Lsn) -> TableState:
    """Return the state of a table that is read for the first time, or from scratch."""
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
        fingerprint=source.fingerprint,
        rules=source.rules,
    )


def state_when_read(
    before: TableState | None, source: SourceTable, target: str, snapshot_lsn: Lsn
) -> tuple[TableState, tuple[ColumnRename, ...]]:
    """Return the state of a table once it is read, and the renames to do before.

    `before` is None for a table that the checkpoint does not know.
    """
    if before is None:
        return first_state(source, target, snapshot_lsn), ()
    return reread_state(replace(before, target=target), source, snapshot_lsn)


def reread_state(
    before: TableState, source: SourceTable, snapshot_lsn: Lsn
) -> tuple[TableState, tuple[ColumnRename, ...]]:
    """Return the state of a known table that is read again, and the renames to do before.

    Columns are followed as in `evolve`. Dropped columns stay in place, but give up their name to a
    column that was added or renamed to it, or that the history adds, because all values are
    replaced.
    """
    fresh = first_state(source, before.target, snapshot_lsn)
    live = {c.attnum for c in source.relation.columns}
    wanted = _new_names(before, source.relation) | history_names(source.rules.history)
    kept = tuple(c for c in before.columns if c.attnum in live or c.target.casefold() not in wanted)
    gone = tuple(c.target for c in before.columns if c not in kept)
    followed = _follow(replace(before, columns=kept), source, gone)
    renames = with_history(followed.renames.possible, before)
    next_image = before.next_image
    return replace(fresh, columns=followed.columns, next_image=next_image), renames


def _new_names(before: TableState, relation: Relation) -> set[str]:
    """Return the names of added and renamed columns, in lower case."""
    names = {c.attnum: c.name for c in before.columns}
    return {c.name.casefold() for c in relation.columns if names.get(c.attnum) != c.name}


def evolve(
    state: TableState,
    source: SourceTable,
    *,
    unseen_rows: bool = False,
    settled: Collection[int] = (),
    until: Callable[[], Lsn] = lambda: ZERO_LSN,
) -> Evolution:
    """Compare a streamed table with the catalog's description of the same table (same oid).

    `unseen_rows`: rows arrived since `state` was taken, laid out by its column names. `settled` is
    as in `Fingerprint.reread_reason`, `until` as in `Fingerprint.following`.
    """
    relation, old, new = source.relation, state.fingerprint, source.fingerprint
    followed = _follow(state, source)
    known = _Known(
        state,
        relation,
        {column.attnum: column for column in state.columns},
        {column.attnum: column for column in relation.columns},
    )
    differences = list(known.differences(old))
    changes = [change for change, _ in differences if change]
    reasons = [
        RULES_CHANGED if rules_changed(state, source) else "",
        new.reread_reason(old, settled),
        "columns took one another's names" if followed.renames.blocked else "",
        *(reason for _, reason in differences),
        known.borrowed_name() if unseen_rows and new.last_column > old.last_column else "",
        known.returned_name(followed.columns),
    ]
    if known.key_changed:
        changes.append("key changed")
        reasons.append("its key changed")
    reread = next(filter(None, reasons), "")
    fingerprint = new if reread else new.following(old, until).keeping(new.gone(old), old)
    evolved = replace(state, columns=followed.columns, key=relation.key, fingerprint=fingerprint)
    renames = with_history(followed.renames.possible, state)
    return Evolution(evolved, renames, tuple(changes), reread)


@dataclass(frozen=True)
class _Known:
    """A table as it was loaded (`state`) and as it is (`relation`), columns by number."""

    state: TableState
    relation: Relation
    before: Mapping[int, ColumnState]
    now: Mapping[int, Column]

    def differences(self, old: Fingerprint) -> Iterator[tuple[str, str]]:
        """Yield each change of a column, and why it needs the table to be read again; either may be
        empty."""
        for column in self.state.columns:
            current = self.now.get(column.attnum)
            if current is not None:
                yield from _column_differences(column, current)
            elif not column.dropped:
                # The log of a table without a key finds a row by all of its columns.
                reread = "a column was dropped" if self.state.log and not self.state.key else ""
                yield f"column {column.name} dropped", reread
        for added in self.relation.columns:
            if added.attnum in self.before:
                continue
            yield f"column {added.name} added", ""
            if not added.rule.is_read:
                continue
            if added.has_default:
                yield "", f"column {added.name} was added with a default"
            if added.attnum in old.unsent:
                yield "", f"column {added.name} was not sent before"

    def borrowed_name(self) -> str:
        """A column that was added and dropped in between may have had a dropped column's name."""
        for column in self.state.columns:
            if not column.dropped and column.attnum not in self.now:
                return f"another column may have had the name {column.name} for a while"
        return ""

    def returned_name(self, columns: Iterable[ColumnState]) -> str:
        """A dropped column's name is another column's now, which must not show the old values."""
        gone = {c.target.casefold() for c in columns if c.dropped and c.rule.is_stored}
        taken = gone & _new_names(self.state, self.relation)
        return f"column {min(taken)} was dropped, and another one has its name" if taken else ""

    @property
    def key_changed(self) -> bool:
        """Whether the key has other columns; renamed ones are the same."""
        if self.relation.key == self.state.key:
            return False
        numbers = {c.name: c.attnum for c in self.state.columns if not c.dropped}
        renamed = {
            self.now[numbers[name]].name for name in self.state.key if numbers.get(name) in self.now
        }
        return {*self.relation.key} != renamed


def _column_differences(column: ColumnState, current: Column) -> Iterator[tuple[str, str]]:
    if column.dropped:
        yield "", f"column {current.name} is published again"
    if current.name != column.name:
        yield f"column {column.name} renamed to {current.name}", ""
    if (current.type_oid, current.typmod) != (column.type_oid, column.typmod):
        keeps = widens(column.arrow_type, current.arrow_type)
        reread = column.rule.is_stored and (not keeps or _prints_otherwise(column, current))
        yield (
            f"column {current.name} changed type to {current.pg_type}",
            f"type of column {current.name} changed" if reread else "",
        )


RULES_CHANGED = "its rules changed"


def rules_changed(state: TableState, source: SourceTable) -> bool:
    """Whether the table was loaded under other rules than it has now.

    Rules of columns that are shown alike count as equal: a recording can replay at a destination
    that stores JSON in another form.
    """
    now = {column.attnum: column.rule for column in source.relation.columns}
    before = {column.attnum: column.rule for column in state.columns if column.attnum in now}
    rules = state.rules
    if ColumnRule.HASH not in {*now.values(), *before.values()}:
        # The mask key counts for columns that can still be hashed again.
        rules = replace(rules, key_mark=source.rules.key_mark)
    return rules != source.rules or any(
        column.rule.shown != now.get(column.attnum, _rule_once_dropped(column, source)).shown
        for column in state.columns
    )


def _rule_once_dropped(column: ColumnState, source: SourceTable) -> ColumnRule:
    """The rule of a column that the source has dropped: its own, unless the rules hide it now.

    The source can never send its values again, so the ones that are stored stay as they are.
    """
    if not column.rule.is_stored:
        return column.rule
    rule = source.rules.rule_for(column.name)
    return column.rule if rule.shows_values else rule


def hides_more(before: TableState | None, now: TableState) -> bool:
    """Whether the current rules hide a column whose values were stored as they are, or may have
    been (None: not known)."""
    hidden = {column.attnum for column in now.columns if not column.rule.shows_values}
    if before is None:
        return bool(hidden)
    return any(c.attnum in hidden and c.rule.shows_values for c in before.columns)


def masked_otherwise(before: TableState | None, now: TableState) -> frozenset[str]:
    """Return the target columns whose values are masked in another way than before: in the same
    column, or in the one that had its name.

    These are all masked columns if it is not known how they were stored before (None).
    """
    if before is None:
        return frozenset(c.target for c in now.stored if not c.rule.shows_values)
    numbers = {c.attnum: c.rule for c in before.stored} if before.oid == now.oid else {}
    names = {c.target.casefold(): c.rule for c in before.stored}
    other_key = before.rules.key_mark != now.rules.key_mark

    def differs(rule: ColumnRule | None, column: ColumnState) -> bool:
        if rule is None or (rule.shows_values and column.rule.shows_values):
            return False
        return rule is not column.rule or (rule is ColumnRule.HASH and other_key)

    return frozenset(
        column.target
        for column in now.stored
        if differs(numbers.get(column.attnum), column)
        or differs(names.get(column.target.casefold()), column)
    )


def redefined(tables: Iterable[SourceTable], now: Iterable[SourceTable]) -> set[int]:
    """Return the oids of tables that the catalog now describes differently, or no longer has."""
    described = {table.relation.oid: (table.relation, table.fingerprint) for table in now}
    return {
        table.relation.oid
        for table in tables
        if described.get(table.relation.oid) != (table.relation, table.fingerprint)
    }


@dataclass(frozen=True)
class _Followed:
    columns: tuple[ColumnState, ...]
    renames: Renames[ColumnRename]


def _follow(state: TableState, source: SourceTable, gone: Iterable[str] = ()) -> _Followed:
    """Return the state's columns as the relation has them now, with added columns last.

    A column keeps its target name until it is renamed. `gone` are names of columns that the target
    table still has and that others take over.
    """
    relation = source.relation
    now = {column.attnum: column for column in relation.columns}
    # Names are free for others once their column is renamed: two columns may swap theirs.
    renamed = {c.attnum for c in state.columns if c.attnum in now and now[c.attnum].name != c.name}
    held = [column.target for column in state.columns if column.attnum not in renamed]
    taken = [*RESERVED_COLUMNS, *held]
    columns: list[ColumnState] = []
    renames: list[ColumnRename] = []

    def name_of(column: Column) -> str:
        target = map_columns([column.name], taken)[column.name]
        taken.append(target)
        return target

    for column in state.columns:
        current = now.get(column.attnum)
        if current is None:
            rule = _rule_once_dropped(column, source)
            columns.append(replace(column, dropped=True, rule=rule))
            continue
        target = name_of(current) if column.attnum in renamed else column.target
        if target != column.target and column.rule.is_stored:
            renames.append(ColumnRename(state.target, column.target, target))
        columns.append(_column_state(current, target))
    known = {column.attnum for column in state.columns}
    columns += [
        _column_state(column, name_of(column))
        for column in relation.columns
        if column.attnum not in known
    ]
    return _Followed(tuple(columns), in_order(renames, [*held, *gone]))


def _column_state(column: Column, target: str) -> ColumnState:
    return ColumnState(
        column.attnum, column.name, target, column.type_oid, column.typmod, column.arrow_type,
        rule=column.rule,
    )  # fmt: skip


def _prints_otherwise(old: ColumnState, new: Column) -> bool:
    """Whether the new type may print a value differently from the text in the destination."""
    types = {old.type_oid, new.type_oid}
    return len(types) > 1 and new.arrow_type == pa.string() and not types <= PRINTS_AS_IT_IS


def widens(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether `new` represents every value of `old` equally."""
    if old == new:
        return True
    order = (pa.int16(), pa.int32(), pa.int64())
    if old in order and new in order:
        return order.index(new) > order.index(old)
    if pa.types.is_decimal(old) and pa.types.is_decimal(new):
        return bool(new.scale == old.scale and new.precision >= old.precision)
    return bool(old == pa.float32() and new == pa.float64())
