"""What one fault does to a run, and what the operator is told; `test_sweep` has them all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from adapters.dlt_destination.databricks import retry
from adapters.dlt_destination.databricks.engines import WarehouseEngine
from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.databricks.retry import RetryPolicy
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.errors import CdcError, DestinationFailed, DestinationUnavailable
from cdc_core.values.merges import LoadBatch, TargetTable
from tests.contracts.destination_contract import (
    checkpoint,
    content,
    keyed,
    multiset,
    replacing,
    table_of,
)
from tests.integration.databricks.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

KEYED = TargetTable("orders", pa.schema([("id", pa.int64()), ("note", pa.string())]))
BAG = TargetTable("bag", pa.schema([("what", pa.string())]))

ROWS = 5


def snapshot(destination: Destination, number: int) -> LoadBatch:
    """Two tables as they are at the LSN `number`; their rows are stored."""
    rows = [{"id": n, "note": f"n{number}", "_cdc_lsn": number} for n in range(ROWS)]
    copies = [{"what": f"n{number}", "_cdc_lsn": number}] * ROWS
    return replacing(destination, table_of(KEYED, rows), table_of(BAG, copies))


def changes(number: int) -> LoadBatch:
    """Every row updated; of the bag, one copy less and one of another content more."""
    rows = [{"id": n, "note": f"n{number}", "_cdc_lsn": number} for n in range(ROWS)]
    events = [
        {"what": f"n{number - 1}", "_cdc_op": "D", "_cdc_lsn": number},
        {"what": f"n{number}", "_cdc_lsn": number},
    ]
    return LoadBatch(merges=(keyed(KEYED, rows), multiset(BAG, events)))


@pytest.mark.needs_warehouse("Sessions")
@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "http"])
def test_opening_a_session_is_tried_again(
    opened: Callable[[], Destination], warehouse: Warehouse, kind: str
) -> None:
    warehouse.add_fault("THRIFT OpenSession", kind)
    with opened() as destination:
        assert destination.read_checkpoint() is None


@pytest.mark.needs_warehouse("Sessions")
def test_a_warehouse_that_forgot_all_sessions_gets_the_statement_again(
    opened: Callable[[], Destination],
) -> None:
    """As after its restart: more sessions are of no use then than a statement is tried times."""
    many = [TargetTable(f"t{n}", KEYED.schema) for n in range(12)]
    rows = [{"id": 1, "note": "a", "_cdc_lsn": 2}]
    with opened() as destination:
        destination.load(LoadBatch(merges=tuple(keyed(t, rows) for t in many)), checkpoint(2))
        idle: list[Any] = destination._store.sessions._idle  # type: ignore[attr-defined]
        for _ in range(PATIENCE.attempts + 2 - len(idle)):
            idle.append(_connect(destination))
        for session in idle:
            opened_by = session.connection.session
            opened_by.backend.close_session(opened_by.session_id)
        wider = TargetTable("t0", KEYED.schema.append(pa.field("more", pa.int64())))
        destination.load(LoadBatch(merges=(keyed(wider, []),)), checkpoint(3))
        assert destination.read_checkpoint() == checkpoint(3)


def _connect(destination: Destination) -> Any:
    sessions = destination._store.sessions  # type: ignore[attr-defined]
    idle, sessions._idle = sessions._idle, []
    try:
        return sessions.borrow()
    finally:
        sessions._idle = idle


@pytest.mark.needs_warehouse("No answer")
def test_a_warehouse_that_is_away_is_waited_for_once(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for the statement, and again for the session that it wants."""
    retry_policy, now = RetryPolicy(seconds_away=100.0), [0.0]
    settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")

    def away(*_: Any) -> Any:
        raise ConnectionError("away")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(WarehouseEngine, "connect", away)
    destination = databricks_destination(
        settings, warehouse.dlt_credentials(), retry_policy=retry_policy
    )
    with pytest.raises(DestinationUnavailable), destination:
        destination.read_checkpoint()
    assert 50 < now[0] <= 100


def test_conflicts_are_tried_up_to_a_limit(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    warehouse.add_fault("MERGE INTO .*orders", "conflict", times=100)
    with opened() as destination:
        with pytest.raises(CdcError, match="DELTA_CONCURRENT_APPEND"):
            destination.load(changes(10), checkpoint(10))
        tried = [
            s for s in warehouse.statements() if "MERGE INTO `main`.`bronze`.`orders`" in s["text"]
        ]
        assert len(tried) == PATIENCE.attempts
        warehouse.clear_faults()
        destination.load(changes(10), checkpoint(10))
        assert len(content(destination, "orders", "id")) == ROWS


def test_a_failed_load_leaves_no_files_and_says_no_values(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    message = "Failed on 'row secret 42' of `orders`"
    warehouse.add_fault("MERGE INTO", "error", error_class="CAST_INVALID_INPUT", message=message)
    with opened() as destination:
        with pytest.raises(DestinationFailed, match="CAST_INVALID_INPUT") as caught:
            destination.load(changes(10), checkpoint(10))
        assert "secret" not in str(caught.value)
        volumes = destination.volumes()
        assert volumes == {"main.bronze_staging._dlt_staging_load_volume": []}


def test_what_a_killed_run_left_is_swept(
    opened: Callable[[], Destination], keeping_files: Callable[[], AbstractContextManager[None]]
) -> None:
    volume = "main.bronze_staging._dlt_staging_load_volume"
    with keeping_files(), opened() as destination:
        destination.load(changes(10), checkpoint(10))
        left = (destination.volumes() or {})[volume]
        assert len(left) == 2
    with opened() as destination:
        destination.load(changes(11), checkpoint(11))
        assert (destination.volumes() or {})[volume] == []
