"""Receipts of runs in a DuckDB file: one transaction each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.sql.dialect import DUCKDB
from cdc_core.values.runs import (
    RUN_TABLES_SCHEMA,
    RUN_TABLES_TABLE,
    RUNS_SCHEMA,
    RUNS_TABLE,
    receipts_as_rows,
    receipts_of_rows,
    run_tables_as_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pyarrow as pa

    from cdc_core.values.runs import RunReceipt, RunTable

#: The name of the incoming rows in a statement.
ROWS = "pgbronze_receipt"


def write_receipt(
    client: Any, receipt: RunReceipt, tables: Sequence[RunTable], forget_before: datetime | None
) -> None:
    sql = client.sql_client
    with sql.begin_transaction():
        _append(client, RUNS_TABLE, RUNS_SCHEMA, receipts_as_rows([receipt]))
        _append(client, RUN_TABLES_TABLE, RUN_TABLES_SCHEMA, run_tables_as_rows(tables))
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


def _append(client: Any, table: str, schema: pa.Schema, rows: pa.Table) -> None:
    connection, name = client.sql_client.native_connection, _name(client, table)
    columns = ", ".join(f"{DUCKDB.quote(f.name)} {DUCKDB.sql_type(f.type)}" for f in schema)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
    if not len(rows):
        return
    connection.register(ROWS, rows)
    try:
        connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM {ROWS}")
    finally:
        connection.unregister(ROWS)


def _forget(client: Any, before: datetime) -> None:
    connection = client.sql_client.native_connection
    runs, tables = _name(client, RUNS_TABLE), _name(client, RUN_TABLES_TABLE)
    old = "ended_at < ?"
    (found,) = connection.execute(f"SELECT EXISTS (FROM {runs} WHERE {old})", [before]).fetchone()
    if found:
        connection.execute(
            f"DELETE FROM {tables} WHERE (run_id, seq) IN "
            f"(SELECT (run_id, seq) FROM {runs} WHERE {old})",
            [before],
        )
        connection.execute(f"DELETE FROM {runs} WHERE {old}", [before])


def _name(client: Any, table: str) -> str:
    return f"{client.sql_client.fully_qualified_dataset_name()}.{DUCKDB.quote(table)}"
