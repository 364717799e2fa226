"""One table read by Spark, next to one process and to Spark's own JDBC reader."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Contender, NotMeasured
from benchmarks.ours import ROOT, parquet_rows
from benchmarks.scenarios.tables import TABLE, filled
from benchmarks.spark_read import JDBC

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import CaseResult, Run
    from benchmarks.ours import Pgbronze


def _read(bench: Bench, ours: Pgbronze, way: str) -> Run:
    """Seconds count from a started Spark. CPU time and memory include Java, its start and all
    workers."""
    if way == "jdbc" and not JDBC.exists():
        raise NotMeasured(f"{JDBC} is missing: apt-get install libpostgresql-jdbc-java")
    folder = bench.empty("parquet")
    command = [sys.executable, "-m", "benchmarks.spark_read", way, TABLE, str(folder)]
    run, output = bench.weigh(command, ours.environment | {"PYTHONPATH": str(ROOT)})
    return replace(run, seconds=float(output.split()[-1])).of_rows(parquet_rows(folder))


def spark(bench: Bench) -> CaseResult:
    rows = bench.rows * 5 // 2
    with filled(bench, rows) as ours:
        bench.server.sql("CREATE PUBLICATION dlt_cdc_pub FOR TABLE orders")
        ways = {
            "pgbronze, one process": ("copy", False),
            "pgbronze, snapshot_reader = spark": ("workers", False),
            "pgbronze, spark.read": ("dataframe", False),
            "Spark's JDBC reader, four partitions": ("jdbc", True),
        }
        contenders = [
            Contender(
                name,
                "typed Parquet",
                partial(_read, bench, ours, way),
                bench.repeat,
                peer=peer,
            )
            for name, (way, peer) in ways.items()
        ]
        about = f"{rows:,} rows of ten columns of one table, from a started Spark with two workers"
        return bench.measure("spark", about, rows, contenders)
