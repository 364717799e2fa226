"""pytest fixture `warehouse`: one local warehouse per test session, in a process of its own.

A process of its own, since dlt and the server would otherwise share one interpreter lock, and a
test may kill what it likes without taking the server along.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.spark_engine import chosen_for

from .client import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPOSITORY = Path(__file__).resolve().parents[3]


@contextlib.contextmanager
def running_warehouse(root: Path, catalog: str = "main") -> Iterator[Warehouse]:
    """Start a warehouse on a free port and end it with the block."""
    log = root.parent / f"{root.name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.integration.warehouse",
                *("--root", str(root), "--catalog", catalog, "--json", "--until-stdin-closes"),
            ],
            cwd=_REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the local warehouse did not start: {log.read_text()[-2000:]}")
        yield Warehouse.from_json(line.decode())
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def warehouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """The server, for the whole session."""
    root = tmp_path_factory.mktemp("warehouse") / "root"
    with running_warehouse(root) as running, chosen_for(running):
        yield running


@pytest.fixture
def warehouse(warehouse_server: Warehouse) -> Iterator[Warehouse]:
    """The session's warehouse, empty and without faults."""
    warehouse_server.reset()
    yield warehouse_server
    warehouse_server.clear_faults()
