"""Every statement of a run meets every fault: the next run ends equal, and no reader sees a gap."""

from __future__ import annotations

import threading
from contextlib import contextmanager
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

KEYED = TargetTable("orders", pa.schema([("id", pa.int64()), ("note", pa.string())]))
BAG = TargetTable("bag", pa.schema([("what", pa.string())]))
WIDER = TargetTable("orders", pa.schema([*KEYED.schema, ("extra", pa.int32())]))

#: Statements and uploads; not the opening of sessions, which has its own test.
ANY = r"^(?!THRIFT|HTTP (?!PUT))"
KINDS = ["error", "conflict", "drop_before", "drop_after"]
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


@contextmanager
def reading(warehouse: Warehouse) -> Iterator[list[int]]:
    """What a reader counts in the keyed table, again and again, in a session of its own."""
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        with warehouse.connect() as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("SELECT COUNT(*), COUNT(DISTINCT note) FROM bronze.orders")
                (row,) = cursor.fetchall()
                seen.append(row[0] if row[1] == 1 else -1)
                stop.wait(0.02)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def statements_of(warehouse: Warehouse, run: Callable[[], None]) -> int:
    """How many events that match `ANY` a run makes."""
    warehouse.add_fault(ANY, "delay", nth=1, times=1, seconds=0.0)
    run()
    (fault,) = warehouse.faults()
    warehouse.clear_faults()
    return int(fault["seen"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [snapshot, changes])
def test_a_fault_at_any_statement(
    opened: Callable[[], Destination],
    warehouse: Warehouse,
    kind: str,
    batch: Callable[[int], LoadBatch],
) -> None:
    number = 10

    def load() -> None:
        with opened() as destination:
            destination.load(batch(number), checkpoint(number))

    with opened() as destination:
        destination.load(snapshot(number), checkpoint(number))
    number += 1
    count = statements_of(warehouse, load)
    assert count < 30
    with reading(warehouse) as seen:
        for nth in range(1, count + 1):
            number += 1
            before = number - 1
            # The faults of readers do not count: they ask for one thing only.
            warehouse.add_fault(rf"{ANY}(?!SELECT COUNT)", kind, nth=nth)
            try:
                load()
            except CdcError:
                with opened() as destination:
                    found = destination.read_checkpoint()
                    assert found in (checkpoint(before), checkpoint(number)), nth
                load()
            warehouse.clear_faults()
            with opened() as destination:
                assert destination.read_checkpoint() == checkpoint(number)
                rows = content(destination, "orders", "id", "note")
                assert rows == [(n, f"n{number}") for n in range(ROWS)], nth
                bag = [what for (what,) in content(destination, "bag", "what")]
                assert len(bag) == ROWS, nth
                assert bag.count(f"n{number}") == (ROWS if batch is snapshot else 1), nth
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
        assert len(tried) == 3
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
