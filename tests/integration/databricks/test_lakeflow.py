"""The wheel as Databricks runs it: built by the bundle, installed beside what serverless ships, and
called with the bundle's arguments where Delta Live Tables is in the way; on the local warehouse.

Not simulated: the network between workspace and source; what a workspace lets a job's login do.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from databricks.sdk import WorkspaceClient

from adapters.pgoutput.slot.writer_lock import take_writer_lock
from tests.support import constraints
from tests.support.bundle import jobs, parameters, tasks
from tests.support.clean_environment import CleanEnvironment, built_wheel, clean_environment, uv
from tests.support.delta_live_tables import in_the_way
from tests.support.forked import Process
from tests.support.lakes import WarehouseLake
from tests.support.spark_engine import ENGINE
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.integration.warehouse.client import Warehouse

HERE = Path(__file__).parent
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ (DEBUG|INFO|WARNING|ERROR) +\S.*")
PASSWORD = "Zebra-Crossing-77"

#: How a job's login reaches the SDK: by the runtime's own module, not by the environment.
LOGIN = """
import sys, types
context = types.SimpleNamespace(workspaceUrl={host!r}, apiToken={token!r})
sys.modules["dbruntime"] = types.ModuleType("dbruntime")
sys.modules["dbruntime.databricks_repl_context"] = found = types.ModuleType("context")
found.get_context = lambda: context
"""


#: A job's own session and the folders of its volumes. The client is beside the environment's own
#: packages, because the environment does not list Databricks' build of it.
SESSION = """
import sys
sys.path.append({client!r})
from pathlib import Path
from pyspark.sql import SparkSession
SparkSession.builder.remote({remote!r}).getOrCreate()
from adapters.dlt_destination.databricks import spark_connection
def volume_path(place):
    catalog, schema, volume, *rest = place.removeprefix("/Volumes/").split("/")
    return Path({root!r}, catalog, schema, "volumes", volume, *rest)
