"""Check on a real server: all well, and a role that may do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest

from cdc_core.findings import Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.verify.conftest import Pipeline

SHOP = """
CREATE TABLE orders (id int PRIMARY KEY, "Total" numeric, total numeric(9, 2));
CREATE TABLE log (line text);
CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
"""


@pytest.fixture
def role(database: str, sql: psycopg.Connection) -> Iterator[str]:
    """The DSN of a role without any right beyond connecting."""
    name = f"nobody_{uuid4().hex[:8]}"
    sql.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'".encode())
    parts = urlsplit(database)
    place = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{name}:secret@{place}"))
    sql.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_lines_of_a_healthy_source(pipeline: Pipeline, sql: psycopg.Connection) -> None:
    sql.execute(SHOP)
    for _ in ("before the snapshot", "after it"):
        found = pipeline.check()
        assert not [line for line in found if line.level is Level.FAIL]
        by_subject = {line.subject: line for line in found if line.subject.startswith("public.")}
        assert by_subject["public.log"].cure.endswith('"public"."log" REPLICA IDENTITY FULL')
        assert "SET LOGGED" in by_subject["public.scratch"].cure
        orders = [line.sentence for line in found if line.subject == "public.orders"]
        assert any("total" in sentence and "becomes" in sentence for sentence in orders)
        assert any("STRING" in sentence for sentence in orders)
        computed = by_subject["public.computed"]
        sends_generated = sql.info.server_version >= 180000
        assert computed.level is (Level.OK if sends_generated else Level.WARN)
        pipeline.snapshot()


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_every_cure_for_a_role_without_rights_works(
    pipeline: Pipeline, sql: psycopg.Connection, role: str
) -> None:
    sql.execute("CREATE SCHEMA IF NOT EXISTS public; CREATE TABLE orders (id int PRIMARY KEY)")
    sql.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    sql.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    failing = [line for line in pipeline.check(role) if line.level is Level.FAIL]
    said = " ".join(line.sentence for line in failing)
    for part in ("replication slots", "may not create it", "schema", "read it", "hides", "own it"):
        assert part in said
    for line in failing:
        # Of two ways the first; the exact statement must work as it is printed.
        sql.execute(line.cure.partition(", or ")[0].encode())
    assert not [line for line in pipeline.check(role) if line.level is Level.FAIL]


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_transactions_that_a_snapshot_waits_for(
    pipeline: Pipeline, sql: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_core.source_rules.LONG_TRANSACTION_SECONDS", 0.0)
    sql.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    with psycopg.connect(database, application_name="slow report") as other:
        other.execute("INSERT INTO orders VALUES (1)")
        found = [line for line in pipeline.check() if "slow report" in line.sentence]
        assert found
        assert found[0].cure == f"SELECT pg_terminate_backend({other.info.backend_pid})"


def test_a_source_that_is_not_there(pipeline: Pipeline) -> None:
    found = pipeline.check("postgresql://nobody:pw@127.0.0.1:1/db")
    assert [line.subject for line in found if line.level is Level.FAIL] == ["source"]
    assert "pw" not in " ".join(f"{line.sentence} {line.cure}" for line in found)
