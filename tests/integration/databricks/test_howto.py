"""The pages on Databricks do what they say, as far as it can be done without a workspace."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml
from databricks.bundles.jobs import Job
from databricks.sdk.service.catalog import Privilege

from tests.support.bundle import BUNDLE, ROOT, jobs
from tests.support.lakes import LocalLake, WarehouseLake
from tests.support.pipeline import Pipeline, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse

DEPLOY = (ROOT / "docs/how-to/deploy-databricks.md").read_text()
RECOVER = (ROOT / "docs/how-to/recover.md").read_text()
GRANTS = (ROOT / "docs/how-to/databricks-grants.md").read_text()
COSTS = (ROOT / "docs/explanation/databricks-costs.md").read_text()

GRANT = re.compile(r"GRANT (?P<privileges>.+) ON (?P<kind>CATALOG|SCHEMA) (?P<name>\S+) TO `.+`")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def section(number: int) -> str:
    return DEPLOY.partition(f"\n## {number}. ")[2].partition("\n## ")[0]


def statements(number: int) -> list[list[str]]:
    """The SQL of a numbered section, by block."""
    found = blocks("sql", section(number))
    return [[s.strip() for s in block.split(";") if s.strip()] for block in found]


def sources() -> dict[str, str]:
    """What lets the role replicate, by where the database lives."""
    rows = re.findall(r"^\| (self-hosted|RDS|Neon).*\| `(.*)` \|$", section(1), re.MULTILINE)
    return dict(rows)


# The source.


@pytest.fixture
def shop(database: str) -> Iterator[psycopg.Connection[Any]]:
    """The administrator's connection to the database of the page, and roles that a provider has."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            "CREATE ROLE rds_replication; CREATE ROLE shop_owner;"
            "GRANT ALL ON SCHEMA public TO shop_owner; SET ROLE shop_owner;"
            "CREATE TABLE orders (id int PRIMARY KEY, note text);"
            "CREATE TABLE customers (id int PRIMARY KEY, name text);"
            "INSERT INTO orders VALUES (1, 'a'); INSERT INTO customers VALUES (1, 'b'); RESET ROLE"
        )
        yield admin
        admin.execute("DROP OWNED BY replicator, shop_owner CASCADE")
        admin.execute("DROP ROLE replicator, shop_owner, rds_replication")


def prepare(admin: psycopg.Connection[Any], source: str, publication: int) -> str:
    """Follow section 1; the replicator's connection string. `publication`: the block that is
    chosen, 1 or 2."""
    common, *ways = statements(1)
    name = admin.info.dbname
    for statement in (*common, sources()[source], *ways[publication - 1]):
        admin.execute(statement.replace("DATABASE shop ", f"DATABASE {name} ").encode())
    place = f"{admin.info.host}:{admin.info.port}/{name}"
    return f"postgresql://replicator:choose-one@{place}"


@pytest.mark.parametrize("publication", [1, 2])
def test_the_role_of_the_page_may_do_all_that_is_needed(
    shop: psycopg.Connection[Any], tmp_path: Path, publication: int
) -> None:
    lake = LocalLake("duckdb", tmp_path)
    dsn = prepare(shop, "self-hosted", publication)
    found = Pipeline(dsn, lake).call("check")
    assert "fail" not in found
    service = Service(dsn, lake)
    service.run("snapshot")
    shop.execute("UPDATE orders SET note = 'b'; DELETE FROM customers")
    service.run("cdc")
    assert lake.read("orders").column("note").to_pylist() == ["b"]
    assert lake.read("customers").num_rows == 0


@pytest.mark.parametrize("source", ["RDS", "Neon"])
def test_the_role_of_the_page_may_replicate_elsewhere(
    shop: psycopg.Connection[Any], tmp_path: Path, source: str
) -> None:
    """As far as `check` can tell: on RDS it goes by the membership, which only RDS honours."""
    dsn = prepare(shop, source, publication=2)
    assert "may use replication slots" in Pipeline(dsn, LocalLake("duckdb", tmp_path)).call("check")


# The workspace.


def test_statements_for_the_workspace_run(warehouse: Warehouse) -> None:
    """All but the grants, which the local warehouse has of tables only: their privileges exist."""
    told = [statement for block in statements(3) for statement in block]
    grants = [found for statement in told if (found := GRANT.fullmatch(statement))]
    for grant in grants:
        for privilege in grant["privileges"].split(", "):
            assert Privilege(privilege.replace(" ", "_"))
    assert {grant["name"] for grant in grants} == {"main", "main.bronze", "main.bronze_staging"}
    with warehouse.connect() as session, session.cursor() as cursor:
        for statement in told:
            if not GRANT.fullmatch(statement):
                cursor.execute(statement)
        cursor.execute("CREATE TABLE main.bronze.orders (_cdc_committed_at TIMESTAMP)")
        cursor.execute("CREATE TABLE main.bronze._dlt_loads (inserted_at TIMESTAMP)")
        for statement in statements(6)[0]:
            cursor.execute(statement)


