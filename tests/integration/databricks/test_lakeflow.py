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
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from databricks.sdk import WorkspaceClient

from tests.support.bundle import jobs, parameters
from tests.support.clean_environment import CleanEnvironment, built_wheel, clean_environment
from tests.support.delta_live_tables import in_the_way
from tests.support.lakes import WarehouseLake
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.integration.warehouse.client import Warehouse

HERE = Path(__file__).parent
SHIPPED = HERE / "serverless-4.txt"
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
        **job_parameters: str,
    ) -> Outcome:
        """Run the job's task, or `pipeline_main` with its arguments if there is a mode."""
        job = jobs(
            "prod",
            catalog=self.warehouse.catalog,
            warehouse_id=self.warehouse.http_path.rpartition("/")[2],
            secret_scope="team",
            secret_key="shop",
            **variables,
        )[name]
        script = job["tasks"][0]["python_wheel_task"]
        arguments = parameters(job, **job_parameters)
        task = {
            "before": self._login + in_the_way(way, self.folder),
            "package_name": script["package_name"],
            "entry_point": "pipeline_main" if mode else script["entry_point"],
            "parameters": [*arguments, f"--mode={mode}"] if mode else arguments,
        }
        outcome = self.folder / "outcome.json"
        outcome.unlink(missing_ok=True)
        command = [str(self.environment.python), "-I", str(HERE / "wheel_task.py")]
        log = self._logged([*command, json.dumps(task), str(outcome)])
        assert outcome.exists(), "\n".join(log)
        return Outcome(**json.loads(outcome.read_text()), log=log)

    @property
    def _login(self) -> str:
        told = LOGIN.replace("{host!r}", repr(self.warehouse.server_hostname))
        return told.replace("{token!r}", repr(self.warehouse.token))

    def _logged(self, command: list[str]) -> list[str]:
        """The lines that the process writes to its terminal, which must show as plain ones."""
        ours, theirs = pty.openpty()
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TERM": "xterm-256color",
            "DATABRICKS_RUNTIME_VERSION": "client.4.15",
            "REQUESTS_CA_BUNDLE": self.warehouse.ca_file,
        }
        process = subprocess.Popen(
            command, cwd=self.folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
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
def serverless(tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    wheel = built_wheel(tmp_path_factory.mktemp("source"))
    pins = jobs("prod", catalog="", warehouse_id="")["full_load"]["environments"][0]["spec"]
    others = ("ipython", *pins["dependencies"][1:])
    return clean_environment(tmp_path_factory.mktemp("clean"), wheel, *others, shipped=SHIPPED)


@pytest.fixture
def workspace(
    serverless: CleanEnvironment,
    warehouse: Warehouse,
    tmp_path: Path,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:
    """A workspace whose secret scope holds the connection string of the database."""
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
    return Workspace(serverless, warehouse, tmp_path)


def test_the_environment_is_what_databricks_ships(serverless: CleanEnvironment) -> None:
    told = subprocess.run([serverless.python, "-V"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("Python 3.12.")
    lines = SHIPPED.read_text().splitlines()
    shipped = dict(line.split("==") for line in lines if not line.startswith("#"))
    there = serverless.versions
    assert {"numpy", "pandas", "pyarrow", "pydantic", "databricks-sdk"} <= there.keys()
    assert {name: there[name] for name in there.keys() & shipped} == {
        name: shipped[name] for name in there.keys() & shipped
    }


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
    found = workspace.run("hook first", "cdc_stream", log_level="DEBUG")
    assert (found.succeeded, found.code) == (False, 3)
    assert found.error.startswith("wal2delta: ")
    assert found.error in found.log
    assert PASSWORD not in str(found)
