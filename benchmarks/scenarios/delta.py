"""The same into Delta tables in a folder: changes, a snapshot, and a merge into a large table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.bench import Contender
from benchmarks.ours import IntoDelta, Pgbronze
from benchmarks.scenarios.changes import cdc, compared, prepared
from benchmarks.scenarios.tables import TABLE, filled, snapshot_run
from benchmarks.yardsticks import psql_copy, recvlogical

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import CaseResult

#: The merge changes one row of this many.
MERGE_PART = 100


def delta_inserts(bench: Bench) -> CaseResult:
    workload = data.inserts(bench.rows)
    with prepared(bench, workload, pipeline=IntoDelta) as (ours, end_lsn):
        contenders = [
            recvlogical(bench, end_lsn),
            Contender(
                "pgbronze cdc",
                "Delta tables, merged, checkpointed",
                lambda: cdc(bench, ours, workload),
                bench.repeat,
            ),
        ]
        about = f"{workload.count:,} rows of ten columns inserted in one transaction"
        return bench.measure("delta inserts", about, workload.count, contenders)


def delta_snapshot(bench: Bench) -> CaseResult:
    rows = bench.rows * 5 // 2
    with filled(bench, rows, IntoDelta) as ours:
        contenders = [
            psql_copy(bench, TABLE),
            Contender(
                "pgbronze snapshot",
                "Delta table, checkpointed",
                lambda: snapshot_run(ours),
                bench.repeat,
            ),
        ]
        about = f"{rows:,} rows of ten columns of one table"
        return bench.measure("delta snapshot", about, rows, contenders)


def delta_merge(bench: Bench) -> CaseResult:
    """One row of a hundred changed, all over the table. DuckDB is the yardstick."""
    rows = bench.rows * 5 // 2
    workload = data.scattered_updates(rows, MERGE_PART)
    about = f"{workload.count:,} updates all over a table of {rows:,} rows"
    pipelines = {"DuckDB": Pgbronze, "Delta": IntoDelta}
    return compared(bench, "delta merge", about, workload, pipelines)
