"""Commit to visible, in `cdc --follow` under a steady load of small transactions.

A commit's time is when it returned to the application. It counts as visible when the slot's
`confirmed_flush_lsn` is first seen at or past it: pgbronze moves the slot only after the
destination has durably committed, so each latency is an upper bound, by the feedback's way and the
poll. When all is over the tables are compared. The load and the polling run on the same machine.
"""

from __future__ import annotations

import bisect
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import psycopg

from benchmarks import data
from benchmarks.figures import CaseResult, Run, figure
from benchmarks.ours import Pgbronze
from benchmarks.processes import CommandFailed, MemoryWatch
from benchmarks.server import OUR_SLOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

CHANGES_PER_SECOND = 500
MORE_PER_SECOND = 2_000
POLL_SECONDS = 0.01
#: The load has run for this part of its time before its latencies count.
WARM_PART = 0.1
PATIENCE_SECONDS = 60.0
KEYS = 10_000

_LSN = "pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
_CONFIRMED = "confirmed_flush_lsn - '0/0'::pg_lsn"


@dataclass
class Timeline:
    """Positions, and the moments at which they were reached; both ascending."""

    lsns: list[int] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def add(self, lsn: int, moment: float) -> None:
        self.lsns.append(lsn)
        self.moments.append(moment)


def latency(bench: Bench) -> CaseResult:
    return _latency(bench, "latency", CHANGES_PER_SECOND)


def latency_under_load(bench: Bench) -> CaseResult:
    return _latency(bench, "latency under load", MORE_PER_SECOND)


def _latency(bench: Bench, name: str, per_second: int) -> CaseResult:
    server, ours = bench.server, Pgbronze(bench)
    server.clear()
    ours.forget()
    server.sql(data.ORDERS.format(table="orders"), data.orders_rows(1, KEYS))
    ours.run("snapshot")
    commits, confirmed = Timeline(), Timeline()
    ended = threading.Event()
    poll = threading.Thread(target=_poll, args=(server.dsn, confirmed, ended), daemon=True)
    server_before, started = server.cpu_seconds(), time.perf_counter()
    with (bench.folder / "follow").open("wb") as output:
        process = subprocess.Popen(
            ours.command("cdc", "--follow"),
            env=os.environ | ours.environment,
            stdout=output,
            stderr=output,
            cwd=bench.folder,
        )
        watch = MemoryWatch(process.pid)
        try:
            poll.start()
            # The start of the process is no commit's latency.
            server.sql("UPDATE orders SET quantity = 0 WHERE id = 1")
            _wait_for(int(server.row(f"SELECT {_LSN}")[0]), confirmed)
            _load(server.dsn, bench.follow_seconds, per_second, commits)
            _wait_for(commits.lsns[-1], confirmed)
        finally:
            ended.set()
            poll.join()
            # Not by Popen, which would reap a process that has ended and lose what it used.
            os.kill(process.pid, signal.SIGTERM)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            watch.stop()
    if process.returncode:
        raise CommandFailed("cdc --follow", (bench.folder / "follow").read_text())
    seconds = time.perf_counter() - started
    ours.require_equal("SELECT count(*), sum(quantity) FROM {table}", ["orders"])
    server.clear()
    ours.forget()

    cpu = usage.ru_utime + usage.ru_stime
    spent = server.cpu_seconds() - server_before
    run = Run(seconds, cpu, spent, watch.peak_bytes / 1e6)
    delays = np.array(list(delays_of(commits, confirmed)))
    elapsed = commits.moments[-1] - commits.moments[0]
    one = figure(name, "pgbronze cdc --follow", "DuckDB table", len(commits.lsns), [run])
    about = f"{per_second:,} transactions of one change a second; seconds commit to visible"
    values = {f"p{p}": round(float(np.percentile(delays, p)), 3) for p in (50, 95, 99)}
    values["longest"] = round(float(delays.max()), 3)
    values["changes a second"] = round(len(commits.lsns) / elapsed, 1)
    return CaseResult(name, about, [one], values)


def delays_of(commits: Timeline, confirmed: Timeline) -> Iterator[float]:
    """Seconds from each commit after the warm-up to the first moment that had it confirmed."""
    warm = int(len(commits.lsns) * WARM_PART)
    for lsn, moment in zip(commits.lsns[warm:], commits.moments[warm:], strict=True):
        yield confirmed.moments[bisect.bisect_left(confirmed.lsns, lsn)] - moment


def _load(dsn: str, seconds: float, per_second: int, commits: Timeline) -> None:
    """Inserts and updates by turns, each its own transaction, at a steady pace."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        started = time.monotonic()
        for number in range(int(seconds * per_second)):
            time.sleep(max(0.0, started + number / per_second - time.monotonic()))
            if number % 2:
                query = "UPDATE orders SET quantity = quantity + 1 WHERE id = %s"
                connection.execute(query, [1 + number * 7919 % KEYS])
            else:
                query = "INSERT INTO orders (id, quantity, customer) VALUES (%s, 1, 'new')"
                connection.execute(query, [KEYS + 1 + number])
            returned = time.monotonic()
            row = connection.execute(f"SELECT {_LSN}".encode()).fetchone()
            assert row is not None
            commits.add(int(row[0]), returned)


def _poll(dsn: str, confirmed: Timeline, ended: threading.Event) -> None:
    query = f"SELECT {_CONFIRMED} FROM pg_replication_slots WHERE slot_name = '{OUR_SLOT}'"
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not ended.wait(POLL_SECONDS):
            row = connection.execute(query.encode()).fetchone()
            if row is not None and (not confirmed.lsns or int(row[0]) > confirmed.lsns[-1]):
                confirmed.add(int(row[0]), time.monotonic())


def _wait_for(lsn: int, confirmed: Timeline) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not confirmed.lsns or confirmed.lsns[-1] < lsn:
        if time.monotonic() > give_up:
            raise CommandFailed("cdc --follow did not confirm the last commit", "")
        time.sleep(POLL_SECONDS)
