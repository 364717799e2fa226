"""Tables that somebody dropped at the destination are read again, the others streamed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import oracle
from tests.support.lakes import lake_of
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from pathlib import Path

TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, v text); INSERT INTO orders VALUES (1, 'a'), (2, 'b');
CREATE TABLE events (v text); ALTER TABLE events REPLICA IDENTITY FULL;
INSERT INTO events VALUES ('a'), ('a'), ('b');
CREATE TABLE people (id int PRIMARY KEY, v text); INSERT INTO people VALUES (1, 'a'), (2, 'b');
"""


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_a_table_dropped_at_the_destination(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    pipeline = InProcess(database, lake)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES)
        pipeline.run("snapshot")
        lake.drop("orders")
        lake.drop("events")
        told = pipeline.run("cdc")  # though nothing changed at the source
        assert "reading public.orders: the destination has no table orders" in " ".join(
            told.split()
        )
        oracle.assert_equal(sql, lake, ["orders", "events", "people"])
        lake.drop("orders")
        sql.execute("UPDATE orders SET v = 'c' WHERE id = 1; DELETE FROM events WHERE v = 'b'")
        sql.execute("INSERT INTO people VALUES (3, 'c')")
        pipeline.run("cdc")
        oracle.assert_equal(sql, lake, ["orders", "events", "people"])


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_dlts_own_tables_dropped_at_the_destination(
    kind: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lake = lake_of(kind, tmp_path, request)
    pipeline = InProcess(database, lake)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES)
        pipeline.run("snapshot")
        for tables in (
            ["_dlt_loads"],
            ["_dlt_pipeline_state"],
            ["_dlt_version"],
            ["_dlt_loads", "_dlt_pipeline_state", "_dlt_version"],
        ):
            for table in tables:
                lake.drop(table)
            pipeline.run("snapshot")
            sql.execute("INSERT INTO people SELECT max(id) + 1, 'c' FROM people")
            pipeline.run("cdc")
            oracle.assert_equal(sql, lake, ["orders", "events", "people"])
