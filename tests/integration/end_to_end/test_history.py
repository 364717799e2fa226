"""History at a real PostgreSQL: triggers record every change, runs are killed, images are equal.

uv run pytest tests/integration/end_to_end/test_history.py --history-transactions 10000
"""

from __future__ import annotations

import itertools
import json
import random
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.audit import KEYS, RULES, TABLES, AuditedWork
from tests.support.lakes import LocalLake, lake_of
from tests.support.pipeline import InProcess, Pipeline

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_of_a_detached_partition_are_deletes_and_nothing_is_read_again(
    database: str, tmp_path: Path
) -> None:
    lake = LocalLake("duckdb", tmp_path)
    rules = '[{"match": "*", "history": ["log", "scd2"], "deletes": "soft"}]'
    pipeline = Pipeline(database, lake, SOURCES__PG_REPLICATION__TABLES=rules)
    with psycopg.connect(database, autocommit=True) as shop:
        shop.execute(
            "CREATE TABLE days (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);"
            "CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);"
            "CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (10) TO (20);"
            "INSERT INTO days VALUES (1, 1), (2, 2), (3, 11)"
        )
        pipeline.call("snapshot")
        shop.execute("INSERT INTO days VALUES (4, 12); ALTER TABLE days DETACH PARTITION days_1")
        output = pipeline.call("cdc")
        assert "removing the rows of partitions" in output
        assert "reading public.days:" not in output
        shop.execute("UPDATE days SET id = 5 WHERE id = 4")
        pipeline.call("cdc")
    images = sorted(lake.rows("days_history", "_sort_by", "_pg_change_type", "id", "_pg_xid"))
    kinds = [(kind, id_) for _, kind, id_, _ in images]
    assert sorted(kinds[:3]) == [("insert", 1), ("insert", 2), ("insert", 3)]
    assert kinds[3] == ("insert", 4)
    assert sorted(kinds[4:6]) == [("delete", 1), ("delete", 2)]
    assert kinds[6:] == [("update_preimage", 4), ("update_postimage", 5)]
    assert [xid is None for *_, xid in images] == [True] * 3 + [False] + [True] * 2 + [False] * 2
    live = [row[0] for row in lake.rows("days", "id", "_cdc_deleted_at") if row[1] is None]
    assert sorted(live) == [3, 5]
    ended = {row[0] for row in lake.rows("days_scd2", "id", "_cdc_end_lsn") if row[1] is not None}
    assert ended == {1, 2, 4}


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_a_table_that_is_created_again_with_another_key(
    database: str, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    rules = '[{"match": "*", "history": ["log", "scd2"], "deletes": "soft"}]'
    pipeline = Pipeline(database, lake, SOURCES__PG_REPLICATION__TABLES=rules)
    with psycopg.connect(database, autocommit=True) as shop:
        shop.execute("CREATE TABLE t (id int PRIMARY KEY, n text); INSERT INTO t VALUES (1, 'old')")
        pipeline.call("snapshot")
        shop.execute(
            "DROP TABLE t; CREATE TABLE t (code text PRIMARY KEY, n text);"
            "INSERT INTO t VALUES ('a', 'x')"
        )
        pipeline.call("cdc")
        shop.execute(
            "UPDATE t SET n = 'y'; ALTER TABLE t DROP CONSTRAINT t_pkey;"
            "ALTER TABLE t ADD COLUMN k int DEFAULT 7; ALTER TABLE t ADD PRIMARY KEY (k)"
        )
        pipeline.call("cdc")
        shop.execute("TRUNCATE t; INSERT INTO t VALUES ('b', 'z', 8)")
        pipeline.call("cdc")
        pipeline.call("verify")
    images = sorted(lake.rows("t_history", "_sort_by", "_pg_change_type", "n"))
    assert [image[1:] for image in images] == [
        ("insert", "old"), ("delete", "old"), ("insert", "x"),
        ("delete", "x"), ("insert", "y"), ("delete", "y"), ("insert", "z"),
    ]  # fmt: skip
    versions = sorted(lake.rows("t_scd2", "_cdc_lsn", "n", "_cdc_end_lsn"))
    assert [version[1] for version in versions] == ["old", "x", "y", "z"]
    for version, following in itertools.pairwise(versions):
        assert version[2] == following[0]
    assert sorted(lake.rows("t", "k", "n")) == [(7, "y"), (8, "z")]


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_every_image_is_the_one_that_the_database_recorded(
    database: str, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    transactions = request.config.getoption("--history-transactions")
    lake, chance = lake_of(kind, tmp_path, request), random.Random(3)
    pipeline = Pipeline(
        database,
        lake,
        SOURCES__PG_REPLICATION__TABLES=RULES,
        SOURCES__PG_REPLICATION__BATCH_MAX_ROWS=str(max(40, transactions // 20)),
    )
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        work = AuditedWork(connection, seed=3)
        work.run(30)
        work.copies.clear()
        work.begin()
        pipeline.call("snapshot")
        left = transactions
        while left > 0:
            size = min(left, max(40, transactions // 40))
            left -= size
            work.run(size)
            for _ in range(2):
                # An import takes a second; the kill comes at any moment after it.
                pipeline.killed("cdc", after=chance.uniform(0.8, 3.5))
            if chance.random() < 0.5 or not left:
                pipeline.call("cdc")
        pipeline.call("cdc")
        work.assert_history(lake)
        pipeline.call("verify")
    if kind == "delta":
        assert all(lake.is_only_appended(f"{table}_history") for table in KEYS)


@pytest.mark.parametrize("kind", ["duckdb", "delta"])
def test_a_history_whose_name_is_taken_stops_no_other_table(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    rules = json.dumps([{"match": "orders", "history": ["log"]}])
    with psycopg.connect(database, autocommit=True) as sql:
        for name in ("orders", "orders_history", "lines"):
            sql.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
        InProcess(database, lake).run("snapshot")
        sql.execute("DROP TABLE orders_history")
        sql.execute("INSERT INTO orders VALUES (1)")
        sql.execute("INSERT INTO lines VALUES (1)")
        pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=rules)
        told = " ".join(pipeline.run("cdc", code=3).split())
        assert "public.orders" in told
        assert "needs the name orders_history" in told
        assert lake.rows("lines", "id") == [(1,)]
        InProcess(database, lake).run("cdc")
    assert lake.rows("orders", "id") == [(1,)]


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_names_that_a_history_needs_set_aside_one_table_alone(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    rules = json.dumps([{"match": ["orders", "parts"], "history": ["log"]}])
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=rules)
    with psycopg.connect(database, autocommit=True) as sql:
        for name in ("orders", "parts", "lines"):
            sql.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, n int)")
            sql.execute(f"INSERT INTO {name} VALUES (1, 1)")
        pipeline.run("snapshot")
        sql.execute("CREATE TABLE orders_history AS SELECT 7 AS id, 7 AS n")
        sql.execute("ALTER TABLE orders_history REPLICA IDENTITY FULL")
        sql.execute("ALTER TABLE parts RENAME n TO _pg_xid")
        for name in ("orders", "parts", "lines"):
            sql.execute(f"INSERT INTO {name} VALUES (2, 2)")
        for command in ("cdc", "cdc", "check"):
            told = " ".join(pipeline.run(command, code=3).split())
            assert "the history of public.orders has the name orders_history" in told
            assert "adds a column with the name of its column _pg_xid" in told
        assert sorted(lake.rows("orders", "id")) == sorted(lake.rows("lines", "id")) == [(1,), (2,)]
        assert sorted(lake.rows("orders_history", "id")) == [(1,), (2,)]
        assert lake.rows("parts", "id", "n") == lake.rows("parts_history", "id", "n") == [(1, 1)]
        sql.execute("ALTER TABLE orders_history RENAME TO old_orders")
        sql.execute("ALTER TABLE parts RENAME _pg_xid TO m")
        pipeline.run("cdc")
        pipeline.run("verify")
    assert lake.rows("old_orders", "id", "n") == [(7, 7)]
    assert sorted(lake.rows("parts_history", "id", "m")) == [(1, 1), (2, 2)]
