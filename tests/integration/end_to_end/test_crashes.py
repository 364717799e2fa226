"""What befalls a run from outside: one line, exit code 1, and running again mends it."""

from __future__ import annotations

import os
import random
import resource
import shutil
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from cdc_core.values.errors import CdcError
from tests.support import oracle
from tests.support.lakes import LocalLake
from tests.support.pipeline import Pipeline, Service
from tests.support.postgres import BIN
from tests.support.proxy import Proxy
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.forked import Process

CONFIRMED = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = %s"


def until(found: Callable[[], bool]) -> None:
    for _ in range(600):
        if found():
            return
        time.sleep(0.1)
    raise AssertionError("it does not come")


def follow(pipeline: Pipeline, connection: psycopg.Connection) -> Process:
    """A run that follows, and has loaded something."""

    def confirmed() -> object:
        return connection.execute(CONFIRMED, [connection.info.dbname]).fetchone()

    before = confirmed()
    Workload(connection, seed=6).run(10)
    process = pipeline.start("cdc", "--follow")
    until(lambda: confirmed() != before or process.poll() is not None)
    assert process.poll() is None
    return process


def failed(process: Process) -> str:
    """The only line that a run ended with."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    last = output.splitlines()[-1]
    assert last.startswith("pgbronze: ")
    return last


def test_connections_cut_at_any_byte(database: str, tmp_path: Path) -> None:
    lake, chance = LocalLake("duckdb", tmp_path), random.Random(5)
    failures: list[CdcError] = []
    with (
        Proxy(lambda: database) as proxy,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        connection.execute(TABLES)
        workload = Workload(connection, seed=5)
        workload.run(20)
        direct, through = Service(database, lake), Service(proxy.dsn, lake)
        direct.run("snapshot")
        for attempt in range(10):
            workload.run(20)
            proxy.cut_after(int(chance.uniform(0, 30_000)))
            try:
                through.run("snapshot" if attempt % 4 == 3 else "cdc")
            except CdcError as error:
                failures.append(error)
            proxy.cut_after(None)
        assert {error.exit_code for error in failures} == {1}
        assert len(failures) > 5
        workload.run(20)
        proxy.stalled.set()
        threading.Timer(1.5, proxy.stalled.clear).start()
        through.run("cdc")
        assert_equal(connection, lake)


@pytest.mark.parametrize("kind", ["duckdb", "delta"])
def test_a_working_folder_that_is_lost(database: str, tmp_path: Path, kind: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    lake = LocalLake(kind, tmp_path)
    pipeline = Pipeline(database, lake, TMPDIR=str(work))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        pipeline.run("snapshot")
        process = follow(pipeline, connection)
        for folder in work.iterdir():
            shutil.rmtree(folder)
        Workload(connection, seed=7).run(20)
        failed(process)
        pipeline.run("cdc")
        assert_equal(connection, lake)


def test_a_disk_that_is_full(database: str, tmp_path: Path) -> None:
    """As far as a process can be kept from writing: files of half a megabyte at most."""
    lake = LocalLake("delta", tmp_path)
    pipeline = Pipeline(database, lake)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t (id int PRIMARY KEY, x text); INSERT INTO t VALUES (0, 'x')"
        )
        for command in ("snapshot", "cdc"):
            connection.execute(
                "INSERT INTO t SELECT (SELECT max(id) FROM t) + g, (SELECT string_agg("
                "md5(random()::text), '') FROM generate_series(1, 100 + g * 0)) "
                "FROM generate_series(1, 400) AS g"
            )
            process = pipeline.start(command)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
            assert "File too large" in failed(process)
            pipeline.run(command)
            oracle.assert_equal(connection, lake, ["t"])


def test_a_server_that_restarts_at_once(tmp_path: Path) -> None:
    lake = LocalLake("duckdb", tmp_path)
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN)) as server:
        pipeline = Pipeline(server.dsn, lake)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(TABLES)
            pipeline.run("snapshot")
            process = follow(pipeline, connection)
        server.restart("immediate")
        assert "PostgreSQL" in failed(process)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            Workload(connection, seed=8).run(20)
            pipeline.run("cdc")
            assert_equal(connection, lake)
