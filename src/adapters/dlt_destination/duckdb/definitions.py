"""Definitions of tables in a DuckDB file: reading, creating and altering them.

Sources: DuckDB documentation, "CREATE TABLE", "ALTER TABLE", "DuckDB_% Metadata Functions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import own_columns, with_columns
from adapters.dlt_destination.duckdb.memory import MemoryLimit
from adapters.dlt_destination.sql import unrepresentable_sql
from adapters.dlt_destination.sql.dialect import DUCKDB
from cdc_core.values.history import LOG_FIELDS, VERSION_FIELDS
from cdc_core.values.merges import DELETED_AT_FIELD, METADATA_FIELDS, UNREPRESENTABLE_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.values.merges import Rename
    from cdc_core.values.table_rules import ClusterBy


class Definitions:
    """The part of the store that knows columns. `statements` counts what was sent; `memory` is the
    limit of the connection."""

    def __init__(self) -> None:
        self.memory = MemoryLimit()
        self.statements = 0

    def columns(self, client: Any) -> dict[str, pa.Schema]:
        rows = client.sql_client.execute_sql(
            "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns AS c "
            "JOIN information_schema.tables AS t USING (table_catalog, table_schema, table_name) "
            "WHERE c.table_catalog = current_database() AND c.table_schema = %s "
            "AND t.table_type = 'BASE TABLE' "
            "ORDER BY c.table_name, c.ordinal_position",
            client.sql_client.dataset_name,
        )
        fields: dict[str, list[pa.Field]] = {}
        for table, column, sql_type in rows:
            if not table.startswith("_dlt"):
                fields.setdefault(table, []).append(_field(column, sql_type))
        return {table: pa.schema(columns) for table, columns in fields.items()}

    def current(self, client: Any, table: str) -> pa.Schema | None:
        found = self.columns_of(client, table)
        return found if len(found) else None

    def columns_of(self, client: Any, table: str) -> pa.Schema:
        """Return the columns of one table; an empty schema if it is missing."""
        import duckdb

        try:
            # DESCRIBE falls back to a Python variable of that name if the table is missing.
            rows = client.sql_client.native_connection.execute(
                "SELECT name, type FROM pragma_table_info(?)", [qualified(client, table)]
            )
        except duckdb.CatalogException:
            return pa.schema([])
        return pa.schema([_field(name, sql_type) for name, sql_type in rows.fetchall()])

    def create(
        self,
        client: Any,
        table: str,
        fields: Sequence[pa.Field],
        cluster_by: ClusterBy,  # noqa: ARG002 - DuckDB has no layout
    ) -> None:
        if not client.is_storage_initialized():
            client.initialize_storage()
        self.run(client, f"CREATE TABLE {qualified(client, table)} ({DUCKDB.definitions(fields)})")

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Add columns before the metadata columns. DuckDB adds columns only at the end, so the
        table is rewritten. A table to which users added something would lose it, so that one gets
        its new columns at the end."""
        if self.is_plain(client, table):
            self._write_again(client, table, fields)
            return
        for field in fields:
            self.run(client, added_column(qualified(client, table), field))

    def _write_again(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        added = {
            f.name: f"CAST(NULL AS {DUCKDB.sql_type(f.type)}) AS {DUCKDB.quote(f.name)}"
            for f in fields
        }
        names = with_columns(self.columns_of(client, table).names, fields)
        columns = ", ".join(added.get(name, DUCKDB.quote(name)) for name in names)
        target = qualified(client, table)
        self.run(client, f"CREATE OR REPLACE TABLE {target} AS SELECT {columns} FROM {target}")

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        for field in fields:
            column = f"{DUCKDB.quote(field.name)} TYPE {DUCKDB.sql_type(field.type)}"
            self.run(client, f"ALTER TABLE {qualified(client, table)} ALTER COLUMN {column}")

    def rename_column(self, client: Any, table: str, old: str, new: str) -> None:
        names = f"{DUCKDB.quote(old)} TO {DUCKDB.quote(new)}"
        self.run(client, f"ALTER TABLE {qualified(client, table)} RENAME COLUMN {names}")

    def rename_table(self, client: Any, old: str, new: str) -> None:
        self.run(client, f"ALTER TABLE {qualified(client, old)} RENAME TO {DUCKDB.quote(new)}")

    def rename_unrepresentable(self, client: Any, rename: Rename) -> None:
        values = qualified(client, UNREPRESENTABLE_TABLE)
        self.run(client, unrepresentable_sql.renaming(DUCKDB, rename, values))

    def forget_unrepresentable(self, client: Any, table: str) -> None:
        values = qualified(client, UNREPRESENTABLE_TABLE)
        self.run(client, unrepresentable_sql.forgetting(DUCKDB, table, values))

    def is_plain(self, client: Any, table: str) -> bool:
        """Whether users have added nothing to the table."""
        added = (*METADATA_FIELDS, DELETED_AT_FIELD, *LOG_FIELDS, *VERSION_FIELDS)
        names = {field.name for field in added}
        held = self.columns_of(client, table).names
        behind = held[len(own_columns(held)) :]
        return set(behind) <= names and not self.carries(client, table)

    def carries(self, client: Any, table: str) -> bool:
        """Whether a table has a comment, a default, a constraint or an index."""
        where = "database_name = current_database() AND schema_name = %s AND table_name = %s"
        on_table = "comment IS NOT NULL OR index_count > 0 OR check_constraint_count > 0"
        on_column = "comment IS NOT NULL OR column_default IS NOT NULL OR NOT is_nullable"
        (row,) = client.sql_client.execute_sql(
            f"SELECT EXISTS (FROM duckdb_tables() WHERE {where} AND ({on_table})) "
            f"OR EXISTS (FROM duckdb_columns() WHERE {where} AND ({on_column}))",
            *[client.sql_client.dataset_name, table] * 2,
        )
        return bool(row[0])

    def run(self, client: Any, statement: str) -> None:
        """Run a statement, with more memory if it needs that."""
        self.statements += 1
        self.memory.within(
            client.sql_client.native_connection, lambda: client.sql_client.execute_sql(statement)
        )


def qualified(client: Any, table: str) -> str:
    return f"{client.sql_client.fully_qualified_dataset_name()}.{DUCKDB.quote(table)}"


def added_column(table: str, field: pa.Field) -> str:
    column = f"{DUCKDB.quote(field.name)} {DUCKDB.sql_type(field.type)}"
    return f"ALTER TABLE {table} ADD COLUMN {column}"


def _field(column: str, sql_type: str) -> pa.Field:
    return pa.field(column, DUCKDB.arrow_type(sql_type) or pa.null())