spark_connection.volume_path = volume_path
"""
#: The version of Spark's client in each serverless environment.
CLIENTS = {"4": "4.0", "5": "4.0", "6": "4.1"}


class JobLake(WarehouseLake):
    """Nothing is set but how the connector reaches a warehouse that is not on the internet."""

    def __post_init__(self) -> None:
        lines = ["[destination.databricks.credentials.connection_parameters]"]
        lines += [
            f"{key} = {json.dumps(value)}"
            for key, value in self.warehouse.connection_parameters.items()
        ]
        (self.path / ".dlt").mkdir()
        (self.path / ".dlt" / "config.toml").write_text("\n".join(lines))


@dataclass(frozen=True)
class Outcome:
    succeeded: bool
    code: int | None
    error: str
    dlt: str
    credentials: bool
    log: list[str]


@dataclass(frozen=True)
class Workspace:
    """Runs the bundle's tasks: `way` is how Delta Live Tables is in the way."""

    environment: CleanEnvironment
    warehouse: Warehouse
    folder: Path
    #: Python that gives the job a Spark session, as a job on Databricks has one.
    session: str = ""

    @property
    def principal(self) -> dict[str, str]:
        """Variables of the bundle that have a service principal load, instead of the job's own."""
        return {
            "server_hostname": self.warehouse.server_hostname,
            "client_id": self.warehouse.client_id,
            "client_secret_key": "principal",
        }

    def run(
        self,
        way: str,
        name: str,
        mode: str = "",
        variables: Mapping[str, str] = MappingProxyType({}),
        task: str = "",
        **job_parameters: str,
    ) -> Outcome:
        """Run the job's task, or `pipeline_main` with its arguments if there is a mode."""
        prepared, outcome = self._prepared(way, name, mode, variables, task, job_parameters)
        log = self._logged([json.dumps(prepared), str(outcome)])
        assert outcome.exists(), "\n".join(log)
        return Outcome(**json.loads(outcome.read_text()), log=log)

    @contextmanager
    def running(self, name: str, **job_parameters: str) -> Iterator[Callable[[], Outcome]]:
        """The job's run goes on meanwhile; what is yielded waits for its end."""
        with ThreadPoolExecutor(1) as threads:
            run = threads.submit(self.run, "hook first", name, **job_parameters)
            yield lambda: run.result(120)

    def _prepared(
        self,
        way: str,
        name: str,
        mode: str,
        variables: Mapping[str, str],
        task_key: str,
        job_parameters: Mapping[str, str],
    ) -> tuple[dict[str, Any], Path]:
        job = jobs(
            "prod",
            catalog=self.warehouse.catalog,
            secret_scope="team",
            secret_key="shop",
            **{"http_path": "" if self.session else self.warehouse.http_path, **variables},
        )[name]
        task_key = task_key or name
        script = tasks(job)[task_key]
        arguments = parameters(job, task_key, **job_parameters)
        task = {
            "before": self._login + self.session + in_the_way(way, self.folder),
            "package_name": script["package_name"],
            "entry_point": "pipeline_main" if mode else script["entry_point"],
            "parameters": [*arguments, f"--mode={mode}"] if mode else arguments,
        }
        outcome = self.folder / f"{task_key}.json"
        outcome.unlink(missing_ok=True)
        return task, outcome

    @property
    def _login(self) -> str:
        told = LOGIN.replace("{host!r}", repr(self.warehouse.server_hostname))
        return told.replace("{token!r}", repr(self.warehouse.token))

    def _logged(self, arguments: list[str]) -> list[str]:
        """The lines that the process writes to its terminal, which must show as plain ones."""
        ours, theirs = pty.openpty()
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TERM": "xterm-256color",
            "DATABRICKS_RUNTIME_VERSION": "client.4.15",
            "REQUESTS_CA_BUNDLE": self.warehouse.ca_file,
        }
        process = Process(
            arguments,
            environ,
            self.folder,
            script=(HERE / "wheel_task.py").read_text(),
            terminal=theirs,
            python=self.environment.python,
        )
        os.close(theirs)
        text = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                while piece := terminal.read(1 << 16):
                    text += piece
            except OSError:
                pass  # the other end is closed: how Linux says that there is no more
        assert process.wait(60) == 0, text.decode()
        return text.decode().replace("\r\n", "\n").splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module", params=["4"])
