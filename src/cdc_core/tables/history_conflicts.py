"""Tables and columns that have a name which the history of a table needs.

Only one of the two can have the name, so one table is set aside until somebody renames something.
Nothing of either table is changed meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.values.errors import OperatorNeeded
from cdc_core.values.history import LOG_FIELDS, VERSION_FIELDS, log_of, versions_of
from cdc_core.values.naming import RESERVED_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.values.checkpoint import TableState

#: The columns that each kind of history adds, in lower case. Columns of a table never have those
#: in `RESERVED_COLUMNS`.
_ADDED = {
    kind: {field.name.casefold() for field in fields} - {n.casefold() for n in RESERVED_COLUMNS}
    for kind, fields in (("log", LOG_FIELDS), ("scd2", VERSION_FIELDS))
}


def history_conflicts(
    tables: Iterable[SourceTable],
    targets: Mapping[int, str],
    states: Mapping[int, TableState],
) -> dict[int, OperatorNeeded]:
    """Return the tables to set aside, by oid, each with the reason and the cure.

    `targets` are their places in the destination, `states` the tables that the destination has. Of
    a table and a history that need the same name, the table keeps it if it has it already;
    otherwise the history gets it.
    """
    by_oid = {table.relation.oid: table for table in tables}
    owners = {targets[oid].casefold(): oid for oid in by_oid}
    found: dict[int, OperatorNeeded] = {}
    for oid, table in by_oid.items():
        name = table.relation.table
        if column := _taken_column(table):
            found[oid] = OperatorNeeded(
                f"its history adds a column with the name of its column {column}",
                f"rename the column, exclude it, or set history = [] for {name}",
            )
        for history in _histories(table, targets[oid]):
            other = owners.get(history.casefold())
            if other is None:
                continue
            other_name = by_oid[other].relation.table
            if other in states and states[other].target == targets[other]:
                found[oid] = OperatorNeeded(
                    f"its history needs the name {history}, which table {other_name} has",
                    f"rename {other_name}, or exclude it and drop {history} in the destination, or "
                    f"set history = [] for {name}",
                )
            else:
                found[other] = OperatorNeeded(
                    f"the history of {name} has the name {history} in the destination",
                    f"rename or exclude {other_name}, or set history = [] for {name}",
                )
    return found


def history_names(kinds: Iterable[str]) -> set[str]:
    """Return the names of the columns that these kinds of history add, in lower case."""
    return {name for kind in kinds for name in _ADDED[kind]}


def _histories(table: SourceTable, target: str) -> Iterator[str]:
    for kind in table.rules.history:
        yield log_of(target) if kind == "log" else versions_of(target)


def _taken_column(table: SourceTable) -> str:
    """Return the column that has the name of one that the history adds; empty if none has."""
    added = history_names(table.rules.history)
    stored = (column.name for column in table.relation.columns if column.rule.is_stored)
    return next((name for name in stored if name.casefold() in added), "")
