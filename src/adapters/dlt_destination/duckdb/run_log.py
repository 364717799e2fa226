"""Receipts of runs in a DuckDB file: one transaction each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.duckdb.definitions import qualified
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


class DuckDbRunLog:
    """`client` is dlt's open client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def write_receipt(
        self, receipt: RunReceipt, tables: Sequence[RunTable], forget_before: datetime | None
    ) -> None:
        client = self._client
        with client.sql_client.begin_transaction():
            _append(client, RUNS_TABLE, RUNS_SCHEMA, [receipt])
            _append(client, RUN_TABLES_TABLE, RUN_TABLES_SCHEMA, tables)
            if forget_before is not None:
                _forget(client, forget_before)

    def receipts(self, limit: int) -> list[RunReceipt]:
        import duckdb

        newest = f"ORDER BY ended_at DESC, seq DESC LIMIT {limit}"
        try:
            found = self._client.sql_client.native_connection.sql(
                f"SELECT * FROM {qualified(self._client, RUNS_TABLE)} {newest}"
            )
        except duckdb.CatalogException:
            return []
        return receipts_of_rows(found.to_arrow_table())


def _append(
    client: Any, table: str, schema: pa.Schema, rows: Sequence[RunReceipt | RunTable]
) -> None:
    connection, name = client.sql_client.native_connection, qualified(client, table)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({DUCKDB.definitions(schema)})")
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
    runs, tables = qualified(client, RUNS_TABLE), qualified(client, RUN_TABLES_TABLE)
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
