"""Whether cost grows linearly: the exponent k of `seconds = a * rows ** k`, fitted over four sizes.

Two exponents are told: of whole runs as they are, and with the seconds of a run of a few rows taken
off: what a run pays once would make small sizes look dear and the exponent too good.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import data
from benchmarks.bench import Contender
from benchmarks.figures import CaseResult
from benchmarks.scenarios.changes import cdc, prepared
from benchmarks.scenarios.tables import filled, snapshot_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.bench import Bench
    from benchmarks.figures import Figure, Run


#: So many that a run does all that it does for many, and none of it takes time.
FEW_ROWS = 1_000


def growth_of_cdc(bench: Bench) -> CaseResult:
    transaction = max(1, bench.rows // 20)

    @contextmanager
    def ready(rows: int) -> Iterator[Callable[[], Run]]:
        workload = data.inserts(rows, transaction)
        with prepared(bench, workload, marked=False) as (ours, _):
            yield partial(cdc, bench, ours, workload)

    about = f"inserted rows, {transaction:,} a transaction, at growing sizes"
    return _growth(bench, "growth cdc", "wal2delta cdc", about, ready)


def growth_of_snapshot(bench: Bench) -> CaseResult:
    @contextmanager
    def ready(rows: int) -> Iterator[Callable[[], Run]]:
        with filled(bench, rows) as ours:
            yield partial(snapshot_run, ours)

    about = "rows of one table at growing sizes"
    return _growth(bench, "growth snapshot", "wal2delta snapshot", about, ready)


def _growth(
    bench: Bench,
    case: str,
    contender: str,
    about: str,
    ready: Callable[[int], AbstractContextManager[Callable[[], Run]]],
) -> CaseResult:
    figures: list[Figure] = []
    for rows in (FEW_ROWS, *(bench.rows * times // 2 for times in (1, 2, 4, 8))):
        with ready(rows) as run:
            one = Contender(f"{contender}, {rows:,} rows", "DuckDB table", run, bench.repeat)
            figures += bench.measure(case, about, rows, [one]).figures
    figures = [replace(figure, ratio=None) for figure in figures]
    few, sizes = figures[0], figures[1:]
    values = {
        "exponent, whole runs": exponent(sizes),
        f"exponent, without the seconds of {FEW_ROWS:,} rows": exponent(sizes, few.seconds),
    }
    return CaseResult(case, about, figures, values)


def exponent(sizes: Sequence[Figure], fixed_seconds: float = 0.0) -> float:
    """Least squares on logarithms; not a number where a size took no longer than nothing."""
    rows = np.log([float(figure.rows) for figure in sizes])
    seconds = np.array([figure.seconds - fixed_seconds for figure in sizes])
    if (seconds <= 0).any():
        return float("nan")
    return round(float(np.polyfit(rows, np.log(seconds), 1)[0]), 3)
