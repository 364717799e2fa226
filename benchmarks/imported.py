"""A command in a process that has imported what it needs, as a service that embeds the library has.

Run: python -m benchmarks.imported ARGUMENT…, those of the command. The last line that it prints is
the command's seconds.
"""

from __future__ import annotations

import importlib
import sys
import time

#: What a run into DuckDB imports late.
MODULES = (
    "adapters.dlt_destination.duckdb.store",
    "adapters.pgoutput.changes.change_source",
    "adapters.pgoutput.snapshot.snapshot_source",
    "adbc_driver_postgresql.dbapi",
    "dlt.destinations.impl.duckdb.duck",
    "duckdb",
    "entrypoints.cli.commands",
    "entrypoints.container",
    "entrypoints.output.progress",
    "pyarrow.compute",
    "pyarrow.parquet",
)


def main(arguments: list[str]) -> int:
    for module in MODULES:
        importlib.import_module(module)
    command = importlib.import_module("entrypoints.cli.main").main
    started = time.perf_counter()
    code: int = command(arguments)
    print(time.perf_counter() - started)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
