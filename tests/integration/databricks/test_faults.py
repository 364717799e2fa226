"""Every statement of a run meets every fault: the next run ends equal, and no reader sees a gap."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from cdc_core.errors import CdcError, DestinationFailed
from cdc_core.staging import LoadBatch, TargetTable
from tests.contracts.destination_contract import (
    checkpoint,
    content,
    keyed,
    multiset,
    replacement,
)
from tests.integration.databricks.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

KEYED = TargetTable("orders", pa.schema([("id", pa.int64()), ("note", pa.string())]))
BAG = TargetTable("bag", pa.schema([("what", pa.string())]))
WIDER = TargetTable("orders", pa.schema([*KEYED.schema, ("extra", pa.int32())]))

#: What a run asks for, not the reader beside it: all of it; statements; statements and uploads.
RUN = r"^(?!SELECT COUNT)"
STATEMENT = r"^(?!SELECT COUNT|THRIFT|HTTP)"
STEP = r"^(?!SELECT COUNT|THRIFT|HTTP (?!PUT))"
FAULTS = {
    "drop_before": RUN,
    "conflict": STATEMENT,
    "429": RUN,
    "drop_after": RUN,
    "503": RUN,
    "delay": r"^(MERGE|INSERT OVERWRITE|BEGIN)",
}
ROWS = 5


def snapshot(number: int) -> LoadBatch:
    """Two tables as they are at the LSN `number`."""
    rows = [{"id": n, "note": f"n{number}", "_cdc_lsn": number} for n in range(ROWS)]
    copies = [{"what": f"n{number}", "_cdc_lsn": number}] * ROWS
    return LoadBatch(replacements=(replacement(KEYED, rows), replacement(BAG, copies)))


def changes(number: int) -> LoadBatch:
    """Every row updated; of the bag, one copy less and one of another content more."""
    rows = [{"id": n, "note": f"n{number}", "_cdc_lsn": number} for n in range(ROWS)]
    events = [
        {"what": f"n{number - 1}", "_cdc_op": "D", "_cdc_lsn": number},
        {"what": f"n{number}", "_cdc_lsn": number},
    ]
    return LoadBatch(merges=(keyed(KEYED, rows), multiset(BAG, events)))


@contextlib.contextmanager
def reading(warehouse: Warehouse) -> Iterator[list[int]]:
    """What a reader counts in the keyed table, again and again, in a session of its own."""
    seen: list[int] = []
    stop = threading.Event()

    connection = warehouse.connect()

    def read() -> None:
        with connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("SELECT COUNT(*), COUNT(DISTINCT note) FROM bronze.orders")
                (row,) = cursor.fetchall()
                seen.append(row[0] if row[1] == 1 else -1)
                stop.wait(0.05)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def assert_whole(warehouse: Warehouse, batch: Callable[[int], LoadBatch], number: int) -> None:
    """Both tables, read from their folders, are as after the batch, nothing lost, nothing twice."""
    orders = warehouse.read_table("bronze", "orders").to_pylist()
    found = sorted((row["id"], row["note"]) for row in orders)
    assert found == [(n, f"n{number}") for n in range(ROWS)]
    bag = warehouse.read_table("bronze", "bag").column("what").to_pylist()
    assert len(bag) == ROWS
    assert bag.count(f"n{number}") == (ROWS if batch is snapshot else 1)


@pytest.mark.parametrize("batch", [snapshot, changes])
@pytest.mark.parametrize("in_one_transaction", [False, True])
def test_every_statement_meets_every_fault(
    opened: Callable[[], Destination], warehouse: Warehouse, batch: Callable[[int], LoadBatch]
) -> None:
    """One after the other, until it passes: the run ends by itself, in bounded time."""
    with opened() as destination:
        destination.load(snapshot(10), checkpoint(10))
    for nth, (kind, pattern) in enumerate(FAULTS.items(), start=1):
        http = {"kind": "http", "status": int(kind)} if kind.isdigit() else {"kind": kind}
        warehouse.add_fault(pattern, nth=nth, cycle=len(FAULTS) + 1, seconds=0.01, **http)
    with reading(warehouse) as seen:
        warehouse.clear_log()
        with opened() as destination:
            assert destination.read_checkpoint() == checkpoint(10)
            destination.load(batch(11), checkpoint(11))
        texts = {statement["text"] for statement in warehouse.statements()}
        for fault in warehouse.faults():
            places = [text for text in texts if re.match(fault["pattern"], text)]
            assert len(places) >= (1 if fault["kind"] == "delay" else 10)
            assert fault["fired"] >= len(places), fault["kind"]
        warehouse.clear_faults()
        with opened() as destination:
            assert destination.read_checkpoint() == checkpoint(11)
            assert_whole(warehouse, batch, 11)
            destination.load(changes(12), checkpoint(12))
            assert not any((destination.volumes() or {}).values())
    assert set(seen) == {ROWS}


@pytest.mark.parametrize(
    ("batch", "in_one_transaction"), [(snapshot, False), (changes, False), (changes, True)]
)
def test_a_run_that_fails_at_any_statement_is_run_again(
    opened: Callable[[], Destination], warehouse: Warehouse, batch: Callable[[int], LoadBatch]
) -> None:
    with opened() as destination:
        destination.load(snapshot(10), checkpoint(10))
    number, nth, struck = 10, 0, True
    with reading(warehouse) as seen:
        while struck:
            number, nth = number + 1, nth + 1
            warehouse.add_fault(STEP, nth=nth)
            found = checkpoint(number)
            with contextlib.suppress(CdcError), opened() as destination:
                destination.load(batch(number), checkpoint(number))
            struck = warehouse.faults()[0]["fired"] == 1
            warehouse.clear_faults()
            with opened() as destination:
                found = destination.read_checkpoint()
                assert found in (checkpoint(number - 1), checkpoint(number)), nth
                if found == checkpoint(number):
                    assert_whole(warehouse, batch, number)
                destination.load(batch(number), checkpoint(number))
            assert_whole(warehouse, batch, number)
    assert nth > 10
    assert set(seen) == {ROWS}


def test_a_definition_is_changed_once(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    """The answer to each ALTER is lost: the connector sends it again."""
    with opened() as destination:
        destination.load(snapshot(10), checkpoint(10))
        warehouse.add_fault("ALTER TABLE", "drop_after", times=1)
        rows = [{"id": 1, "note": "x", "extra": 7, "_cdc_lsn": 11}]
        destination.load(LoadBatch(merges=(keyed(WIDER, rows),)), checkpoint(11))
        (fault,) = warehouse.faults()
        assert fault["fired"] == 1
        assert content(destination, "orders", "id", "extra")[1] == (1, 7)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "http"])
def test_opening_a_session_is_tried_again(
    opened: Callable[[], Destination], warehouse: Warehouse, kind: str
) -> None:
    warehouse.add_fault("THRIFT OpenSession", kind)
    with opened() as destination:
        assert destination.read_checkpoint() is None


def test_a_busy_warehouse_is_waited_for(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    warehouse.add_fault("MERGE INTO", "http", status=429)
    with opened() as destination:
        destination.load(changes(10), checkpoint(10))
        assert len(content(destination, "orders", "id")) == ROWS


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
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    warehouse.add_fault("REMOVE", "error", times=100)
    volume = "main.bronze_staging._dlt_staging_load_volume"
    with opened() as destination:
        destination.load(changes(10), checkpoint(10))
        left = (destination.volumes() or {})[volume]
        assert len(left) == 2
    warehouse.clear_faults()
    with opened() as destination:
        destination.load(changes(11), checkpoint(11))
        assert (destination.volumes() or {})[volume] == []
