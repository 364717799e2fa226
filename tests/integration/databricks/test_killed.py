"""A run is killed while a statement of it goes on in the warehouse: running again is the cure."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.databricks.test_faults import ROWS, changes, snapshot
from tests.support.bundle import ROOT
from tests.support.forked import Process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

from tests.contracts.destination_contract import checkpoint, content

_RUN = """
import sys
from pathlib import Path
from adapters.dlt_destination.settings import PipelineSettings
from tests.contracts.destination_contract import checkpoint
from tests.integration.databricks import test_faults
from tests.integration.warehouse.client import Warehouse
from tests.support.spark_engine import databricks_on

warehouse, work = Warehouse.from_json(sys.argv[1]), Path(sys.argv[2])
batch, in_one_transaction = sys.argv[3], sys.argv[4] == "True"
with databricks_on(
    warehouse,
    PipelineSettings("pgbronze", "bronze", work),
    multi_table_transaction=in_one_transaction,
) as destination:
    if batch == "snapshot":
        destination.load(test_faults.snapshot(destination, 11), checkpoint(11))
    else:
        destination.load(test_faults.changes(11), checkpoint(11))
"""


@pytest.mark.parametrize(
    ("batch", "statement", "in_one_transaction"),
    [
        pytest.param(*("changes", "PUT", False), marks=pytest.mark.needs_warehouse("Files")),
        ("changes", "MERGE INTO", False),
        ("changes", "INSERT INTO .*_dlt_loads", False),
        ("snapshot", "INSERT OVERWRITE", False),
        ("snapshot", "BEGIN ATOMIC", True),
    ],
)
def test_a_killed_run_is_run_again(
    opened: Callable[[], Destination],
    warehouse: Warehouse,
    tmp_path: Path,
    batch: str,
    statement: str,
    *,
    in_one_transaction: bool,
) -> None:
    """The statement waits in the warehouse until the next run is over, and must do no harm then."""
    with opened() as destination:
        destination.load(snapshot(destination, 10), checkpoint(10))
    # Tables are loaded side by side; none of a snapshot's may be done when the run is killed.
    warehouse.add_fault(statement, "hold", times=2 if statement == "INSERT OVERWRITE" else 1)
    arguments = [warehouse.to_json(), str(tmp_path / "work"), batch, str(in_one_transaction)]
    environment = {**os.environ, "PIPELINE__DESTINATION": "databricks"}
    process = Process(arguments, environment, ROOT, script=_RUN, inherit=True)
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
        warehouse.clear_faults()
        while any(entry["status"] == "running" for entry in warehouse.statements()):
            time.sleep(0.05)
        rows = content(destination, "orders", "id", "note")
        assert rows == [(n, "n12") for n in range(ROWS)]
        bag = sorted(what for (what,) in content(destination, "bag", "what"))
        assert bag == ["n10"] * (ROWS - 1) + ["n12"]
    with opened() as destination:
        # An upload of the killed run may have arrived behind the sweep of the next one.
        destination.load(changes(13), checkpoint(13))
        assert destination.volumes() == {
            "main.bronze._dlt_staging_load_volume": [],
            "main.bronze_staging._dlt_staging_load_volume": [],
        }
