"""dlt's own `sql_database` source, pyarrow backend, into a DuckDB file.

Run by the interpreter of its own environment with one argument, a JSON object: `dsn`, `table`,
`lake` (the file), `work` (dlt's folder), `chunk` (rows a piece).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import dlt
from dlt.sources.sql_database import sql_database


def main(task: dict[str, Any]) -> None:
    pipeline = dlt.pipeline(
        "peer",
        pipelines_dir=task["work"],
        destination=dlt.destinations.duckdb(task["lake"]),
        dataset_name="bronze",
    )
    source = sql_database(
        task["dsn"], table_names=[task["table"]], backend="pyarrow", chunk_size=task["chunk"]
    )
    pipeline.run(source, write_disposition="replace")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
