"""What `check` advises in SQL runs as it is printed, takes the finding away, and fails no write."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from cdc_core.check.findings import Level
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from cdc_core.check.findings import Finding
    from tests.integration.verify.conftest import Pipeline

SQL = re.compile(r"(ALTER|GRANT|CREATE|BEGIN)\b")

TABLES = """
CREATE SCHEMA "user"; CREATE SCHEMA "Odd ""one"" s";
CREATE TABLE plain (id int PRIMARY KEY, v text);
CREATE TABLE "user"."order" (id int, v text);
CREATE TABLE "Odd ""one"" s".heap (id int, v text);
CREATE TABLE uniq (id int NOT NULL, v text, w int, UNIQUE (id));
CREATE UNIQUE INDEX "Some index" ON uniq (w);
CREATE TABLE part_uniq (id int NOT NULL, v text);
CREATE UNIQUE INDEX ON part_uniq (id) WHERE id > 5;
CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
CREATE TABLE nothing (id int PRIMARY KEY, v text); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE lost (id int NOT NULL UNIQUE, v text);
ALTER TABLE lost REPLICA IDENTITY USING INDEX lost_id_key;
ALTER TABLE lost DROP CONSTRAINT lost_id_key;
CREATE UNLOGGED TABLE fleeting (id int, v text);
CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE "parts 2" PARTITION OF parts FOR VALUES FROM (10) TO (20);
CREATE UNLOGGED TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30);
ALTER TABLE parts_1 REPLICA IDENTITY NOTHING; ALTER TABLE "parts 2" REPLICA IDENTITY NOTHING;
CREATE TABLE root (id int NOT NULL, v text, UNIQUE (id)) PARTITION BY RANGE (id);
CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (10);
CREATE TABLE made (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE wide (id int PRIMARY KEY, v text, n numeric, m numeric(50, 20));
CREATE TABLE hidden (id int PRIMARY KEY, v text);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
"""
NAMES = [
    "plain", '"user"."order"', '"Odd ""one"" s".heap', "uniq", "part_uniq", "late", "nothing",
    "lost", "fleeting", "parts", "root", "made", "wide", "hidden",
]  # fmt: skip

#: How the publication is when `check` runs for the first time.
PUBLICATIONS = {
    "none": "",
    "of a DBA, empty": "CREATE PUBLICATION dlt_cdc_pub",
    "of a DBA, for inserts": "CREATE PUBLICATION dlt_cdc_pub FOR TABLE plain, uniq, late, parts, "
    "excluded WITH (publish = 'insert')",
    "of a DBA, with a list": "CREATE PUBLICATION dlt_cdc_pub FOR TABLE plain (v) WHERE (id > 3), "
    "made (id, v)",
    "of a DBA, for all": "CREATE PUBLICATION dlt_cdc_pub FOR ALL TABLES WITH (publish = 'insert')",
    "of the role": "GRANT CREATE ON DATABASE {database} TO {role};"
    "CREATE PUBLICATION dlt_cdc_pub; ALTER PUBLICATION dlt_cdc_pub OWNER TO {role}",
}


@pytest.fixture
def role(database: str, sql: psycopg.Connection) -> Iterator[str]:
    """The DSN of a role that may do nothing, whose name must be quoted."""
    name = '"select"'
    sql.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'".encode())
    sql.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    parts = urlsplit(database)
    place = f"select:pw@{parts.hostname}:{parts.port}"
    yield urlunsplit(parts._replace(netloc=place))
    sql.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def statements(found: Finding) -> list[str]:
    """The statements of a line, none where it advises something else."""
    if not SQL.match(found.cure):
        return []
    return found.cure.partition(", then ")[0].split("; ")


@pytest.mark.parametrize("publication", PUBLICATIONS)
@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_every_statement_does_what_it_is_for(
    pipeline: Pipeline, sql: psycopg.Connection, role: str, publication: str
) -> None:
    if "list" in publication and sql.info.server_version < 150000:
        pytest.skip("no column lists before PostgreSQL 15")
    schemas = json.dumps(["public", "user", 'Odd "one" s'])
    pipeline.monkeypatch.setenv("SOURCES__PG_REPLICATION__SCHEMAS", schemas)
    pipeline.monkeypatch.setenv("SOURCES__PG_REPLICATION__EXCLUDE", "excluded")
    sql.execute(TABLES)
    sql.execute("CREATE TABLE excluded (id int, v text)")
    made = PUBLICATIONS[publication].format(role='"select"', database=sql.info.dbname)
    sql.execute(made.encode() or b"SELECT 1")
    told: set[tuple[str, str]] = set()
    for _ in range(4):
        found = [line for line in pipeline.check(role) if statements(line)]
        assert not told.intersection((line.subject, line.sentence) for line in found)
        told = {(line.subject, line.sentence) for line in found}
        for line in found:
            for statement in statements(line):
                if "ALTER SYSTEM" not in statement:  # the server is all tests'
                    sql.execute(statement.encode())
        told = {one for one in told if one[0] != "max_slot_wal_keep_size"}
        for name in [*NAMES, "excluded"]:
            sql.execute(f"INSERT INTO {name} (id, v) VALUES (7, 'a')".encode())
            sql.execute(f"UPDATE {name} SET v = 'b' WHERE id = 7".encode())
            sql.execute(f"DELETE FROM {name} WHERE id = 7".encode())
    left = [line for line in pipeline.check(role) if line.level is Level.FAIL]
    assert not left
    # The role needed nothing else.
    pipeline.monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", role)
    pipeline.snapshot()
    streamed = [line for line in pipeline.check(role) if "not streamed" in line.sentence]
    assert not streamed
    pipeline.cdc()
    assert pipeline.verify().equal


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_nothing_that_is_advised_loses_data(pipeline: Pipeline, sql: psycopg.Connection) -> None:
    sql.execute(TABLES)
    sql.execute('CREATE TABLE clash (id int PRIMARY KEY, "ID" int, n numeric(60, 30))')
    for line in pipeline.check():
        assert not re.search(
            r"DROP (?!TABLE ONLY)|TYPE |RENAME|TRUNCATE|DELETE FROM|terminate|ROLLBACK|drop_repl"
            r"|OWNER TO|SUPERUSER|ALL TABLES|slot drop|cleanup",
            line.cure,
        ), line
        if "DECIMAL" in line.sentence:
            assert not statements(line)


def test_the_line_of_a_run_that_is_refused_leads_to_one_that_is_not(
    database: str, sql: psycopg.Connection, role: str, tmp_path: Path
) -> None:
    """Each time the statement of the line is run as it is, until none is missing."""
    sql.execute(TABLES)
    sql.execute(f'REVOKE CONNECT ON DATABASE "{sql.info.dbname}" FROM PUBLIC'.encode())
    sql.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    sql.execute("ALTER TABLE hidden DISABLE ROW LEVEL SECURITY")
    pipeline = InProcess(role, LocalLake("duckdb", tmp_path))
    told: list[str] = []
    while line := refused(pipeline):
        before = len(told)
        for part in line.split("; ")[1:]:
            statement = re.sub(r"^run( as [\w ']+)?: ", "", part)
            statement = statement.partition(" (RDS")[0].partition(", then")[0]
            if SQL.match(statement):
                told.append(statement)
                sql.execute(statement.encode())
        assert before < len(told) < 50, line
    assert len(told) == len({*told}) > 4, told
    assert not [statement for statement in told if "<" in statement]


def refused(pipeline: InProcess) -> str:
    """The line of a snapshot; empty once it is done."""
    try:
        return pipeline.run("snapshot", code=3).splitlines()[-1]
    except AssertionError:
        pipeline.run("snapshot")
        return ""
