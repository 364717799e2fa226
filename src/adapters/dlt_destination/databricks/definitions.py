"""Definitions of tables on Databricks: reading, creating and altering them.

Each statement can be sent twice. Sources: Databricks SQL reference, "CREATE TABLE [USING]", "ALTER
TABLE", "DESCRIBE TABLE"; "Use liquid clustering for tables".
"""

from __future__ import annotations

import itertools
import re
import threading
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import JSON, with_columns
from adapters.dlt_destination.databricks.multi_table_transaction import CATALOG_COMMITS
from adapters.dlt_destination.databricks.unity_names import (
    TablesByName,
    column_needs_mapping,
    table_name,
)
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.sql import unrepresentable_sql
from adapters.dlt_destination.sql.dialect import SPARK
from cdc_core.values.merges import UNREPRESENTABLE_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cdc_core.values.merges import Rename
    from cdc_core.values.table_rules import ClusterBy

#: Limits for clustering columns: their number and their position.
CLUSTERED_COLUMNS = 4
STATISTICS_COLUMNS = 32

#: A table's columns with their SQL types, in order.
Described = list[tuple[str, str]]

COLUMN_MAPPING = {"delta.columnMapping.mode": "name"}
_PROPERTIES = {"delta.enableDeletionVectors": "true"}
_TIMESTAMP_NTZ = {"delta.feature.timestampNtz": "supported"}
#: A table that is created with such a column has the feature. Source: Databricks documentation,
#: "Variant type support".
_VARIANT = {"delta.feature.variantType-preview": "supported"}

_NOT_FOUND = re.compile(r"\[(?:TABLE_OR_VIEW|SCHEMA)_NOT_FOUND\b")


