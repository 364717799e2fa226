"""Killed at any moment and run again, a destination ends as if it had run once."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.integration.destination import history
from tests.support.bundle import ROOT
from tests.support.forked import Process

if TYPE_CHECKING:
    from pathlib import Path

    from cdc_core.ports.destination import Destination

KILLS = 3


def start(kind: str, folder: Path) -> Process:
    environment = {**os.environ, "PIPELINE__DESTINATION": kind}
    script = "from tests.integration.destination import history; history.main()"
    return Process([kind, str(folder)], environment, ROOT, script=script)


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_killed_at_random_moments(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "databricks":
        told = request.getfixturevalue("warehouse").to_json()
        (tmp_path / "warehouse.json").write_text(told)
    chance = random.Random(7)
    killed = 0
    for attempt in range(KILLS + 5):
        process = start(kind, tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        if attempt < KILLS:
            timer = threading.Timer(chance.uniform(0.0, 1.0), process.kill)
            timer.start()
        status = process.wait(timeout=120)
        if attempt < KILLS:
            timer.cancel()
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
    assert killed
    check(history.open_destination(kind, tmp_path))
    assert not list((tmp_path / "work").iterdir())


def check(destination: Destination) -> None:
    with destination:
        for table, rows in history.expected().items():
            names = [*list(rows[0])[:1], "_cdc_lsn"]
            found = Counter(
                tuple(row[name] for name in names)
                for piece in destination.scan(table, names)
                for row in piece.to_pylist()
            )
            assert found == Counter(tuple(row[name] for name in names) for row in rows)
        checkpoint = destination.read_checkpoint()
        assert checkpoint is not None
        assert checkpoint.lsn == history.STEPS
