"""Change data capture: the same WAL read by everybody, each from a copy of one slot."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.bench import Contender
from benchmarks.figures import CaseResult, with_ratios
from benchmarks.ours import Pgbronze
from benchmarks.peers.choice import peers_on_changes
from benchmarks.server import COPY, ORIGIN, OUR_SLOT
from benchmarks.yardsticks import recvlogical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.bench import Bench
    from benchmarks.data import Workload
    from benchmarks.figures import Figure, Run

#: It stores the rows that the contender before it wrote; its start does not count.
ALONE = "DuckDB alone, from Arrow batches"
DUCKDB_FILE = "DuckDB file, rows only"


@contextmanager
def prepared(
    bench: Bench,
    workload: Workload,
    *,
    marked: bool = True,
    pipeline: Callable[[Bench], Pgbronze] = Pgbronze,
) -> Iterator[tuple[Pgbronze, str]]:
    """Tables, snapshot, then the changes: the pipeline as it was before them, and their end LSN.

    If `marked`, a commit past the end follows them: it is what ends a reader that stops at the
    first commit at or past a position. It is a row of a table of its own.
    """
    server, ours = bench.server, pipeline(bench)
    server.clear()
    ours.forget()
    server.sql("CREATE TABLE bench_end (id bigint PRIMARY KEY)", *workload.before)
    ours.run("snapshot")
    ours.save()
    server.copy_slot(OUR_SLOT, ORIGIN)
    server.drop_slot(OUR_SLOT)
    server.sql(*workload.changes)
    end_lsn = server.flushed()
    if marked:
        server.sql("INSERT INTO bench_end VALUES (1)")
    try:
        yield ours, end_lsn
    finally:
        server.clear()
        ours.forget()


def cdc(bench: Bench, ours: Pgbronze, workload: Workload) -> Run:
    """From the lake and the slot as they were before the changes; the tables are compared."""
    ours.restore()
    bench.server.copy_slot(ORIGIN, OUR_SLOT)
    run = ours.run("cdc")
    ours.require_equal(workload.total, workload.tables)
    return run


def wal_to_parquet(bench: Bench, ours: Pgbronze) -> Run:
    bench.server.copy_slot(ORIGIN, COPY)
    run = ours.to_parquet("wal")
    bench.server.drop_slot(COPY)
    # The commit past the end is one more.
    return run.of_rows(ours.parquet_rows() - 1)


def changes_case(
    bench: Bench,
    name: str,
    about: str,
    workload: Workload,
    peers: Callable[[Bench, Workload], list[Contender]] = peers_on_changes,
    *,
    alone: bool = False,
) -> CaseResult:
    """`alone`: also what DuckDB alone needs to store the rows, where all of them stay."""
    with prepared(bench, workload) as (ours, end_lsn):
        contenders = [
            recvlogical(bench, end_lsn),
            Contender(
                "pgbronze cdc",
                "DuckDB tables, merged, checkpointed",
                lambda: cdc(bench, ours, workload),
                bench.repeat,
            ),
            Contender(
                "pgbronze, WAL to Parquet alone",
                "typed Parquet",
                lambda: wal_to_parquet(bench, ours),
                bench.repeat,
            ),
            *([Contender(ALONE, DUCKDB_FILE, ours.duckdb_alone, bench.repeat)] if alone else []),
            *peers(bench, workload),
        ]
        return bench.measure(name, f"{workload.count:,} {about}", workload.count, contenders)


def compared(
    bench: Bench,
    name: str,
    about: str,
    workload: Workload,
    pipelines: Mapping[str, Callable[[Bench], Pgbronze]],
) -> CaseResult:
    """The same changes through several pipelines, each with a snapshot of its own; the first is the
    baseline."""
    figures: list[Figure] = []
    for kind, pipeline in pipelines.items():
        with prepared(bench, workload, marked=False, pipeline=pipeline) as (ours, _):
            run = partial(cdc, bench, ours, workload)
            contender = Contender(
                f"pgbronze cdc, {kind}", "merged, checkpointed", run, bench.repeat
            )
            figures += bench.measure(name, about, workload.count, [contender]).figures
    return CaseResult(name, about, with_ratios(figures))


def no_peers(bench: Bench, workload: Workload) -> list[Contender]:  # noqa: ARG001 - as others
    return []


def inserts(bench: Bench) -> CaseResult:
    about = "rows of ten columns inserted in one transaction"
    return changes_case(bench, "inserts", about, data.inserts(bench.rows), alone=True)


def backlog(bench: Bench) -> CaseResult:
    """The same rows as an ordinary backlog: no transaction is large."""
    about = "rows of ten columns inserted in 20 transactions"
    workload = data.inserts(bench.rows, max(1, bench.rows // 20))
    return changes_case(bench, "backlog", about, workload, alone=True)


def hot_updates(bench: Bench) -> CaseResult:
    about = "updates of 10,000 keys, all of them in each transaction"
    return changes_case(bench, "hot updates", about, data.hot_updates(bench.rows))


def tiny_transactions(bench: Bench) -> CaseResult:
    about = "transactions of one inserted row"
    return changes_case(
        bench, "tiny transactions", about, data.tiny_transactions(max(1, bench.rows // 4))
    )


def mixed(bench: Bench) -> CaseResult:
    """What others publish; rows/s are commits/s. Peers were not made for it."""
    about = f"commits of one row in {data.MIXED_TABLES} tables: 20 % inserts, 60 % updates, "
    about += "20 % deletes"
    return changes_case(bench, "mixed", about, data.mixed(max(10, bench.rows // 2)), no_peers)


def wide_rows(bench: Bench) -> CaseResult:
    about = f"rows of {data.WIDE_COLUMNS} columns inserted in one transaction"
    return changes_case(
        bench, "wide rows", about, data.wide_rows(max(1, bench.rows // 20)), alone=True
    )


def long_texts(bench: Bench) -> CaseResult:
    about = f"rows with a text of {data.TEXT_BYTES:,} bytes inserted in one transaction"
    return changes_case(
        bench, "long texts", about, data.long_texts(max(1, bench.rows // 10)), alone=True
    )


def many_tables(bench: Bench) -> CaseResult:
    about = f"rows inserted into {data.TABLES} tables by turns, 1,000 a transaction"
    return changes_case(bench, "many tables", about, data.many_tables(bench.rows // 2), alone=True)


def giant_transaction(bench: Bench) -> CaseResult:
    """Peers are left out: their memory at less is in the case of inserts."""
    return _giant(bench, "giant transaction", bench.rows * 5 // 2)


def giant_transaction_twice(bench: Bench) -> CaseResult:
    """Is memory bounded, whatever the transaction's size?"""
    return _giant(bench, "giant transaction twice", bench.rows * 5)


def _giant(bench: Bench, name: str, rows: int) -> CaseResult:
    about = "rows inserted in one transaction"
    return changes_case(bench, name, about, data.inserts(rows), no_peers)
