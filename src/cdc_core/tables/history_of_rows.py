"""How rows that were read, not streamed, appear in the history of their table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.fold.row_layout import keyed_schema
from cdc_core.tables.schema_change import widens
from cdc_core.values.history import (
    DIFFERENCE_NUMBERS,
    HistoryDifference,
    LogTruncate,
    VersionMerge,
)

if TYPE_CHECKING:
    from cdc_core.ports.destination import Destination
    from cdc_core.values.checkpoint import ColumnState, TableState
    from cdc_core.values.history import HistoryStep, Moment


def has_history(state: TableState) -> bool:
    return bool(state.log or state.versions)


def free_number(state: TableState, destination: Destination) -> int:
    """Return a number above those of all images in a table's log."""
    if state.log is None:
        return state.next_image
    last = destination.last_numbers([state.log])
    return max(state.next_image, 1 + last.get(state.log, 0))


def difference(
    state: TableState, at: Moment, destination: Destination, first: int | None = None
) -> HistoryDifference | None:
    """Return how a table's rows of this moment appear in its history; None if it has none.

    `first` is the first free number; if it is not given, the destination is asked for it.
    """
    if not has_history(state):
        return None
    if first is None:
        first = free_number(state, destination)
    return HistoryDifference(at, state.log, first, state.versions)


def reserved(state: TableState, first: int) -> TableState:
    """Return the state after the numbers of a difference, which begin at `first`."""
    return replace(state, next_image=first + DIFFERENCE_NUMBERS)


def ended(before: TableState, now: TableState, at: Moment, first: int) -> list[HistoryStep]:
    """Return the steps that end every image and version of the table that had this place `before`,
    if the difference alone would not show what became of its rows.

    This is the case if the key has changed, or if another table with columns of its own takes the
    place.
    The difference then begins all rows. Empty if they need not end.
    """
    if before.oid == now.oid:
        if _key_numbers(before) == _key_numbers(now):
            return []
    elif before.target_key == now.target_key and not _left_columns(before, now):
        return []
    steps: list[HistoryStep] = []
    target, key = now.target_table, now.target_key
    if before.log and now.log:
        former, left = before.target_table, _left_columns(before, now)
        schema = pa.schema([*target.schema, *(former.schema.field(name) for name in left)])
        variants = target.variants | former.variants.intersection(left)
        whole = replace(target, schema=schema, variants=variants)
        steps.append(LogTruncate(now.log, whole, (), first, at, None))
    if before.versions and now.versions:
        rows = keyed_schema(target).empty_table()
        steps.append(VersionMerge(now.versions, target, key, rows, truncated=at))
    return steps


def _left_columns(before: TableState, now: TableState) -> list[str]:
    """Return the target columns of before that now does not have, and that its rules may show."""
    names = {column.target for column in now.columns}
    return [
        column.target
        for column in before.stored
        if column.target not in names and now.rules.rule_for(column.name).shows_values
    ]


def fits(before: TableState, now: TableState) -> bool:
    """Whether the history of a table's former state can hold the values of now."""
    held = {column.target: column for column in before.stored}
    return all(_holds(held.get(column.target, column), column) for column in now.stored)


def _holds(held: ColumnState, now: ColumnState) -> bool:
    """Whether a column can be widened to hold the values of now."""
    if held.rule.is_variant is not now.rule.is_variant:
        return False
    return widens(held.arrow_type, now.arrow_type)


def _key_numbers(state: TableState) -> list[int]:
    numbers = {column.name: column.attnum for column in state.columns if not column.dropped}
    return sorted(numbers[name] for name in state.key)
