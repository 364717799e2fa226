"""What a publication left out for a time, between two runs, is found and read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import oracle
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from pathlib import Path

TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, v text); INSERT INTO orders VALUES (1, 'a'), (2, 'b');
CREATE TABLE people (id int PRIMARY KEY, v text); INSERT INTO people VALUES (1, 'a'), (2, 'b');
"""
EVERYTHING = "insert, update, delete, truncate"

#: What is done to the publication before the changes and after them, and since which PostgreSQL.
GAPS = {
    "a table taken out and put back": (
        "ALTER PUBLICATION dlt_cdc_pub DROP TABLE orders",
        "ALTER PUBLICATION dlt_cdc_pub ADD TABLE orders",
        14,
    ),
    "no deletes for a time": (
        "ALTER PUBLICATION dlt_cdc_pub SET (publish = 'insert, update')",
        f"ALTER PUBLICATION dlt_cdc_pub SET (publish = '{EVERYTHING}')",
        14,
    ),
    "a row filter for a time": (
        "ALTER PUBLICATION dlt_cdc_pub SET TABLE orders WHERE (id > 2), people",
        "ALTER PUBLICATION dlt_cdc_pub SET TABLE orders, people",
        15,
    ),
}


@pytest.mark.parametrize("gap", GAPS)
def test_changes_that_were_not_published(gap: str, database: str, tmp_path: Path) -> None:
    before, after, major = GAPS[gap]
    lake = LocalLake("duckdb", tmp_path)
    pipeline = InProcess(database, lake)
    with psycopg.connect(database, autocommit=True) as sql:
        if sql.info.server_version < major * 10_000:
            pytest.skip(f"PostgreSQL {major} and newer have it")
        sql.execute(TABLES)
        pipeline.run("snapshot")
        sql.execute("UPDATE orders SET v = 'told' WHERE id = 1")
        sql.execute(before.encode())
        sql.execute("UPDATE orders SET v = 'lost' WHERE id = 1; INSERT INTO orders VALUES (3, 'c')")
        sql.execute("DELETE FROM orders WHERE id = 2; UPDATE people SET v = 'p'")
        sql.execute(after.encode())
        sql.execute("INSERT INTO orders VALUES (4, 'd'); DELETE FROM people WHERE id = 1")
        told = pipeline.run("cdc")
        assert "its publication was changed" in told
        oracle.assert_equal(sql, lake, ["orders", "people"])
        sql.execute("UPDATE orders SET v = 'on'; UPDATE people SET v = 'on'")
        assert "its publication was changed" not in pipeline.run("cdc")
        oracle.assert_equal(sql, lake, ["orders", "people"])


@pytest.mark.parametrize("leaves", ["DROP CONSTRAINT orders_pkey", "REPLICA IDENTITY NOTHING"])
def test_a_table_that_leaves_the_stream_is_read_once_more(
    leaves: str, database: str, tmp_path: Path
) -> None:
    """What was committed while it was published is there, whoever stops publishing it."""
    lake = LocalLake("duckdb", tmp_path)
    pipeline = InProcess(database, lake)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES)
        pipeline.run("snapshot")
        sql.execute("UPDATE orders SET v = 'told' WHERE id = 1")
        sql.execute(f"ALTER TABLE orders {leaves}; INSERT INTO orders VALUES (3, 'c')".encode())
        assert "public.orders: it leaves the stream" in pipeline.run("cdc")
        oracle.assert_equal(sql, lake, ["orders", "people"])
        sql.execute("UPDATE people SET v = 'p'; INSERT INTO orders VALUES (4, 'not told')")
        assert "leaves the stream" not in pipeline.run("cdc")
        oracle.assert_equal(sql, lake, ["people"])
        assert "not streamed" in pipeline.run("status")
        pipeline.run("snapshot")
        oracle.assert_equal(sql, lake, ["orders", "people"])
