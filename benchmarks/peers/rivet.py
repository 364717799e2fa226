"""rivet-cli: reads a slot by SQL (test_decoding) or a table in ranges, writes Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Contender
from benchmarks.ours import parquet_rows
from benchmarks.peers.environment import Environment
from benchmarks.server import COPY, ORIGIN

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.data import Workload
    from benchmarks.figures import Run

ENVIRONMENT = Environment("rivet", ("rivet-cli==0.32.2",))
NAME = "rivet-cli 0.32.2"
READERS = 2
#: It buffers transactions whole, and by itself refuses one of 2 GB so counted.
MAX_TRANSACTION_BYTES = 16 << 30

_EXPORT = """
source:
  type: postgres
  url_env: RIVET_SOURCE
  tuning:
    profile: fast
exports:
  - name: {table}
    table: {table}
    mode: chunked
    chunk_column: id
    chunk_size: {chunk}
    parallel: {readers}
    format: parquet
    compression: snappy
    destination:
      type: local
      path: {target}
"""


def changes(bench: Bench, workload: Workload) -> list[Contender]:
    """Files take one table; of several the changes go to the standard output."""
    one = len(workload.tables) == 1
    produces = "Parquet" if one else "JSON lines"

    def run() -> Run:
        bench.server.copy_slot(ORIGIN, COPY, "test_decoding")
        target = bench.empty("rivet")
        command = [
            str(ENVIRONMENT.bin(bench.cache) / "rivet"), "cdc", "--source-env", "RIVET_SOURCE",
            "--slot", COPY,
        ]  # fmt: skip
        for table in workload.tables:
            command += ["--table", table]
        if one:
            command += ["--output", str(target)]
        try:
            measured, printed = bench.weigh(command, _source(bench), bench.peer_limit_seconds)
        finally:
            bench.server.drop_slot(COPY)
        rows = parquet_rows(target) if one else printed.count('"op"')
        return measured.of_rows(rows)

    return [Contender(NAME, produces, run, bench.peer_repeat, peer=True)]


def tables(bench: Bench, table: str, rows: int) -> list[Contender]:
    def run() -> Run:
        target = bench.empty("rivet")
        config = bench.folder / "rivet.yaml"
        config.write_text(
            _EXPORT.format(table=table, chunk=max(1000, rows // 10), readers=READERS, target=target)
        )
        command = [str(ENVIRONMENT.bin(bench.cache) / "rivet"), "run", "--config", str(config)]
        measured, _ = bench.weigh(command, _source(bench), bench.peer_limit_seconds)
        return measured.of_rows(parquet_rows(target))

    return [
        Contender(f"{NAME}, fast, {READERS} readers", "Parquet", run, bench.peer_repeat, peer=True)
    ]


def _source(bench: Bench) -> dict[str, str]:
    return {
        "RIVET_SOURCE": bench.server.dsn,
        "RIVET_CDC_MAX_TX_BYTES": str(MAX_TRANSACTION_BYTES),
    }
