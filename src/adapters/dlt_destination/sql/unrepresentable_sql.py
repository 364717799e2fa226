"""The SQL of the table of unrepresentable values: merging, renaming and deleting its rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from adapters.dlt_destination.sql.merge_sql import MergeRules, all_equal
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    LSN_COLUMN,
    UNREPRESENTABLE_SCHEMA,
    TableRename,
)

if TYPE_CHECKING:
    from adapters.dlt_destination.sql.dialect import Dialect
    from cdc_core.values.merges import ColumnRename

#: The columns that identify a row.
IDENTITY = ("table_name", "column_name", "key", "value_text", LSN_COLUMN)


def rules(dialect: Dialect) -> MergeRules:
    """Rules for `source`: insert the unrepresentable values that are not stored yet."""
    return MergeRules(
        on=all_equal(
            [dialect.column("t", name) for name in IDENTITY],
            "=",
            [dialect.column("s", name) for name in IDENTITY],
        ),
        insert={name: dialect.column("s", name) for name in UNREPRESENTABLE_SCHEMA.names},
    )


def source(dialect: Dialect, staged: str) -> str:
    once = ", ".join(dialect.quote(name) for name in IDENTITY)
    committed = f"MAX({COMMITTED_AT_COLUMN}) AS {COMMITTED_AT_COLUMN}"
    return f"SELECT {once}, {committed} FROM {staged} AS f GROUP BY {once}"


def renamed(dialect: Dialect, rename: ColumnRename | TableRename) -> tuple[dict[str, str], str]:
    """Return how a rename changes the table of unrepresentable values: new values by column, and
    the condition for the rows. The change is idempotent."""
    old, new = dialect.literal(rename.old), dialect.literal(rename.new)
    table, column, key = map(dialect.quote, ("table_name", "column_name", "key"))
    if isinstance(rename, TableRename):
        return {table: new}, f"{table} = {old}"
    # In JSON, a quoted text followed by a colon can only be a name.
    old_name, new_name = (
        dialect.literal(f"{json.dumps(name, ensure_ascii=False)}: ")
        for name in (rename.old, rename.new)
    )
    values = {
        column: f"CASE WHEN {column} = {old} THEN {new} ELSE {column} END",
        key: f"REPLACE({key}, {old_name}, {new_name})",
    }
    return values, f"{table} = {dialect.literal(rename.table)}"


def renaming(dialect: Dialect, rename: ColumnRename | TableRename, target: str) -> str:
    """Return the statement that renames a table or column in `target`."""
    values, where = renamed(dialect, rename)
    assigned = ", ".join(f"{name} = {value}" for name, value in values.items())
    return f"UPDATE {target} SET {assigned} WHERE {where}"


def of_table(dialect: Dialect, table: str) -> str:
    """Return the condition for a table's rows in the table of unrepresentable values."""
    return f"{dialect.quote('table_name')} = {dialect.literal(table)}"


def forgetting(dialect: Dialect, table: str, target: str) -> str:
    """Return the statement that deletes a table's rows from `target`."""
    return f"DELETE FROM {target} WHERE {of_table(dialect, table)}"
