"""The mission through the real command: whatever the workload, source and destination are equal."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import oracle
from tests.support.lakes import LocalLake, WarehouseLake, lake_of
from tests.support.pipeline import Installed, Pipeline, Service
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["duckdb", "delta", "databricks"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> LocalLake | WarehouseLake:
    return lake_of(request.param, tmp_path, request)


def test_rounds_of_cdc_end_equal(database: str, lake: LocalLake | WarehouseLake) -> None:
    pipeline = Pipeline(database, lake)
    # As processes once; a kill tests them on the others too.
    run = pipeline.run if lake.kind == "duckdb" else pipeline.call
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=1)
        workload.run(20)
        run("snapshot")
        assert_equal(connection, lake)
        for _ in range(3):
            workload.run(60)
            run("cdc")
            assert_equal(connection, lake)
        workload.run(10)
        run("snapshot", "--tables", "plain")
        run("cdc")
        assert_equal(connection, lake)


def test_killed_at_any_moment_and_run_again_is_equal(
    database: str, lake: LocalLake | WarehouseLake
) -> None:
    pipeline = Pipeline(database, lake)
    chance = random.Random(2)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=2)
        workload.run(20)
        pipeline.killed("snapshot", after=chance.uniform(0.1, 1.6))
        pipeline.call("snapshot")
        assert_equal(connection, lake)
        for _ in range(4):
            workload.run(60)
            pipeline.killed("cdc", after=chance.uniform(0.05, 1.6))
            workload.run(5)
        pipeline.call("cdc")
        assert_equal(connection, lake)


def test_following_keeps_up_and_ends_cleanly(database: str, tmp_path: Path) -> None:
    lake = LocalLake("duckdb", tmp_path)
    pipeline = Pipeline(database, lake)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        pipeline.run("snapshot")
        process = pipeline.start("cdc", "--follow")
        workload = Workload(connection, seed=3)
        for _ in range(4):
            workload.run(20)
            time.sleep(1)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        pipeline.run("cdc")
        assert_equal(connection, lake)


def test_the_slot_follows_the_data(database: str, tmp_path: Path) -> None:
    pipeline = Installed(database, LocalLake("duckdb", tmp_path))
    query = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'dlt_cdc_slot'"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        pipeline.run("snapshot")
        (before,) = connection.execute(query).fetchone() or ("",)
        connection.execute("CREATE TABLE excluded_by_nobody AS SELECT 1 AS a")
        Workload(connection, seed=4).run(20)
        (written,) = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ("",)
        pipeline.run("cdc")
        (after,) = connection.execute(query).fetchone() or ("",)
        ahead = connection.execute(
            "SELECT %s::pg_lsn > %s::pg_lsn, %s::pg_lsn >= %s::pg_lsn",
            [after, before, after, written],
        ).fetchone()
        assert ahead == (True, True)


@pytest.mark.parametrize("command", ["cdc", "snapshot"])
def test_names_follow_the_source(
    database: str, lake: LocalLake | WarehouseLake, command: str
) -> None:
    """Tables that swap names, and columns that do, through the real catalog and stores."""
    service = Service(database, lake)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE blue (id int PRIMARY KEY, a text, b text, old text);"
            "CREATE TABLE green (id int PRIMARY KEY, a text, b text, old text);"
            "INSERT INTO blue VALUES (1, 'blue a', 'blue b', 'o');"
            "INSERT INTO green VALUES (1, 'green a', 'green b', 'o'), (2, 'x', 'y', 'z')"
        )
        service.run("snapshot")
        connection.execute(
            "INSERT INTO blue VALUES (3, 'before', 'the swap', 'o');"
            "ALTER TABLE blue RENAME TO spare; ALTER TABLE green RENAME TO blue;"
            "ALTER TABLE spare RENAME TO green;"
            "ALTER TABLE blue RENAME a TO c; ALTER TABLE blue RENAME b TO a;"
            "ALTER TABLE blue RENAME c TO b; ALTER TABLE blue RENAME old TO new;"
            "INSERT INTO blue VALUES (4, 'after', 'the swap', 'n');"
            "INSERT INTO green VALUES (4, 'after', 'the swap', 'o')"
        )
        for _ in range(2):
            service.run(command)
            for table, columns in (("blue", "id b a new"), ("green", "id a b old")):
                names = columns.split()
                wanted = connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
                assert sorted(lake.rows(table, *names)) == sorted(wanted)
            # The columns' order too.
            oracle.assert_equal(connection, lake, ("blue", "green"))
            connection.execute("UPDATE blue SET a = a || '!'; DELETE FROM green WHERE id = 1")
            command = "cdc"


DEFINITIONS = """
CREATE TABLE a (
  id int PRIMARY KEY, n smallint, r real, p numeric(6,2), t varchar(9), gone int, late text);
CREATE TABLE b (id int PRIMARY KEY, old text);
CREATE TABLE heap (n smallint);
ALTER TABLE heap REPLICA IDENTITY FULL;
INSERT INTO a SELECT g, g, g / 3.0, g / 7.0, g, g FROM generate_series(1, 20) AS g;
INSERT INTO b SELECT g, g FROM generate_series(1, 20) AS g;
INSERT INTO heap VALUES (1), (1);
"""


def test_definitions_follow_the_source(database: str, lake: LocalLake | WarehouseLake) -> None:
    """Whatever is done to a table, the next run ends equal, by the stream or by reading it."""
    service = Service(database, lake)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(DEFINITIONS)
        service.run("snapshot")
        for command, change in (
            ("cdc", "ALTER TABLE a ADD extra text DEFAULT 'x', ADD \"odd one\" int"),
            (
                "cdc",
                "ALTER TABLE a ALTER n TYPE int, ALTER p TYPE numeric(20,2), ALTER t TYPE text",
            ),
            (
                "cdc",
                (
                    "ALTER TABLE a DROP gone; ALTER TABLE a ADD gone text;"
                    "ALTER TABLE b ADD c int DEFAULT 5; ALTER TABLE b ALTER c DROP DEFAULT"
                ),
            ),
            ("cdc", "ALTER TABLE b ALTER old TYPE int USING old::int; ALTER TABLE heap ADD m text"),
            ("cdc", "ALTER TABLE b DROP CONSTRAINT b_pkey, ADD PRIMARY KEY (id, old)"),
            ("snapshot", "ALTER TABLE a ADD more int; ALTER TABLE heap ALTER n TYPE bigint"),
            ("snapshot", "ALTER TABLE a ALTER n TYPE bigint, ALTER r TYPE float8, DROP extra"),
            ("snapshot", "ALTER TABLE a ALTER more TYPE text; ALTER TABLE b ALTER old TYPE text"),
        ):
            connection.execute("UPDATE a SET p = p + 1; DELETE FROM b WHERE id % 3 = 0")
            connection.execute(change.encode())
            connection.execute("INSERT INTO b SELECT max(id) + 1, 7 FROM b; UPDATE a SET late = t")
            service.run(command)
            oracle.assert_equal(connection, lake, ("a", "b", "heap"))
