"""What each command costs by the number of tables, all of which are small.

`rows` counts tables here, so rows/s are tables per second.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.bench import Contender
from benchmarks.figures import CaseResult
from benchmarks.ours import Pgbronze

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench
    from benchmarks.figures import Run

#: Of the rows of all cases: 1,000 tables for the record.
TABLES_PART = 2_000


def small_tables(bench: Bench) -> CaseResult:
    count = max(1, bench.rows // TABLES_PART)
    with _filled(bench, count) as ours:
        runs: dict[str, Callable[[], Run]] = {
            "snapshot": partial(_snapshot, ours),
            "status": partial(ours.run, "status"),
            "check": partial(ours.run, "check"),
            "cdc, nothing changed": partial(ours.run, "cdc"),
            "cdc, a row of each table changed": partial(_cdc, bench, ours, count),
            "verify": partial(ours.run, "verify"),
        }
        contenders = [
            Contender(f"pgbronze {name}", "DuckDB tables", run, bench.repeat)
            for name, run in runs.items()
        ]
        figures = bench.measure("small tables", "", count, contenders).figures
    about = f"each command over {count:,} tables of {data.SMALL_ROWS} rows; rows/s are tables/s"
    return CaseResult("small tables", about, [replace(figure, ratio=None) for figure in figures])


@contextmanager
def _filled(bench: Bench, count: int) -> Iterator[Pgbronze]:
    ours, server = Pgbronze(bench), bench.server
    server.clear()
    server.sql(data.small_tables(count), "ANALYZE")
    try:
        yield ours
    finally:
        server.sql(data.without_small_tables(count))
        server.clear()
        ours.forget()


def _snapshot(ours: Pgbronze) -> Run:
    ours.forget()
    return ours.run("snapshot")


def _cdc(bench: Bench, ours: Pgbronze, count: int) -> Run:
    bench.server.sql(data.change_small_tables(count))
    run = ours.run("cdc")
    ours.require_equal("SELECT count(*), sum(quantity) FROM {table}", [data.small_table(count)])
    return run
