"""The destination table of each source table: a name stays until the source table is renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.tables.renames import tables_of
from cdc_core.values.naming import ANY_DESTINATION, TableNaming, map_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.relation import TableName


def target_names(
    tables: Mapping[int, TableName],
    states: Mapping[int, TableState],
    first_schema: str,
    naming: TableNaming = ANY_DESTINATION,
) -> dict[int, str]:
    """Return the target of each table by oid, given the states of tables in the destination.

    A table keeps its target. New and renamed tables get names that no other table has. The target
    of a dropped table and the names of its history count as taken, unless a table of that name
    exists again.
    """
    kept = {
        oid: states[oid].target
        for oid, table in tables.items()
        if oid in states and states[oid].table == table
    }
    present = set(tables.values())
    gone = [s for oid, s in states.items() if oid not in tables and s.table not in present]
    left = [name for state in gone for name in tables_of(state)]
    others = [table for oid, table in tables.items() if oid not in kept]
    reserved = (*naming.reserved, *kept.values(), *left)
    found = map_tables(others, first_schema, reserved, naming.forbidden)
    return {oid: kept.get(oid) or found[table] for oid, table in tables.items()}
