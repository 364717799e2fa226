"""One table in trouble never stops the others: set aside, named by status, mended by a snapshot."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

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


def states(pipeline: InProcess) -> dict[str, tuple[str, str | None]]:
    """State and reason of each table, as `status` says them."""
    shown = pipeline.run("status", "--json")
    told = json.loads(shown[shown.index("{") :])["tables"]
    return {line["table"]: (line["state"], line["reason"]) for line in told}


def test_a_frozen_definition(database: str, tmp_path: Path) -> None:
    lake = LocalLake("duckdb", tmp_path)
    pipeline = InProcess(database, lake, PIPELINE__SCHEMA_CHANGES="freeze")
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(TABLES)
        pipeline.run("snapshot")
        sql.execute("ALTER TABLE orders ADD extra int DEFAULT 5; UPDATE orders SET v = 'new'")
        sql.execute("UPDATE people SET v = 'new'")
        refused = pipeline.run("cdc", code=3).splitlines()[-1]
        assert 'public.orders (schema_changes = "freeze" refuses: column extra added)' in refused
        assert "snapshot --tables public.orders" in refused
        assert sorted(lake.rows("orders", "id", "v")) == [(1, "a"), (2, "b")]
        assert "extra" not in lake.read("orders").column_names
        oracle.assert_equal(sql, lake, ["people"])
        assert states(pipeline)["public.orders"][0] == "needs snapshot"
        assert "extra" in str(states(pipeline)["public.orders"][1])
        assert states(pipeline)["public.people"] == ("streaming", None)
        pipeline.run("snapshot", "--tables", "public.orders")
        sql.execute("UPDATE public.orders SET extra = 6 WHERE id = 1")
        pipeline.run("cdc")
        oracle.assert_equal(sql, lake, ["orders", "people"])


def test_a_table_that_may_not_be_read(database: str, tmp_path: Path) -> None:
    role = "owner_" + database.rpartition("_")[2]
    parts = urlsplit(database)
    dsn = urlunsplit(parts._replace(netloc=f"{role}:pw@{parts.hostname}:{parts.port}"))
    lake = LocalLake("delta", tmp_path)
    pipeline = InProcess(dsn, lake)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pw'".encode())
        try:
            sql.execute(TABLES)
            sql.execute(
                f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};"
                "CREATE PUBLICATION dlt_cdc_pub FOR TABLE orders, people".encode()
            )
            pipeline.run("snapshot")
            # What must be read again may not be.
            sql.execute(f"REVOKE SELECT ON orders FROM {role}".encode())
            sql.execute("ALTER TABLE orders ALTER v TYPE int USING id")
            sql.execute("UPDATE people SET v = 'new'; UPDATE orders SET v = 7")
            refused = pipeline.run("cdc", code=3).splitlines()[-1]
            assert "public.orders (" in refused
            assert "public.people" not in refused
            oracle.assert_equal(sql, lake, ["people"])
            assert states(pipeline)["public.orders"][0] == "needs snapshot"
            sql.execute(f"GRANT SELECT ON public.orders TO {role}".encode())
            pipeline.run("snapshot", "--tables", "public.orders")
            pipeline.run("cdc")
            oracle.assert_equal(sql, lake, ["orders", "people"])
        finally:
            sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.parametrize("reader", ["copy", "sql_database"])
@pytest.mark.parametrize("lake_kind", ["duckdb", "delta"])
def test_a_snapshot_reads_every_table_but_one_that_may_not_be_read(
    database: str, tmp_path: Path, reader: str, lake_kind: str
) -> None:
    role = 'odd "role"_' + database.rpartition("_")[2]
    name = '"' + role.replace('"', '""') + '"'
    parts = urlsplit(database)
    place = f"{quote(role)}:pw@{parts.hostname}:{parts.port}"
    lake = LocalLake(lake_kind, tmp_path)
    pipeline = InProcess(
        urlunsplit(parts._replace(netloc=place)),
        lake,
        SOURCES__PG_REPLICATION__SNAPSHOT_READER=reader,
        SOURCES__PG_REPLICATION__SCHEMAS="public,Other",
    )
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'pw'".encode())
        try:
            sql.execute(TABLES)
            sql.execute(
                'CREATE TABLE "my Table" (id int PRIMARY KEY); INSERT INTO "my Table" VALUES (1);'
                'CREATE SCHEMA "Other"; CREATE TABLE "Other".t AS SELECT 1 AS id;'
                'ALTER TABLE "Other".t ADD PRIMARY KEY (id);'
                "CREATE TABLE hidden (id int PRIMARY KEY); INSERT INTO hidden VALUES (1);"
                "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY"
            )
            sql.execute(
                f'GRANT SELECT ON orders, people, hidden, "Other".t TO {name};'
                "CREATE PUBLICATION dlt_cdc_pub FOR ALL TABLES".encode()
            )
            line = pipeline.run("snapshot", code=3).splitlines()[-1]
            for part in ("not read: ", "public.my Table (", "Other.t (", "public.hidden ("):
                assert part in line
            assert "public.orders" not in line
            oracle.assert_equal(sql, lake, ["orders", "people"])
            # The line's statements are all that is missing.
            for statement in re.findall(r"run: (.*?)(?=; run|, then|; then)", line):
                sql.execute(statement.encode())
            sql.execute("UPDATE orders SET v = 'new'")
            pipeline.run("cdc")
            oracle.assert_equal(sql, lake, ["orders", "people", "my Table", "hidden"])
            assert lake.rows("Other__t", "id") == [(1,)]
            pipeline.run("snapshot")
        finally:
            sql.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