def serverless(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> CleanEnvironment:
    """The bundle's serverless environment, or the one that the test asks for."""
    return clean_environment(tmp_path_factory.mktemp("clean"), wheel, request.param)


@pytest.fixture
def workspace(
    serverless: CleanEnvironment,
    warehouse: Warehouse,
    tmp_path: Path,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:
    """A workspace whose secret scope holds the connection string of the database, with the chosen
    engine."""
    for name, value in warehouse.environment.items():
        monkeypatch.setenv(name, value)
    scopes = WorkspaceClient().secrets
    if "team" not in [scope.name for scope in scopes.list_scopes()]:
        scopes.create_scope("team")
    user = f"app_{urlsplit(database).path[1:]}"
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    place = urlsplit(database).netloc.rpartition("@")[2]
    dsn = f"postgresql://{user}:{PASSWORD}@{place}{urlsplit(database).path}"
    scopes.put_secret("team", "shop", string_value=dsn)
    scopes.put_secret("team", "principal", string_value=warehouse.client_secret)
    found = Workspace(serverless, warehouse, tmp_path)
    return in_sessions(found) if ENGINE == "spark" else found


def in_sessions(workspace: Workspace) -> Workspace:
    """The same without a warehouse: the jobs' own Spark sessions run the statements."""
    environment, warehouse = workspace.environment, workspace.warehouse
    client = environment.python.parents[2] / "client"
    if not client.exists():
        uv(
            *("pip", "install", "--target", str(client), "--python", str(environment.python)),
            f"pyspark-client=={CLIENTS[environment.version]}.*",
            *("--constraints", str(constraints.shipped_file(environment.version))),
        )
    session = SESSION.format(
        client=str(client), remote=warehouse.spark_remote(), root=warehouse.root
    )
    return replace(workspace, session=session)


every_environment = pytest.mark.parametrize("serverless", constraints.ENVIRONMENTS, indirect=True)


@every_environment
def test_the_wheel_replaces_nothing_that_databricks_ships(
    serverless: CleanEnvironment, request: pytest.FixtureRequest
) -> None:
    shipped = constraints.shipped(request.node.callspec.params["serverless"])
    told = subprocess.run([serverless.python, "-V"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("Python 3.12.")
    there = serverless.versions
    assert {"numpy", "pandas", "pyarrow", "pydantic", "databricks-sdk"} <= there.keys()
    both = there.keys() & shipped.keys() - constraints.NOT_PINNED
    assert {name: there[name] for name in both} == {name: shipped[name] for name in both}
    pins = constraints.pins_of(constraints.CONSTRAINTS)
    assert {name: there[name] for name in pins} == pins
    assert there.keys() - both - pins.keys() - {"pgbronze", *constraints.NOT_PINNED} == set()


@every_environment
def test_the_wheel_runs_in_every_environment(workspace: Workspace, database: str) -> None:
    lake = JobLake(workspace.warehouse, workspace.folder)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=22)
        for name, more in (("full_load", {}), ("cdc_stream", {"follow_seconds": "0"})):
            workload.run(20)
            found = workspace.run("hook first", name, **more)
            assert found.succeeded, found
            assert_equal(connection, lake)


@every_environment
def test_the_jobs_run_without_a_warehouse(workspace: Workspace, database: str) -> None:
    warehouse = workspace.warehouse
    workspace = in_sessions(workspace)
    lake = JobLake(warehouse, workspace.folder)
    before = warehouse.counters().get("thrift_requests", 0)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=24)
        for name, more in (("full_load", {}), ("cdc_stream", {"follow_seconds": "0"})):
            workload.run(20)
            found = workspace.run("hook first", name, **more)
            assert found.succeeded, found
            assert_equal(connection, lake)
    assert warehouse.counters().get("thrift_requests", 0) == before


def test_the_jobs_end_equal_whatever_is_in_the_way_of_dlt(
    workspace: Workspace, database: str
) -> None:
    """In the ways that differ most; the import alone is tested in each."""
    lake = JobLake(workspace.warehouse, workspace.folder)
    to_the_end = {"follow_seconds": "0"}
    principal = {"variables": workspace.principal}
    runs: list[tuple[str, str, str, dict[str, Any]]] = [
        ("stub first on the path", "full_load", "snapshot", {}),
        ("hook first", "cdc_stream", "", to_the_end),
        ("hook and stub together", "cdc_stream", "cdc", {**principal, **to_the_end}),
        ("hook served its module already", "full_load", "", {**principal, "tables": "plain, heap"}),
        ("stub imported already", "cdc_stream", "", {"follow_seconds": "2"}),
    ]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=21)
        workload.run(20)
        for way, name, mode, more in runs:
            found = workspace.run(way, name, mode, **more)
            assert found.succeeded, (way, found)
            assert found.dlt.startswith(str(workspace.environment.python.parents[1])), way
            assert found.credentials, "not where dlt's configuration finds them"
            assert all(LINE.fullmatch(line) for line in found.log), (way, found.log)
            assert f"{'snapshot' if name == 'full_load' else 'cdc'} done: " in found.log[-1]
            for secret in (PASSWORD, workspace.warehouse.token, workspace.warehouse.client_secret):
                assert secret not in str(found)
            if "tables" not in more:
                assert_equal(connection, lake)
            workload.run(20)


def test_a_task_fails_with_its_line(workspace: Workspace, database: str) -> None:
    JobLake(workspace.warehouse, workspace.folder)
    found = workspace.run("hook first", "full_load", tables="nowhere", log_level="DEBUG")
    assert (found.succeeded, found.code) == (False, 2)
    assert found.error.startswith("pgbronze: ")
    assert found.error in found.log
    assert PASSWORD not in str(found)


def test_a_stream_that_was_never_loaded_does_no_harm_and_begins_by_itself(
    workspace: Workspace, database: str
) -> None:
    """So a deployment need not pause it: it waits, and streams once the first load is done."""
    lake = JobLake(workspace.warehouse, workspace.folder)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=23)
        workload.run(20)
        for follow in ("0", "3"):
            found = workspace.run("hook first", "cdc_stream", follow_seconds=follow)
            assert (found.succeeded, found.error) == (True, "")
            assert "nothing to stream before the first snapshot" in found.log[-1]
        left = connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
        assert left == []
        with workspace.running("cdc_stream", follow_seconds="25") as waited:
            assert workspace.run("hook first", "full_load").succeeded
            workload.run(20)
            found = waited()
        assert (found.succeeded, found.error) == (True, "")
        # Which of the two it waited for depends on which run came first.
        waits = re.compile("no snapshot was taken yet|waiting for its end")
        assert any(map(waits.search, found.log))
        assert found.log[-1].partition("cdc done: ")[2].startswith(tuple("123456789"))
        assert_equal(connection, lake)
        # A loss is no beginning: the dataset is gone, but the slot says that there was one.
        with workspace.warehouse.connect() as session, session.cursor() as cursor:
            cursor.execute("DROP SCHEMA main.bronze CASCADE")
        found = workspace.run("hook first", "cdc_stream", follow_seconds="0")
        assert (found.succeeded, found.code) == (False, 3)


