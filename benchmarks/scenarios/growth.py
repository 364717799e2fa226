"""Whether cost grows linearly: the exponent k of `cost = a * rows ** k`, fitted over four sizes.

What a run pays once makes small sizes look dear and the exponent too good, so what a run of a few
rows takes is taken off. Of whole runs that is too much at small sizes, as the server decodes while
the program still starts: they are measured once more in processes that have imported what they
need, and in CPU seconds, of which nothing hides.
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
from benchmarks.ours import Imported, Pgbronze
from benchmarks.scenarios.changes import cdc, prepared
from benchmarks.scenarios.tables import filled, snapshot_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.bench import Bench
    from benchmarks.figures import Figure, Run


#: So many that a run does all that it does for many, and none of it takes time.
FEW_ROWS = 1_000

#: The sizes in halves of `--rows`.
SIZES = (1, 2, 4, 8)


def growth_of_cdc(bench: Bench) -> CaseResult:
    transaction = max(1, bench.rows // 20)

    @contextmanager
    def ready(rows: int) -> Iterator[Callable[[Pgbronze], Run]]:
        workload = data.inserts(rows, transaction)
        with prepared(bench, workload, marked=False):
            yield lambda ours: cdc(bench, ours, workload)

    about = f"inserted rows, {transaction:,} a transaction, at growing sizes"
    return _growth(bench, "growth cdc", "pgbronze cdc", about, ready)


def growth_of_snapshot(bench: Bench) -> CaseResult:
    @contextmanager
    def ready(rows: int) -> Iterator[Callable[[Pgbronze], Run]]:
        with filled(bench, rows):
            yield snapshot_run

    about = "rows of one table at growing sizes"
    return _growth(bench, "growth snapshot", "pgbronze snapshot", about, ready)


def _growth(
    bench: Bench,
    case: str,
    contender: str,
    about: str,
    ready: Callable[[int], AbstractContextManager[Callable[[Pgbronze], Run]]],
) -> CaseResult:
    whole, imported = Pgbronze(bench), Imported(bench)
    figures: list[Figure] = []
    for rows in (FEW_ROWS, *(bench.rows * times // 2 for times in SIZES)):
        with ready(rows) as run:
            names = {f"{contender}, {rows:,} rows": whole, "the same, once imported": imported}
            contenders = [
                Contender(name, "DuckDB table", partial(run, ours), bench.repeat)
                for name, ours in names.items()
            ]
            figures += bench.measure(case, about, rows, contenders).figures
    figures = [replace(figure, ratio=None) for figure in figures]
    return CaseResult(case, about, figures, exponents(figures[::2], figures[1::2]))


def exponents(whole: Sequence[Figure], imported: Sequence[Figure]) -> dict[str, float]:
    """By name. Both begin with the figure of a few rows."""
    rows = [figure.rows for figure in whole[1:]]
    without = f"without those of {whole[0].rows:,} rows"

    def of(figures: Sequence[Figure], cost: Callable[[Figure], float]) -> float:
        few, *costs = map(cost, figures)
        return exponent(rows, costs, few)

    def cpu_seconds(figure: Figure) -> float:
        return figure.cpu_seconds + figure.server_cpu_seconds

    return {
        f"exponent of seconds, once imported, {without}": of(imported, lambda f: f.seconds),
        f"exponent of CPU seconds, the server's too, {without}": of(whole, cpu_seconds),
        f"exponent of seconds, {without}": of(whole, lambda f: f.seconds),
        "exponent of seconds": exponent(rows, [figure.seconds for figure in whole[1:]]),
    }


def exponent(rows: Sequence[int], costs: Sequence[float], fixed: float = 0.0) -> float:
    """Least squares on logarithms; not a number where a size cost no more than `fixed`."""
    growing = np.array(costs) - fixed
    if (growing <= 0).any():
        return float("nan")
    return round(float(np.polyfit(np.log(rows), np.log(growing), 1)[0]), 3)
