"""Check on a real server: all well, and a role that may do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest

from adapters.pgoutput.inspector import PgSourceInspector
from adapters.pgoutput.session.settings import SourceSettings
from cdc_core.check.findings import Level
from cdc_core.check.source_rules import source_findings
from tests.support.lakes import WarehouseLake

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
    for part in (
        "replication slots",
        "may not create it",
        "schema",
        "no SELECT privilege",
        "hides",
    ):
        assert part in said
    for cure in dict.fromkeys(line.cure for line in failing):
        # The exact statement must work as it is printed.
        sql.execute(cure.encode())
    assert not [line for line in pipeline.check(role) if line.level is Level.FAIL]


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_transactions_that_a_snapshot_waits_for(
    pipeline: Pipeline, sql: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_core.check.source_rules.LONG_TRANSACTION_SECONDS", 0.0)
    sql.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    with psycopg.connect(database, application_name="slow report") as other:
        other.execute("INSERT INTO orders VALUES (1)")
        found = [line for line in pipeline.check() if "slow report" in line.sentence]
        assert found
        assert found[0].cure.endswith(f"pg_stat_activity WHERE pid = {other.info.backend_pid}")


PROVIDERS = {
    "rdsadmin": "GRANT rds_replication TO {role}, as the master user",
    "cloudsqlsuperuser": "ALTER ROLE {role} REPLICATION, as a member of cloudsqlsuperuser",
    "azuresu": "ALTER ROLE {role} REPLICATION, as the server's administrator",
    "supabase_admin": "ALTER ROLE {role} REPLICATION, as postgres",
    "neon_superuser": "ALTER ROLE {role} REPLICATION, as a role made in the Neon Console",
}


@pytest.mark.parametrize("mark", PROVIDERS)
@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_a_provider_is_recognized_by_the_servers_settings(
    pipeline: Pipeline, sql: psycopg.Connection, role: str, mark: str
) -> None:
    sql.execute(f"CREATE ROLE {mark}".encode())
    try:
        facts = PgSourceInspector(SourceSettings(role)).facts()
    finally:
        sql.execute(f"DROP ROLE {mark}".encode())
    name = str(urlsplit(role).username)
    (refused,) = (f for f in source_findings(facts) if "replication slots" in f.sentence)
    assert refused.cure.startswith(PROVIDERS[mark].format(role=name))
    # Once the provider's own role is granted, that is enough.
    if mark == "rdsadmin":
        sql.execute(f"CREATE ROLE rds_replication; GRANT rds_replication TO {name}".encode())
        try:
            assert PgSourceInspector(SourceSettings(role)).facts().role.replication
        finally:
            sql.execute("DROP ROLE rds_replication")


def test_the_destination_is_written_to_and_left_as_it_was(
    pipeline: Pipeline, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE orders (id int PRIMARY KEY)")

    def rights() -> Level:
        (line,) = (line for line in pipeline.check() if line.subject == "destination rights")
        return line.level

    assert rights() is Level.OK
    assert held(pipeline) == set()
    pipeline.snapshot()
    before = held(pipeline)
    assert rights() is Level.OK
    assert held(pipeline) == before
    assert any("orders" in name for name in before)


def held(pipeline: Pipeline) -> set[str]:
    """Every table of the DuckDB file, every file of the lake, or every table and volume of the
    warehouse."""
    if isinstance(pipeline.lake, WarehouseLake):
        with pipeline.lake.warehouse.connect() as session, session.cursor() as cursor:
            names = set()
            for kind in ("table", "volume"):
                cursor.execute(
                    f"SELECT {kind}_schema, {kind}_name FROM main.information_schema.{kind}s"
                )
                names |= {f"{schema}.{name}" for schema, name in cursor.fetchall()}
            return names
    if pipeline.lake.kind == "duckdb":
        import duckdb

        file = pipeline.lake.path / "lake.duckdb"
        if not file.exists():
            return set()
        with duckdb.connect(file) as lake:
            query = "SELECT schema_name || '.' || table_name FROM duckdb_tables()"
            return {name for (name,) in lake.execute(query).fetchall()}
    lakehouse = pipeline.lake.path / "lakehouse"
    return {str(path) for path in lakehouse.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pipeline", ["delta"], indirect=True)
def test_a_destination_that_cannot_be_written(pipeline: Pipeline, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    (pipeline.lake.path / "lakehouse").mkdir()
    (pipeline.lake.path / "lakehouse" / "bronze").write_text("no folder")
    failing = [line for line in pipeline.check() if line.level is Level.FAIL]
    assert [line.subject.split()[0] for line in failing] == ["destination"]
    assert "bucket_url" in failing[0].cure


def test_a_source_that_is_not_there(pipeline: Pipeline) -> None:
    found = pipeline.check("postgresql://nobody:pw@127.0.0.1:1/db")
    assert [line.subject for line in found if line.level is Level.FAIL] == ["source"]
    assert "pw" not in " ".join(f"{line.sentence} {line.cure}" for line in found)
