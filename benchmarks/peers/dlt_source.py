"""dlt's `sql_database` source, which reads tables."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import duckdb

from benchmarks.bench import Contender
from benchmarks.peers.environment import PROGRAMS, Environment

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import Run

#: The same DuckDB and Arrow as ours.
ENVIRONMENT = Environment(
    "dlt",
    (
        "dlt[duckdb,postgres,sql-database]==1.31.0",
        f"duckdb=={version('duckdb')}",
        f"pyarrow=={version('pyarrow')}",
        "numpy",
    ),
)
CHUNK_ROWS = 100_000


def tables(bench: Bench, table: str, rows: int) -> list[Contender]:  # noqa: ARG001 - as others
    def run() -> Run:
        work = bench.empty("dlt")
        lake = work / "peer.duckdb"
        task = {
            "dsn": bench.server.dsn.replace("postgresql:", "postgresql+psycopg2:", 1),
            "table": table,
            "lake": str(lake),
            "work": str(work / "pipelines"),
            "chunk": CHUNK_ROWS,
        }
        program = str(PROGRAMS / "dlt_sql_database.py")
        python = str(ENVIRONMENT.bin(bench.cache) / "python")
        environment = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_PROJECT_DIR": str(work)}
        measured, _ = bench.weigh(
            [python, program, json.dumps(task)], environment, bench.peer_limit_seconds
        )
        with duckdb.connect(str(lake), read_only=True) as connection:
            found = connection.execute(f"SELECT count(*) FROM bronze.{table}").fetchone()
        bench.empty("dlt")
        return measured.of_rows(found[0] if found else 0)

    return [
        Contender(
            "dlt 1.31.0 sql_database, pyarrow", "DuckDB table", run, bench.peer_repeat, peer=True
        )
    ]
