"""A run is killed while a statement of it goes on in the warehouse: running again is the cure."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.databricks.test_faults import ROWS, changes, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

from tests.contracts.destination_contract import checkpoint, content

_RUN = """
import sys
from pathlib import Path
from adapters.dlt_destination.factories import databricks_destination
from adapters.dlt_destination.settings import PipelineSettings
from tests.contracts.destination_contract import checkpoint
from tests.integration.databricks import test_faults
from tests.integration.warehouse.client import Warehouse

warehouse, work, batch = Warehouse.from_json(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
settings = PipelineSettings("wal2delta", "bronze", work)
with databricks_destination(settings, warehouse.dlt_credentials()) as destination:
    destination.load(getattr(test_faults, batch)(11), checkpoint(11))
"""


@pytest.mark.parametrize(
    ("batch", "statement"),
    [
        ("changes", "PUT"),
        ("changes", "MERGE INTO"),
        ("changes", "INSERT INTO .*_dlt_loads"),
        ("snapshot", "INSERT OVERWRITE"),
    ],
)
def test_a_killed_run_is_run_again(
    opened: Callable[[], Destination],
    warehouse: Warehouse,
    tmp_path: Path,
    batch: str,
    statement: str,
) -> None:
    """The statement waits in the warehouse until the next run is over, and must do no harm then."""
    with opened() as destination:
        destination.load(snapshot(10), checkpoint(10))
    warehouse.add_fault(statement, "delay", seconds=3.0)
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, warehouse.to_json(), str(tmp_path / "work"), batch]
    )
    try:
        give_up = time.monotonic() + 60
        while not any(fault["fired"] for fault in warehouse.faults()):
            assert time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    with opened() as destination:
        assert destination.read_checkpoint() == checkpoint(10)
        for number in (11, 12):
            destination.load(changes(number), checkpoint(number))
        while any(entry["status"] == "running" for entry in warehouse.statements()):
            time.sleep(0.05)
        rows = content(destination, "orders", "id", "note")
        assert rows == [(n, "n12") for n in range(ROWS)]
        bag = sorted(what for (what,) in content(destination, "bag", "what"))
        assert bag == ["n10"] * (ROWS - 1) + ["n12"]
        assert destination.volumes() == {
            "main.bronze._dlt_staging_load_volume": [],
            "main.bronze_staging._dlt_staging_load_volume": [],
        }