def test_a_full_load_waits_for_whoever_has_the_slot(workspace: Workspace, database: str) -> None:
    """Nobody has to pause the stream for it."""
    lake = JobLake(workspace.warehouse, workspace.folder)
    ours = "SELECT 1 FROM pg_stat_activity WHERE usename LIKE 'app_%' AND query ~ 'advisory'"
    with (
        psycopg.connect(database, autocommit=True) as connection,
        psycopg.connect(database, autocommit=True) as stream,
    ):
        connection.execute(TABLES)
        Workload(connection, seed=24).run(20)
        take_writer_lock(stream, "dlt_cdc_slot")
        with workspace.running("full_load") as ended:
            while connection.execute(ours).fetchone() is None:
                time.sleep(0.05)
            stream.close()
            found = ended()
        assert (found.succeeded, found.error) == (True, "")
        assert any("waiting for its end" in line for line in found.log)
        assert_equal(connection, lake)


def test_health_fails_where_a_command_does(workspace: Workspace, database: str) -> None:
    JobLake(workspace.warehouse, workspace.folder)

    def outcomes(*commands: str) -> dict[str, Outcome]:
        found = {
            task: workspace.run("hook and stub together", "health", task=task) for task in commands
        }
        for outcome in found.values():
            assert outcome.dlt.startswith(str(workspace.environment.python.parents[1]))
            assert outcome.credentials
            assert PASSWORD not in str(outcome)
        return found

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)"
        )
        assert workspace.run("hook first", "full_load").succeeded
        found = outcomes("check", "status", "verify")
        assert [outcome.succeeded for outcome in found.values()] == [True, True, True]
        with workspace.warehouse.connect() as session, session.cursor() as cursor:
            cursor.execute("DELETE FROM main.bronze.orders")
        verify = outcomes("verify")["verify"]
        assert (verify.succeeded, verify.code) == (False, 1)
        assert "the log says why" in verify.error
        connection.execute("SELECT pg_drop_replication_slot('dlt_cdc_slot')")
        check = outcomes("check")["check"]
        assert (check.succeeded, check.code) == (False, 3)
