"""Faults while a Spark session runs the statements: the same retries and errors as a warehouse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from adapters.dlt_destination.databricks import spark_connection
from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.errors import CdcError, DestinationForbidden, DestinationUnavailable
from cdc_core.values.merges import LoadBatch, TargetTable
from tests.contracts.destination_contract import checkpoint, keyed
from tests.integration.databricks.conftest import PATIENCE
from tests.support.spark_engine import opened_by, session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

ORDERS = TargetTable("orders", pa.schema([("id", pa.int64()), ("note", pa.string())]))


@pytest.fixture
def session(warehouse: Warehouse) -> Iterator[Any]:
    with session_of(warehouse) as session:
        yield session


@pytest.fixture
def opened(warehouse: Warehouse, session: Any, tmp_path: Path) -> Callable[[], Destination]:
    settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
    return opened_by(session, warehouse, settings, PATIENCE)


def batch(number: int) -> LoadBatch:
    rows = [{"id": n, "note": f"n{number}", "_cdc_lsn": number} for n in range(3)]
    return LoadBatch(merges=(keyed(ORDERS, rows),))


@pytest.mark.parametrize("kind", ["conflict", "drop_before", "drop_after"])
@pytest.mark.parametrize("pattern", ["MERGE INTO .*orders", "_dlt_loads", "CREATE TABLE"])
def test_a_statement_is_sent_again(
    opened: Callable[[], Destination], warehouse: Warehouse, pattern: str, kind: str
) -> None:
    warehouse.add_fault(pattern, kind, nth=1)
    with opened() as destination:
        destination.load(batch(2), checkpoint(2))
        destination.load(batch(3), checkpoint(3))
        found = destination.read_checkpoint()
    assert found is not None
    assert found.lsn == 3
    assert all(fault["fired"] for fault in warehouse.faults())
    assert warehouse.read_table("bronze", "orders").column("note").to_pylist() == ["n3"] * 3


@pytest.mark.parametrize(
    ("error_class", "message"),
    [
        ("INSUFFICIENT_PERMISSIONS", "User does not have MODIFY on TABLE 'main.bronze.orders'."),
        ("NO_SUCH_CATALOG_EXCEPTION", "Catalog 'main' was not found."),
        ("DELTA_NOT_NULL_CONSTRAINT_VIOLATED", "NOT NULL constraint violated for column: note."),
        ("INTERNAL_ERROR", "Key 4711 of 'somebody' is odd."),
    ],
)
def test_errors_are_those_of_a_warehouse(
    opened: Callable[[], Destination],
    warehouse: Warehouse,
    tmp_path: Path,
    error_class: str,
    message: str,
) -> None:
    """Word for word, but for the ID that only a warehouse gives a statement."""
    settings = PipelineSettings("pgbronze", "bronze", tmp_path / "other")
    by_warehouse = databricks_destination(
        settings, warehouse.dlt_credentials(), retry_policy=PATIENCE
    )
    with opened() as destination:
        destination.load(batch(2), checkpoint(2))
    warehouse.add_fault("MERGE", "error", error_class=error_class, message=message, times=99)
    errors = []
    for destination in (opened(), by_warehouse):
        with destination, pytest.raises(CdcError) as raised:
            destination.load(batch(3), checkpoint(3))
        text = re.sub(r" \(statement [0-9a-f-]+\)", "", str(raised.value))
        errors.append((type(raised.value), text.replace("DatabaseError", "…")))
    assert errors[0] == errors[1]
    assert "4711" not in errors[0][1]


def test_a_session_that_has_ended(opened: Callable[[], Destination], session: Any) -> None:
    with opened() as destination:
        destination.load(batch(2), checkpoint(2))
        session.stop()
        with pytest.raises(DestinationUnavailable, match="Spark session has ended; run the job"):
            destination.load(batch(3), checkpoint(3))


def test_the_session_is_as_strict_as_a_warehouse(
    opened: Callable[[], Destination], session: Any
) -> None:
    with opened() as destination:
        assert destination.read_checkpoint() is None
    assert session.conf.get("spark.sql.ansi.enabled") == "true"
    assert session.conf.get("spark.sql.session.timeZone") == "UTC"


def test_files_of_a_volume_that_may_not_be_written(
    opened: Callable[[], Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "/Volumes/secret")

    with opened() as destination:
        destination.load(batch(2), checkpoint(2))
        monkeypatch.setattr(spark_connection, "_upload", refused)
        with pytest.raises(DestinationForbidden, match="READ VOLUME and WRITE VOLUME"):
            destination.load(batch(3), checkpoint(3))
