"""PostgreSQL's own programs: the upper limit for a streaming reader and for a table reader."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.bench import Contender
from benchmarks.server import COPY, ORIGIN, PUBLICATION

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import Run


def recvlogical(bench: Bench, end_lsn: str) -> Contender:
    """The walsender's bytes to a file, up to the first commit at or past `end_lsn`."""
    return Contender(
        "pg_recvlogical", "raw bytes in a file", lambda: _recvlogical(bench, end_lsn), bench.repeat
    )


def psql_copy(bench: Bench, table: str) -> Contender:
    """The table's rows as `COPY` sends them, thrown away."""
    return Contender(
        "psql COPY (FORMAT binary)", "nothing", lambda: _psql_copy(bench, table), bench.repeat
    )


def _recvlogical(bench: Bench, end_lsn: str) -> Run:
    bench.server.copy_slot(ORIGIN, COPY)
    raw = bench.folder / "raw"
    run, _ = bench.weigh(
        [
            bench.server.program("pg_recvlogical"), "-d", bench.server.dsn, "--slot", COPY,
            "--start", "-o", "proto_version=1", "-o", f"publication_names={PUBLICATION}",
            "--endpos", end_lsn, "--no-loop", "-f", str(raw),
        ]
    )  # fmt: skip
    raw.unlink()
    bench.server.drop_slot(COPY)
    return run


def _psql_copy(bench: Bench, table: str) -> Run:
    return bench.weigh(
        [
            bench.server.program("psql"), "-X", "-d", bench.server.dsn,
            "-c", f"COPY {table} TO STDOUT (FORMAT binary)", "-o", os.devnull,
        ]
    )[0]  # fmt: skip
