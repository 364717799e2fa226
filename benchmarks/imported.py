"""Run a command in a process that has already imported its modules, like a service that embeds it.

Run: python -m benchmarks.imported ARGUMENT…, with the arguments of the command. The last line that
it prints is the command's time in seconds.
"""

from __future__ import annotations

import importlib
import sys
import time

#: The modules that a run into DuckDB imports lazily.
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
