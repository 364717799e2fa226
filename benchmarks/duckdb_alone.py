"""Store the rows of Parquet files in a new DuckDB file, with DuckDB alone, and print what it took.

Run: python -m benchmarks.duckdb_alone FOLDER FILE. Prints the seconds and the CPU seconds from the
open file to the closed one, imports left out: no destination in DuckDB can be faster. Each table's
files are in a folder of its name, or named `<table>-<number>.parquet`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from adapters.dlt_destination.duckdb.memory import MemoryLimit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Rows of an Arrow batch.
BATCH_ROWS = 16_384


def store(folder: Path, file: Path) -> tuple[float, float]:
    tables: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        tables.setdefault(path.stem.rpartition("-")[0], []).append(path)
    began, used = time.perf_counter(), time.process_time()
    with duckdb.connect(file) as connection:
        # As pgbronze opens it.
        for name, value in MemoryLimit().settings(None).items():
            connection.execute(f"SET GLOBAL {name} = ?", [value])
        for table, paths in tables.items():
            schema = pq.read_schema(paths[0])
            connection.register("rows", pa.RecordBatchReader.from_batches(schema, _batches(paths)))
            connection.execute(f'CREATE TABLE "{table}" AS SELECT * FROM rows')
            connection.unregister("rows")
        connection.execute("CHECKPOINT")
    return time.perf_counter() - began, time.process_time() - used


def _batches(paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS)


if __name__ == "__main__":
    print(*store(Path(sys.argv[1]), Path(sys.argv[2])))
