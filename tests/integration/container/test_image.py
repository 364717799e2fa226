"""The image, built and run. Needs a container engine that has the base image or can pull it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from deltalake import DeltaTable

from adapters.embedded_postgres import EmbeddedPostgres
from tests.support.container_engine import docker, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
IMAGE = "pgbronze-test"

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    built = docker("build", "--network=host", "--tag", IMAGE, str(ROOT))
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    yield IMAGE
    docker("image", "rm", "--force", IMAGE)


def test_it_is_the_command_without_root(image: str) -> None:
    run = ("run", "--rm", "--network=none")
    assert docker(*run, image, "--version").stdout.startswith("pgbronze ")
    assert docker(*run, "--entrypoint=id", image, "-u").stdout == "10001\n"
    refused = docker(*run, image, "status")
    assert refused.returncode == 2, refused.stderr


def test_it_follows_a_database_and_says_that_it_is_healthy(image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    name = f"pgbronze-{uuid4().hex[:8]}"
    with EmbeddedPostgres() as server, psycopg.connect(server.dsn, autocommit=True) as sql:
        sql.execute("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)")
        options = (
            "--network=host",
            f"--volume={tmp_path}:/data",
            f"--env=SOURCES__PG_REPLICATION__CREDENTIALS={server.dsn}",
            "--env=PIPELINE__DESTINATION=delta",
        )
        loaded = docker("run", "--rm", *options, image, "snapshot")
        assert loaded.returncode == 0, loaded.stderr
        started = docker(
            "run", "--detach", f"--name={name}", "--health-interval=2s", *options, image
        )
        assert started.returncode == 0, started.stderr
        try:
            sql.execute("INSERT INTO orders VALUES (2)")
            table = tmp_path / "lakehouse/bronze/orders"
            _wait(lambda: _rows(table) == [1, 2], name)
            _wait(lambda: _state(name)["Health"]["Status"] == "healthy", name)
            docker("stop", "--time=60", name)
            assert _state(name)["ExitCode"] == 0, docker("logs", name).stderr
        finally:
            docker("rm", "--force", "--volumes", name)


def _rows(table: Path) -> list[int]:
    return sorted(DeltaTable(table).to_pyarrow_dataset().to_table().column("id").to_pylist())


def _state(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(docker("inspect", name).stdout)[0]["State"]
    return found


def _wait(done: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + 90
    while not done():
        assert time.monotonic() < deadline, docker("logs", name).stderr[-3000:]
        time.sleep(0.5)
