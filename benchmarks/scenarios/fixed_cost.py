"""What a run costs when there is nothing, or next to nothing, to do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.bench import Contender
from benchmarks.figures import CaseResult
from benchmarks.scenarios.changes import cdc, prepared

if TYPE_CHECKING:
    from benchmarks.bench import Bench

FEW = 10


def fixed_cost(bench: Bench) -> CaseResult:
    figures = []
    for rows in (0, FEW):
        workload = data.inserts(rows)
        with prepared(bench, workload, marked=False) as (ours, _):
            contender = Contender(
                f"pgbronze cdc, {rows} rows changed",
                "DuckDB tables, merged, checkpointed",
                partial(cdc, bench, ours, workload),
                bench.repeat,
            )
            figures += bench.measure("fixed cost", "", rows, [contender]).figures
    about = "whole runs with nothing, or next to nothing, to do"
    return CaseResult("fixed cost", about, [replace(figure, ratio=None) for figure in figures])
