"""Tables of which the destination no longer has what was loaded: dropped there, or lacking columns.

The stream brings changes only, so these tables must be read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.tables.renames import tables_of
from cdc_core.values.merges import TableRename

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cdc_core.tables.renames import ColumnsOf
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.merges import SchemaStep


def lost_tables(
    now: Mapping[int, TableState],
    before: Mapping[int, TableState],
    steps: Iterable[SchemaStep],
    columns: ColumnsOf,
) -> dict[int, str]:
    """Return the tables that must be read again, by oid, with the reason.

    `now` are the states after the comparison with the catalog, `before` those before it. The
    renames of that comparison (`steps`) are still to be done, or were done by a run that was killed
    before its checkpoint.
    """
    found = _lost(now, before, steps, columns, current=False)
    if found:  # the quick answer may be out of date
        now = {oid: now[oid] for oid in found}
        found = _lost(now, before, steps, columns, current=True)
    return found


def _lost(
    now: Mapping[int, TableState],
    before: Mapping[int, TableState],
    steps: Iterable[SchemaStep],
    columns: ColumnsOf,
    *,
    current: bool,
) -> dict[int, str]:
    states = [state for oid in now for state in (before[oid], now[oid])]
    targets = {name for state in states for name in tables_of(state)}
    held = dict(columns(targets, current=current))
    for step in steps:
        if isinstance(step, TableRename) and step.old in held:
            held[step.new] = held.pop(step.old)
    reasons = {
        oid: _lacking(state, held) or _reason(before[oid], state, held[state.target])
        for oid, state in now.items()
    }
    return {oid: why for oid, why in reasons.items() if why}


def _lacking(state: TableState, held: Collection[str]) -> str:
    """Name the table that the destination lacks; empty if it has them all."""
    return next(
        (f"the destination has no table {name}" for name in tables_of(state) if name not in held),
        "",
    )


def _reason(before: TableState, state: TableState, held: Collection[str]) -> str:
    """What the destination lacks of a table; empty for nothing. `held` are its columns there."""
    now = {column.attnum: column.target for column in state.columns}
    for column in before.columns:
        names = {column.target, now[column.attnum]}
        # A column under both names, or under neither, was renamed in between: which values are
        # its own is not known.
        sent = column.rule.is_stored and not column.dropped
        if sent and len(names.intersection(held)) != 1:
            return f"the destination has no column {column.target} of it as it was loaded"
    return ""
