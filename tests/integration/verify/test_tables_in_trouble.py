"""One table that cannot be compared never stops the others, and is named with what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from cdc_core.ports.progress import Event, TableStarted
from entrypoints.container import Container
from entrypoints.settings import load_settings
from tests.integration.verify.conftest import line
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from tests.integration.verify.conftest import Pipeline

TABLES = """
CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a');
CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (1, 'b');
CREATE TABLE c (id int PRIMARY KEY, v text); INSERT INTO c VALUES (1, 'c');
"""


@pytest.fixture
def reader(database: str, sql: psycopg.Connection) -> Iterator[str]:
    """The DSN of a role that reads every table and owns none."""
    role = "reader_" + database.rpartition("_")[2]
    sql.execute(TABLES)
    sql.execute(
        f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pw';"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};"
        "CREATE PUBLICATION dlt_cdc_pub FOR ALL TABLES".encode()
    )
    parts = urlsplit(database)
    yield urlunsplit(parts._replace(netloc=f"{role}:pw@{parts.hostname}:{parts.port}"))
    sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_table_that_may_not_be_read(reader: str, sql: psycopg.Connection, tmp_path: Path) -> None:
    lake = LocalLake("duckdb", tmp_path)
    pipeline = InProcess(reader, lake)
    pipeline.run("snapshot")
    role = urlsplit(reader).username
    sql.execute(f"REVOKE SELECT ON b FROM {role}".encode())
    told = pipeline.run("verify", "--json", code=3)
    tables = {t["table"]: t for t in json.loads(told[told.index("{") :])["tables"]}
    assert {name: t["equal"] for name, t in tables.items()} == {
        "public.a": True, "public.b": False, "public.c": True,
    }  # fmt: skip
    assert not tables["public.b"]["compared"]
    cure = tables["public.b"]["problem"].partition("run: ")[2]
    assert cure == f'GRANT SELECT ON "public"."b" TO "{role}"'
    assert "not compared" in pipeline.run("verify", "--repair", code=3)
    # Rows that differ are what the code is of.
    sql.execute("UPDATE c SET v = 'new'")
    pipeline.run("verify", code=1)
    assert "repaired" in pipeline.run("verify", "--repair", code=3)
    sql.execute(cure.encode())
    pipeline.run("verify")


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_a_table_that_is_dropped_meanwhile(
    pipeline: Pipeline, sql: psycopg.Connection, repair: bool
) -> None:
    sql.execute(TABLES)
    pipeline.snapshot()
    if repair:
        sql.execute("UPDATE b SET v = 'new'; UPDATE c SET v = 'new'")

    class Meanwhile:
        def emit(self, event: Event) -> None:
            if isinstance(event, TableStarted) and event.table == "public.a":
                sql.execute("DROP TABLE b")

    container = Container.from_settings(load_settings())
    container.progress().add(Meanwhile())
    report = container.verify_parity().run(repair=repair)
    container.shutdown_resources()
    assert line(report, "a").equal
    assert line(report, "c").equal
    assert "public.b" in line(report, "b").problem
    assert report.exit_code == 1
    pipeline.cdc()
    assert pipeline.verify().equal


@pytest.mark.parametrize(
    "type_",
    ["INTEGER", "INTERVAL", "TIME", "STRUCT(x INTEGER)", "INTEGER[]", "UUID", "BLOB", "HUGEINT"],
)
@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_a_column_of_another_type_in_the_destination(
    pipeline: Pipeline, sql: psycopg.Connection, type_: str
) -> None:
    sql.execute(TABLES)
    pipeline.snapshot()
    import duckdb

    with duckdb.connect(str(pipeline.lake.path / "lake.duckdb")) as lake:
        lake.execute(f"ALTER TABLE bronze.b ALTER v TYPE {type_} USING NULL")
    report = pipeline.verify()
    assert [found.equal for found in report.tables] == [True, False, True]
    assert line(report, "b").problem
    assert report.exit_code == 1
    repaired = pipeline.verify(repair=True)
    assert [found.equal for found in repaired.tables] == [True, False, True]
