"""The client's part of changes into Databricks, with a sink in the place of the volume."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.bench import Contender
from benchmarks.ours import ROOT, Pgbronze
from benchmarks.scenarios.changes import prepared
from benchmarks.server import ORIGIN, OUR_SLOT
from benchmarks.upload import Sink
from benchmarks.yardsticks import recvlogical

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.data import Workload
    from benchmarks.figures import CaseResult, Run


def databricks_inserts(bench: Bench) -> CaseResult:
    about = "rows of ten columns inserted in one transaction; the client's part"
    return _client_case(bench, "databricks inserts", about, data.inserts(bench.rows))


def databricks_hot_updates(bench: Bench) -> CaseResult:
    about = "updates of 10,000 keys, all of them in each transaction; the client's part"
    return _client_case(bench, "databricks hot updates", about, data.hot_updates(bench.rows))


def _client_case(bench: Bench, name: str, about: str, workload: Workload) -> CaseResult:
    with prepared(bench, workload) as (ours, end_lsn), Sink() as sink:
        contenders = [
            recvlogical(bench, end_lsn),
            Contender(
                "pgbronze, up to the volume",
                "one row per key in Parquet, uploaded",
                lambda: _upload(bench, ours, sink.url),
                bench.repeat,
            ),
        ]
        case = bench.measure(name, f"{workload.count:,} {about}", workload.count, contenders)
        # The same bytes in each run.
        rows = workload.count * max(1, bench.repeat)
        case.values["bytes uploaded per changed row"] = round(sink.received / rows, 1)
        return case


def _upload(bench: Bench, ours: Pgbronze, url: str) -> Run:
    """From the checkpoint and the slot as they were before the changes."""
    ours.restore()
    bench.server.copy_slot(ORIGIN, OUR_SLOT)
    command = [sys.executable, "-m", "benchmarks.upload", url]
    run, output = bench.weigh(command, ours.environment | {"PYTHONPATH": str(ROOT)})
    # The commit past the end may be one more.
    return run.of_rows(int(output.split()[-1]) - 1)
