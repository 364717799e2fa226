"""What the log of a table costs: the same changes with and without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.ours import Pgbronze, WithLog
from benchmarks.scenarios.changes import compared

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import CaseResult

_PIPELINES = {"without": Pgbronze, 'history = ["log"]': WithLog}


def history_inserts(bench: Bench) -> CaseResult:
    workload = data.inserts(bench.rows)
    about = f"{workload.count:,} rows of ten columns inserted in one transaction"
    return compared(bench, "history inserts", about, workload, _PIPELINES)


def history_updates(bench: Bench) -> CaseResult:
    """Every image of the hot keys is kept, where the table itself keeps one row of each key."""
    workload = data.hot_updates(bench.rows)
    about = f"{workload.count:,} updates of 10,000 keys, all of them in each transaction"
    return compared(bench, "history updates", about, workload, _PIPELINES)
