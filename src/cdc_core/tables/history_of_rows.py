"""How rows that were read, not streamed, appear in the history of their table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cdc_core.fold.row_layout import keyed_schema
from cdc_core.tables.schema_change import widens
from cdc_core.values.history import (
    DIFFERENCE_NUMBERS,
    HistoryDifference,
    LogTruncate,
    VersionMerge,
    log_of,
    versions_of,
)
from cdc_core.values.merges import TableRename

if TYPE_CHECKING:
    from cdc_core.ports.destination import Destination
    from cdc_core.values.checkpoint import ColumnState, TableState
    from cdc_core.values.history import HistoryStep, Moment


def has_history(state: TableState) -> bool:
    return bool(state.log or state.versions)


def free_number(state: TableState, destination: Destination) -> int:
    """Return a number that no image in a table's log has, nor any number above it."""
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


def key_changed(before: TableState, now: TableState, at: Moment, first: int) -> list[HistoryStep]:
    """Return the steps that end every image and version of a table which has another key now.

    The difference then begins all rows under the new key. Empty if the key is the same.
    """
    if before.oid == now.oid and _key_numbers(before) == _key_numbers(now):
        return []
    if before.oid != now.oid and before.target_key == now.target_key:
        return []
    steps: list[HistoryStep] = []
    target, key = now.target_table, now.target_key
    if before.log and now.log:
        steps.append(LogTruncate(now.log, target, (), first, at, None))
    if before.versions and now.versions:
        rows = keyed_schema(target).empty_table()
        steps.append(VersionMerge(now.versions, target, key, rows, truncated=at))
    return steps


def archived_history(before: TableState, now: TableState) -> list[TableRename]:
    """Return the renames of history tables that cannot hold the values of a column's new type.

    They are named after the LSN at which the table was read before; new ones take their place.
    """
    held = {column.target: column for column in before.stored}
    if all(_holds(held.get(column.target, column), column) for column in now.stored):
        return []
    return archive(before, now)


def _holds(held: ColumnState, now: ColumnState) -> bool:
    """Whether a column can be widened to hold the values of now."""
    if held.rule.is_variant is not now.rule.is_variant:
        return False
    return widens(held.arrow_type, now.arrow_type)


def archive(before: TableState, now: TableState) -> list[TableRename]:
    """Return the renames of the history tables that are in the place of a table's own."""
    names = [log_of(now.target)] if before.log else []
    names += [versions_of(now.target)] if before.versions else []
    return [TableRename(name, f"{name}_{before.snapshot_lsn:X}") for name in names]


def _key_numbers(state: TableState) -> list[int]:
    numbers = {column.name: column.attnum for column in state.columns if not column.dropped}
    return sorted(numbers[name] for name in state.key)
