"""The roles of docs/how-to/source-role.md: what the page grants is enough for every command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.support import oracle
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

PAGE = Path(__file__).parents[3] / "docs/how-to/source-role.md"
LEAST, MANAGING = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
TABLES = ("orders", "customers")

SHOP = """
CREATE TABLE orders (id int PRIMARY KEY, v text, n int);
CREATE TABLE customers (id int PRIMARY KEY, v text, n int);
INSERT INTO orders SELECT i, 'v' || i, i FROM generate_series(1, 9) AS i;
INSERT INTO customers SELECT i, 'v' || i, i FROM generate_series(1, 9) AS i;
"""


@pytest.fixture
def role(database: str, sql: psycopg.Connection) -> Iterator[str]:
    """The name of a role that is dropped at the end."""
    name = "least_" + database.rpartition("_")[2]
    yield name
    if sql.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None:
        sql.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


def run_page(sql: psycopg.Connection, text: str, role: str) -> None:
    """The page's statements, for this role and database."""
    text = text.replace("pgbronze", role).replace("choose-one", "pw")
    sql.execute(text.replace("DATABASE shop", f'DATABASE "{sql.info.dbname}"').encode())


def dsn_of(database: str, role: str) -> str:
    parts = urlsplit(database)
    return urlunsplit(parts._replace(netloc=f"{role}:pw@{parts.hostname}:{parts.port}"))


def change(sql: psycopg.Connection) -> None:
    for table in TABLES:
        sql.execute(
            f"UPDATE {table} SET n = n + 1 WHERE id < 4; DELETE FROM {table} WHERE id = 5;"
            f"INSERT INTO {table} SELECT max(id) + 1, 'new', 0 FROM {table}".encode()
        )


def test_what_the_page_grants_is_enough(
    database: str, sql: psycopg.Connection, role: str, tmp_path: Path
) -> None:
    lake = LocalLake("duckdb", tmp_path)
    sql.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    sql.execute(SHOP)
    run_page(sql, LEAST, role)
    # A server and a role with limits of their own; no write of ours may go through.
    sql.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on".encode())
    sql.execute(f"ALTER ROLE {role} SET statement_timeout = '200ms'".encode())
    sql.execute(f"ALTER ROLE {role} SET lock_timeout = '200ms'".encode())
    pipeline = InProcess(dsn_of(database, role), lake)
    checked = pipeline.run("check")
    assert "fail" not in [line.split()[0] for line in checked.splitlines() if line.strip()]
    before = written(sql)
    pipeline.run("snapshot")
    change(sql)
    pipeline.run("cdc")
    oracle.assert_equal(sql, lake, TABLES)
    sql.execute("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)")
    change(sql)
    pipeline.run("cdc")
    oracle.assert_equal(sql, lake, [*TABLES, "late"])
    assert "ADD TABLE" in pipeline.run("check")
    shown = pipeline.run("status", "--json")
    told = json.loads(shown[shown.index("{") :])["tables"]
    assert {line["table"]: line["state"] for line in told} == {
        "public.orders": "streaming",
        "public.customers": "streaming",
        "public.late": "not streamed",
    }
    # Its owner does what the line says, and from then on it is followed.
    sql.execute("ALTER PUBLICATION dlt_cdc_pub ADD TABLE late; INSERT INTO late VALUES (2)")
    pipeline.run("cdc")
    sql.execute("INSERT INTO late VALUES (3)")
    pipeline.run("cdc")
    oracle.assert_equal(sql, lake, [*TABLES, "late"])
    pipeline.run("verify", "--repair")
    pipeline.run("slot", "drop")
    assert written(sql) == before
    sql.execute(f"ALTER ROLE {role} RESET default_transaction_read_only".encode())
    told = " ".join(pipeline.run("cleanup", "--yes").split())
    assert "belongs to another role and stays; its owner can run: DROP PUBLICATION" in told
    sql.execute("DROP PUBLICATION dlt_cdc_pub")


def written(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """What of the source is not ours to change: the publication, privileges, triggers, files."""
    return sql.execute(
        "SELECT p.oid, p.xmin::text, '' FROM pg_publication p"
        " UNION ALL SELECT c.oid, c.relfilenode::text, c.relacl::text FROM pg_class c"
        " WHERE relname IN ('orders', 'customers') ORDER BY 1"
    ).fetchall()


def test_a_role_that_manages_the_publication(
    database: str, sql: psycopg.Connection, role: str, tmp_path: Path
) -> None:
    owner = f"{role}_owner"
    sql.execute(f"CREATE ROLE {owner}".encode())
    try:
        sql.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pw'".encode())
        sql.execute(SHOP)
        for table in TABLES:
            sql.execute(f"ALTER TABLE {table} OWNER TO {owner}".encode())
        run_page(sql, MANAGING.replace("app_owner", owner), role)
        lake = LocalLake("duckdb", tmp_path)
        pipeline = InProcess(dsn_of(database, role), lake)
        pipeline.run("snapshot")
        sql.execute(f"CREATE TABLE late (id int PRIMARY KEY); ALTER TABLE late OWNER TO {owner}")
        change(sql)
        pipeline.run("cdc")
        sql.execute("INSERT INTO late VALUES (1)")
        pipeline.run("cdc")
        oracle.assert_equal(sql, lake, [*TABLES, "late"])
    finally:
        sql.execute(f"DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}".encode())


@pytest.mark.parametrize("kind", ["duckdb", "delta"])
def test_row_filters_and_column_lists_of_a_dba(
    database: str, sql: psycopg.Connection, role: str, tmp_path: Path, kind: str
) -> None:
    if sql.info.server_version < 150000:
        pytest.skip("publications have filters and lists from PostgreSQL 15 on")
    lake = LocalLake(kind, tmp_path)
    sql.execute(SHOP + "ALTER TABLE orders REPLICA IDENTITY FULL")
    run_page(sql, LEAST, role)
    sql.execute("ALTER PUBLICATION dlt_cdc_pub SET TABLE orders WHERE (n > 3), customers (id, n)")
    pipeline = InProcess(dsn_of(database, role), lake)

    def compare() -> None:
        wanted = sql.execute("SELECT id, v, n FROM orders WHERE n > 3").fetchall()
        assert sorted(lake.rows("orders", "id", "v", "n")) == sorted(wanted)
        wanted = sql.execute("SELECT id, n FROM customers").fetchall()
        assert sorted(lake.rows("customers", "id", "n")) == sorted(wanted)
        assert "v" not in lake.read("customers").column_names

    pipeline.run("snapshot")
    compare()
    # Into the filter, out of it, within, and never in it; and what the list leaves out.
    sql.execute(
        "UPDATE orders SET n = 10 WHERE id = 1; UPDATE orders SET n = 0 WHERE id = 9;"
        "UPDATE orders SET v = 'x' WHERE id IN (2, 8); INSERT INTO orders VALUES (20, 'y', 1),"
        "(21, 'z', 99); DELETE FROM orders WHERE id IN (3, 7); UPDATE orders SET id = 50"
        " WHERE id = 6; UPDATE customers SET v = 'secret'; UPDATE customers SET n = 0, id = 99"
        " WHERE id = 3"
    )
    pipeline.run("cdc")
    compare()
    pipeline.run("verify")
    pipeline.run("snapshot", "--tables", "orders")
    compare()
