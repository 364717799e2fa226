"""Keep what users added to a table when the whole table must be replaced.

`CREATE OR REPLACE TABLE … AS` keeps history and grants. Properties, the comment and users' columns
become part of that statement; everything else is restored right after it. Sources: Databricks SQL
reference, "CREATE TABLE [USING]", "ALTER TABLE", "DESCRIBE TABLE", "INFORMATION_SCHEMA"; Databricks
documentation, "Table properties".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.databricks.unity_names import table_name
from adapters.dlt_destination.sql.dialect import SPARK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CHECK = "delta.constraints."
#: Properties that describe how the table was created, as opposed to a user's choice.
_OF_THE_TABLE = (
    _CHECK,
    "clusterByAuto",
    "clusteringColumns",
    "delta.columnMapping.",
    "delta.feature.",
    "delta.minReaderVersion",
    "delta.minWriterVersion",
    "delta.last",
    "delta.rowTracking.materialized",
    "delta.inCommitTimestamp",
)
_DEFAULTS = "delta.feature.allowColumnDefaults"


@dataclass
class CarryOver:
    """`columns` of users as named expressions, `properties`, the `comment`, and `alterations` of
    the new table, each with a description of what it restores. `lost` cannot be restored."""

    columns: list[str] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    comment: str = ""
    alterations: list[tuple[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def what_others_put_on(
    client: Any,
    table: str,
    described: Sequence[tuple[str, str]],
    ours: Callable[[str], bool],
    stays: Callable[[str], bool],
) -> CarryOver:
    """Read everything that users added. `described` are the table's columns with their SQL types:
    those that are `ours` are written with the rows, of the others the table keeps those that
    `stays` selects."""
    sql = client.sql_client
    name = f"{sql.fully_qualified_dataset_name()}.{SPARK.quote(table_name(table))}"
    (text,), *_ = sql.execute_sql(f"DESCRIBE TABLE EXTENDED {name} AS JSON")
    found = json.loads(text)
    held: Mapping[str, str] = dict(sql.execute_sql(f"SHOW TBLPROPERTIES {name}") or ())
    carried = CarryOver(comment=found.get("comment") or "")
    kept = {column for column, _ in described if ours(column) or stays(column)}
    carried.properties = {
        key: value
        for key, value in held.items()
        if key == _DEFAULTS or not key.startswith(_OF_THE_TABLE)
    }
    details = {column["name"]: column for column in found["columns"]}
    for column, sql_type in described:
        if column not in kept:
            continue
        default = details[column].get("default")
        quoted = SPARK.quote(column)
        if not ours(column):
            carried.columns.append(f"CAST({default or 'NULL'} AS {sql_type}) AS {quoted}")
        of_column = f"of column {column!r}"
        for what, clause in (
            ("comment", _literal("COMMENT ", details[column].get("comment"))),
            ("default", f"SET DEFAULT {default}" if default else ""),
            ("NOT NULL", "" if details[column].get("nullable", True) else "SET NOT NULL"),
        ):
            if clause:
                alteration = f"ALTER COLUMN {quoted} {clause}"
                carried.alterations.append((f"{what} {of_column}", alteration))
    for key, check in held.items():
        if key.startswith(_CHECK):
            constraint = key.removeprefix(_CHECK)
            clause = f"ADD CONSTRAINT {SPARK.quote(constraint)} CHECK ({check})"
            carried.alterations.append((f"constraint {constraint!r}", clause))
    (created,), *_ = sql.execute_sql(f"SHOW CREATE TABLE {name}")
    for column in kept:
        if re.search(rf"`?{re.escape(column)}`?\s+[^,\n]*\bGENERATED\b", created):
            carried.lost.append(f"GENERATED of column {column!r}")
    _catalog_entries(client, table, kept, carried)
    return carried


def _catalog_entries(client: Any, table: str, kept: set[str], carried: CarryOver) -> None:
    """Read tags and row filters from the catalog."""

    def rows(view: str, columns: str, schema: str) -> list[tuple[str, ...]]:
        sql = client.sql_client
        found = sql.execute_sql(
            f"SELECT {columns} FROM {sql.catalog_name()}.information_schema.{view} "
            f"WHERE {schema} = %s AND table_name = %s",
            sql.dataset_name.lower(),
            table_name(table),
        )
        return list(found or ())

    for tag, value in rows("table_tags", "tag_name, tag_value", "schema_name"):
        clause = f"SET TAGS ({SPARK.literal(tag)} = {SPARK.literal(value)})"
        carried.alterations.append((f"tag {tag!r}", clause))
    for column, tag, value in rows(
        "column_tags", "column_name, tag_name, tag_value", "schema_name"
    ):
        if column in kept:
            tags = f"({SPARK.literal(tag)} = {SPARK.literal(value)})"
            clause = f"ALTER COLUMN {SPARK.quote(column)} SET TAGS {tags}"
            carried.alterations.append((f"tag {tag!r} of column {column!r}", clause))
    for function, columns in rows("row_filters", "filter_name, target_columns", "table_schema"):
        clause = f"SET ROW FILTER {function} ON ({columns})"
        carried.alterations.append((f"row filter {function!r}", clause))


def _literal(verb: str, text: str | None) -> str:
    return f"{verb}{SPARK.literal(text)}" if text else ""