class Definitions:
    """`catalog_commits`: new tables get the property that a transaction over tables needs."""

    def __init__(self, *, catalog_commits: bool) -> None:
        self._catalog_commits = catalog_commits
        #: Columns from `information_schema`, read once in this run, and from DESCRIBE since then.
        self._listing: TablesByName[pa.Schema] | None = None
        self._described: TablesByName[Described | None] = TablesByName()
        self._lock = threading.Lock()

    def forget_definitions(self) -> None:
        """Read all definitions again when they are next needed."""
        self._listing = None
        self._described.clear()

    def lacks(self, table: str) -> bool:
        """Whether the definitions were listed, and the table was not among them."""
        return self._listing is not None and table not in self._listing

    def columns(self, client: Any) -> TablesByName[pa.Schema]:
        """Return columns from `information_schema`, which lags behind definitions; tables that this
        run has defined or described are up to date."""
        found = TablesByName(self._listed(client))
        for table, described in self._described.items():
            if described is not None:
                found[table] = _schema(described)
            elif table in found:
                del found[table]
        return found

    def _listed(self, client: Any) -> TablesByName[pa.Schema]:
        with self._lock:
            if self._listing is None:
                self._listing = self._read_listing(client)
            return self._listing

    def _read_listing(self, client: Any) -> TablesByName[pa.Schema]:
        sql = client.sql_client
        catalog = sql.catalog_name()
        rows = sql.execute_sql(
            "SELECT c.table_name, c.column_name, c.full_data_type "
            f"FROM {catalog}.information_schema.columns AS c "
            f"JOIN {catalog}.information_schema.tables AS t "
            "ON t.table_schema = c.table_schema AND t.table_name = c.table_name "
            "WHERE c.table_schema = %s AND t.table_type IN ('MANAGED', 'EXTERNAL') "
            "ORDER BY c.table_name, c.ordinal_position",
            sql.dataset_name.lower(),
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, sql_type in rows or ():
            if not table.startswith("_dlt"):
                found.setdefault(table, []).append((column, sql_type))
        return TablesByName({table: _schema(columns) for table, columns in found.items()})

    def current(self, client: Any, table: str) -> pa.Schema | None:
        """Use DESCRIBE, which is up to date at once; the result is cached until the next
        definition."""
        described = self.described(client, table)
        return None if described is None else _schema(described)

    def described(self, client: Any, table: str) -> Described | None:
        """Return the columns and their SQL types; None if the table does not exist."""
        if table not in self._described:
            try:
                rows = _describe(client, table)
            except Exception as error:
                if not _NOT_FOUND.search(str(root_cause(error))):
                    raise
                self._described[table] = None
            else:
                # A heading precedes everything after the columns.
                columns = itertools.takewhile(lambda row: row[0] and row[0][0] != "#", rows)
                self._described[table] = [(column, kind) for column, kind, *_ in columns]
        return self._described[table]

    def was_dropped(self, client: Any, table: str, error: Exception) -> bool:
        """Whether the error means that somebody has dropped a table that is still listed."""
        if table in self._described or not _NOT_FOUND.search(str(root_cause(error))):
            return False
        return self.current(client, table) is None

    def known(self, client: Any, table: str) -> pa.Schema | None:
        """Return a table's columns. They can be outdated if this run has defined nothing there."""
        if table in self._described:
            return self.current(client, table)
        return self._listed(client).get(table)

    def create(
        self, client: Any, table: str, fields: Sequence[pa.Field], cluster_by: ClusterBy
    ) -> None:
        if not client.is_storage_initialized():
            client.initialize_storage()
        self.define(
            client,
            table,
            f"CREATE TABLE IF NOT EXISTS {qualified(client, table)} ({SPARK.definitions(fields)}) "
            f"{self.layout(fields, cluster_by)}",
        )

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Add columns before those that this library adds, or at their own place among these."""
        self._enable(client, table, fields)
        held = self.current(client, table)
        order = with_columns([] if held is None else held.names, fields)

        def place(name: str) -> str:
            position = order.index(name)
            return f"AFTER {SPARK.quote(order[position - 1])}" if position else "FIRST"

        added = ", ".join(
            f"{SPARK.quote(field.name)} {SPARK.sql_type(field.type)} {place(field.name)}"
            for field in fields
        )
        names = {field.name for field in fields}
        self.alter(client, table, f"ADD COLUMNS ({added})", lambda held: names <= {*held.names})

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        self._enable(client, table, fields, {"delta.enableTypeWidening": "true"})
        for field in fields:
            column = f"{SPARK.quote(field.name)} TYPE {SPARK.sql_type(field.type)}"
            self.alter(client, table, f"ALTER COLUMN {column}")

    def rename_column(self, client: Any, table: str, old: str, new: str) -> None:
        self.set_properties(client, table, COLUMN_MAPPING)
        names = f"{SPARK.quote(old)} TO {SPARK.quote(new)}"
        self.alter(client, table, f"RENAME COLUMN {names}", lambda held: new in held.names)

    def rename_table(self, client: Any, old: str, new: str) -> None:
        self._described.pop(table_name(new), None)
        try:
            self.alter(client, old, f"RENAME TO {qualified(client, new)}")
        except Exception:
            if self.current(client, old) is not None or self.current(client, new) is None:
                raise

    def rename_unrepresentable(self, client: Any, rename: Rename) -> None:
        values = qualified(client, UNREPRESENTABLE_TABLE)
        client.sql_client.execute_sql(unrepresentable_sql.renaming(SPARK, rename, values))

    def forget_unrepresentable(self, client: Any, table: str) -> None:
        values = qualified(client, UNREPRESENTABLE_TABLE)
        client.sql_client.execute_sql(unrepresentable_sql.forgetting(SPARK, table, values))

    def _enable(
        self,
        client: Any,
        table: str,
        fields: Iterable[pa.Field],
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Set the properties that such columns need; only new tables have them already."""
        fields = list(fields)
        properties = {**(more or {}), **_features(fields)}
        if any(field.type == JSON for field in fields):
            properties |= _VARIANT
        if properties:
            self.set_properties(client, table, properties)

    def layout(
        self,
        fields: Sequence[pa.Field],
        cluster_by: ClusterBy,
        more: Mapping[str, str] | None = None,
        comment: str = "",
    ) -> str:
        """Return the clauses of a new table's definition: clustering, comment, properties."""
        properties = {**(more or {}), **_PROPERTIES, **_features(fields)}
        if self._catalog_commits:
            properties |= CATALOG_COMMITS
        cluster = clustering(fields, cluster_by)
        said = f"COMMENT {SPARK.literal(comment)} " if comment else ""
        return f"{cluster}{said}TBLPROPERTIES ({_pairs(properties)})"

    def set_properties(self, client: Any, table: str, properties: Mapping[str, str]) -> None:
        self.alter(client, table, f"SET TBLPROPERTIES ({_pairs(properties)})")

    def alter(
        self,
        client: Any,
        table: str,
        change: str,
        is_done: Callable[[pa.Schema], bool] | None = None,
    ) -> None:
        """Alter the table. If a retry after success would fail, `is_done` detects that case."""
        try:
            self.define(client, table, f"ALTER TABLE {qualified(client, table)} {change}")
        except Exception:
            if is_done is None:
                raise
            held = self.current(client, table)
            if held is None or not is_done(held):
                raise

    def created(self, table: str, fields: Iterable[pa.Field]) -> None:
        """Note the columns of a table that was just created."""
        self._described[table] = [(f.name, SPARK.sql_type(f.type)) for f in fields]

    def define(self, client: Any, table: str, statement: str) -> None:
        """Run a statement that changes the table's definition."""
        try:
            client.sql_client.execute_sql(statement)
        finally:
            self._described.pop(table_name(table), None)


def qualified(client: Any, table: str) -> str:
    return f"{client.sql_client.fully_qualified_dataset_name()}.{SPARK.quote(table_name(table))}"


def _describe(client: Any, table: str) -> Sequence[tuple[str, ...]]:
    return client.sql_client.execute_sql(f"DESCRIBE TABLE {qualified(client, table)}") or ()


def clustered_by(client: Any, table: str) -> set[str]:
    """Return the columns by which the table is clustered."""
    behind = itertools.dropwhile(
        lambda row: row[0] != "# Clustering Information", _describe(client, table)
    )
    return {name for name, *_ in behind}


def _schema(columns: Described) -> pa.Schema:
    """Return the Arrow schema. A column whose type this library never writes gets the type
    `null`."""
    return pa.schema(
        [pa.field(name, SPARK.arrow_type(kind) or pa.null()) for name, kind in columns]
    )


def _features(fields: Iterable[pa.Field]) -> dict[str, str]:
    """Return the properties that a table needs for such columns."""
    found: dict[str, str] = {}
    for field in fields:
        if column_needs_mapping(field.name):
            found |= COLUMN_MAPPING
        if field.type == pa.timestamp("us"):
            found |= _TIMESTAMP_NTZ
    return found


def clustering(fields: Sequence[pa.Field], cluster_by: ClusterBy) -> str:
    """Return the clause that clusters a table by these columns; empty if none can be used."""
    if cluster_by == "auto":
        return "CLUSTER BY AUTO "
    by_name = {field.name: field.type for field in fields[:STATISTICS_COLUMNS]}
    clustered = [name for name in cluster_by if name in by_name and _clusters(by_name[name])]
    columns = ", ".join(SPARK.quote(name) for name in clustered[:CLUSTERED_COLUMNS])
    return f"CLUSTER BY ({columns}) " if columns else ""


def _clusters(arrow_type: pa.DataType) -> bool:
    """Whether Delta keeps the minimum and maximum of such a column."""
    if arrow_type == JSON or pa.types.is_boolean(arrow_type) or pa.types.is_list(arrow_type):
        return False
    return SPARK.sql_type(arrow_type) != "BINARY"


def _pairs(properties: Mapping[str, str]) -> str:
    return ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
