"""Receipts of runs in a DuckDB file: one transaction each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.sql.dialect import DUCKDB
from cdc_core.values.runs import (
    RUN_TABLES_SCHEMA,
    RUN_TABLES_TABLE,
    RUNS_SCHEMA,
    RUNS_TABLE,
    receipts_of_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cdc_core.values.runs import RunReceipt, RunTable

#: The name of the incoming rows in a statement.
ROWS = "pgbronze_receipt"
#: Up to this number, rows are parameters: to register an Arrow table takes longer.
FEW_ROWS = 20


def write_receipt(
    client: Any, receipt: RunReceipt, tables: Sequence[RunTable], forget_before: datetime | None
) -> None:
    with client.sql_client.begin_transaction():
        _append(client, RUNS_TABLE, RUNS_SCHEMA, [receipt])
        _append(client, RUN_TABLES_TABLE, RUN_TABLES_SCHEMA, tables)
        if forget_before is not None:
            _forget(client, forget_before)


def receipts(client: Any, limit: int) -> list[RunReceipt]:
    import duckdb

    newest = f"ORDER BY ended_at DESC, seq DESC LIMIT {limit}"
    try:
        found = client.sql_client.native_connection.sql(
            f"SELECT * FROM {_name(client, RUNS_TABLE)} {newest}"
        )
    except duckdb.CatalogException:
        return []
    return receipts_of_rows(found.to_arrow_table())


def _append(
    client: Any, table: str, schema: pa.Schema, rows: Sequence[RunReceipt | RunTable]
) -> None:
    connection, name = client.sql_client.native_connection, _name(client, table)
    defined = ", ".join(f"{DUCKDB.quote(f.name)} {DUCKDB.sql_type(f.type)}" for f in schema)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({defined})")
    columns = ", ".join(map(DUCKDB.quote, schema.names))
    insert = f"INSERT INTO {name} ({columns})"
    if len(rows) > FEW_ROWS:
        connection.register(ROWS, pa.Table.from_pylist([*map(vars, rows)], schema=schema))
        connection.execute(f"{insert} SELECT {columns} FROM {ROWS}")
        connection.unregister(ROWS)
    elif rows:
        holders = ", ".join([f"({', '.join('?' * len(schema))})"] * len(rows))
        values = [getattr(row, column) for row in rows for column in schema.names]
        connection.execute(f"{insert} VALUES {holders}", values)


def _forget(client: Any, before: datetime) -> None:
    connection = client.sql_client.native_connection
    runs, tables = _name(client, RUNS_TABLE), _name(client, RUN_TABLES_TABLE)
    old = "ended_at < ?"
    old_ones = f"SELECT EXISTS (FROM {runs} WHERE {old})"
    ((found,),) = connection.execute(old_ones, [before]).fetchall()
    if found:
        connection.execute(
            f"DELETE FROM {tables} WHERE (run_id, seq) IN "
            f"(SELECT (run_id, seq) FROM {runs} WHERE {old})",
            [before],
        )
        connection.execute(f"DELETE FROM {runs} WHERE {old}", [before])


def _name(client: Any, table: str) -> str:
    return f"{client.sql_client.fully_qualified_dataset_name()}.{DUCKDB.quote(table)}"
