"""The parts of dlt's Databricks client that `adapters.dlt_destination.databricks` builds on.

Source: dlt, `dlt.destinations.impl.databricks`, `dlt.destinations.job_client_impl`.
"""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
from dlt.common.destination.client import RunnableLoadJob
from dlt.destinations.impl.databricks.configuration import DatabricksCredentials
from dlt.destinations.impl.databricks.sql_client import DatabricksCursorImpl, DatabricksSqlClient
from dlt.destinations.sql_client import raise_database_error

__all__ = [
    "DatabricksCredentials",
    "DatabricksCursorImpl",
    "DatabricksSqlClient",
    "InsertState",
    "raise_database_error",
]


class InsertState(RunnableLoadJob):
    """Write dlt's state with one INSERT; dlt uses a file and five statements."""

    def run(self) -> None:
        client: Any = self._job_client
        table = client.sql_client.make_qualified_table_name(self.load_table_name)
        rows = pq.read_table(self._file_path)
        names = ", ".join(client.sql_client.escape_column_name(name) for name in rows.column_names)
        places = ", ".join(["%s"] * len(rows.column_names))
        for row in rows.to_pylist():
            run = (
                client.sql_client.execute_sql
                if client.store.block is None
                else client.store.block.add
            )
            run(f"INSERT INTO {table} ({names}) VALUES ({places})", *row.values())