def test_commands_name_what_the_bundle_has() -> None:
    told = "\n".join(blocks("sh", DEPLOY) + blocks("sh", RECOVER))
    runs = re.findall(r"databricks bundle run -t (\w+) (\w+)(?: -- --(\w+)=)?", told)
    assert len(runs) >= 2
    for target, job, parameter in runs:
        found = jobs(target, catalog="main", http_path="x")[job]
        assert not parameter or parameter in [declared["name"] for declared in found["parameters"]]
    text = DEPLOY + RECOVER + GRANTS
    said = re.findall(r'"?(\w+_pause_status)"?: "?(\w+)', text)
    assert {value for _, value in said} == {"PAUSED", "UNPAUSED"}
    assert {name for name, _ in said} <= BUNDLE["variables"].keys()
    assert BUNDLE["variables"]["secret_scope"]["default"] in told
    assert BUNDLE["variables"]["secret_key"]["default"] in told


def test_privileges_of_the_page_on_grants_exist() -> None:
    table = GRANTS.partition("| on | privilege | for |")[2].partition("\n\n")[0]
    told = {name for line in table.splitlines() for name in re.findall(r"`([A-Z ]+)`", line)}
    assert {"USE CATALOG", "MODIFY", "CREATE VOLUME"} <= told
    for found in re.findall(r"(?:GRANT|REVOKE) ([A-Z ,]+) ON", GRANTS):
        told |= set(found.split(", "))
    assert {Privilege(name.replace(" ", "_")) for name in told}


def test_settings_of_the_page_on_grants_are_a_jobs() -> None:
    (example,) = blocks("yaml", GRANTS)
    settings = yaml.safe_load(example)["targets"]["prod"]
    for job in jobs("prod", catalog="main", http_path="x").values():
        found = Job.from_dict({**job, **settings}).as_dict()
        assert {key: found[key] for key in settings} == settings


def test_variables_of_the_page_are_the_bundles() -> None:
    (example,) = blocks("yaml", section(4))
    (target, settings), *_ = yaml.safe_load(example)["targets"].items()
    for job in jobs(target, **settings["variables"]).values():
        job["run_as"] = settings["run_as"]
        assert Job.from_dict(job).run_as.service_principal_name


def test_a_schedule_takes_the_place_of_the_continuous_job() -> None:
    (example,) = blocks("yaml", section(7))
    ((name, scheduled),) = yaml.safe_load(example)["resources"]["jobs"].items()
    job = jobs("prod", catalog="main", http_path="x")[name]
    declared = [parameter["name"] for parameter in job["parameters"]]
    assert [parameter["name"] for parameter in scheduled["parameters"]] == declared
    del job["continuous"]
    assert Job.from_dict({**job, **scheduled}).schedule.timezone_id == "UTC"


# What a run costs.


@pytest.mark.needs_warehouse("Number of statements")
def test_costs_are_those_of_the_page(database: str, warehouse: Warehouse, tmp_path: Path) -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| `([^`]+)` \| (\d+) \| (\d+) \| (\d+) \|$", COSTS, re.MULTILINE
    )
    formulas = {run: formula for run, formula, *_ in rows}
    for _, formula, *cells in rows:
        assert [eval(formula, {"n": n}) for n in (1, 10, 50)] == [int(cell) for cell in cells]
    tables = 3
    service = Service(
        database, WarehouseLake(warehouse, tmp_path), settings={"PIPELINE__RECEIPTS": "false"}
    )

    def counted(command: str) -> int:
        warehouse.clear_log()
        service.run(command)
        assert warehouse.counters()["sessions"] <= 8
        return warehouse.counters()["statements"]

    with psycopg.connect(database, autocommit=True) as connection:
        for n in range(tables):
            connection.execute(
                f"CREATE TABLE t{n} (id int PRIMARY KEY); INSERT INTO t{n} VALUES (0)"
            )
        found = {"first snapshot": counted("snapshot"), "next snapshot": counted("snapshot")}
        for run in ("first CDC", "next CDC"):
            for n in range(tables):
                connection.execute(f"UPDATE t{n} SET id = id + 1")
            found[run] = counted("cdc")
        found["CDC without a change"] = counted("cdc")
    assert found == {run: eval(formula, {"n": tables}) for run, formula in formulas.items()}


# Recovery, where it is Databricks' own.


def test_staging_is_made_again_and_holds_no_tables(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    lake = WarehouseLake(warehouse, tmp_path)
    service = Service(database, lake)
    with (
        psycopg.connect(database, autocommit=True) as connection,
        warehouse.connect() as session,
        session.cursor() as cursor,
    ):
        connection.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (0)")
        service.run("snapshot")
        for n, loss in enumerate(
            (
                "SELECT 1",
                "DROP VOLUME main.bronze_staging._dlt_staging_load_volume",
                "DROP SCHEMA main.bronze_staging CASCADE",
                "DROP VOLUME main.bronze._dlt_staging_load_volume",
            )
        ):
            cursor.execute(loss)
            connection.execute("UPDATE a SET id = %s", [n])
            service.run("cdc")
            assert lake.read("a").column("id").to_pylist() == [n]
            cursor.execute("SHOW TABLES IN main.bronze_staging")
            assert cursor.fetchall() == []
        service.run("snapshot")
        assert lake.read("a").num_rows == 1
