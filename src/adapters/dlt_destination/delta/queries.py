"""SQL over the files of Delta tables: DuckDB runs what delta-rs cannot.

Memory is bounded: DuckDB spills to the run's folder, and writes its result to a Parquet file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from adapters.dlt_destination.duckdb.memory import MemoryLimit
from adapters.dlt_destination.sql.dialect import DUCKDB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

#: DuckDB's memory at first. Beyond it, DuckDB spills.
MEMORY_MB = 512

#: The name of staged rows in a query.
STAGED = "staged"


def relation(table: str) -> str:
    """Return the relation of a Delta table in a query. Its dataset is registered as `of(table)`."""
    return DUCKDB.quote(of(table))


def union(relations: Iterable[str]) -> str:
    """Return the rows of all these registered relations."""
    found = " UNION ALL ".join(f"SELECT * FROM {DUCKDB.quote(name)}" for name in relations)
    return f"({found})"


def of(table: str) -> str:
    return f"table {table}"


def result_file(
    sql: str, folder: Path, staged: Sequence[Path], relations: Mapping[str, Any]
) -> Path:
    """Run a query; return the Parquet file with its result, in `folder`. `relations` are Arrow
    datasets by their name in the query."""
    import duckdb

    target = folder / f"query-{uuid4().hex}.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
        memory = MemoryLimit()
        memory.at_least(connection, MEMORY_MB)
        connection.execute("SET temp_directory = ?", [str(folder / "spill")])
        if staged:
            rows = connection.read_parquet([str(path) for path in staged], hive_partitioning=False)
            connection.register(STAGED, rows)
        for name, dataset in relations.items():
            connection.register(name, dataset)
        memory.within(
            connection,
            lambda: connection.execute(f"COPY ({sql}) TO '{target}' (FORMAT parquet)"),
        )
    return target
