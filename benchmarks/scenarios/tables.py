"""Snapshot: one table read whole, by everybody who reads tables."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.bench import Contender
from benchmarks.ours import Pgbronze
from benchmarks.peers.choice import peers_on_table
from benchmarks.scenarios.changes import ALONE, DUCKDB_FILE
from benchmarks.yardsticks import psql_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench
    from benchmarks.figures import CaseResult, Run

TABLE = "orders"


@contextmanager
def filled(
    bench: Bench, rows: int, pipeline: Callable[[Bench], Pgbronze] = Pgbronze
) -> Iterator[Pgbronze]:
    """The table with its rows, vacuumed, so that no reader pays for the first visit."""
    ours = pipeline(bench)
    bench.server.clear()
    bench.server.sql(
        data.ORDERS.format(table=TABLE), data.orders_rows(1, rows), f"VACUUM ANALYZE {TABLE}"
    )
    try:
        yield ours
    finally:
        bench.server.clear()
        ours.forget()


def snapshot_run(ours: Pgbronze) -> Run:
    """The first snapshot of a pipeline: slot, publication, checkpoint and all."""
    ours.forget()
    run = ours.run("snapshot")
    ours.require_equal("SELECT count(*), sum(quantity) FROM {table}", [TABLE])
    return run


def table_to_parquet(ours: Pgbronze) -> Run:
    run = ours.to_parquet("snapshot")
    return run.of_rows(ours.parquet_rows())


def snapshot(bench: Bench) -> CaseResult:
    rows = bench.rows * 5 // 2
    with filled(bench, rows) as ours:
        contenders = [
            psql_copy(bench, TABLE),
            Contender(
                "pgbronze snapshot",
                "DuckDB table, checkpointed",
                lambda: snapshot_run(ours),
                bench.repeat,
            ),
            Contender(
                "pgbronze, table to Parquet alone",
                "typed Parquet",
                lambda: table_to_parquet(ours),
                bench.repeat,
            ),
            Contender(ALONE, DUCKDB_FILE, ours.duckdb_alone, bench.repeat),
            *peers_on_table(bench, TABLE, rows),
        ]
        about = f"{rows:,} rows of ten columns of one table"
        return bench.measure("snapshot", about, rows, contenders)
