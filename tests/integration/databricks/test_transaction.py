"""`multi_table_transaction`: every table and the checkpoint change in one commit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.errors import DestinationFailed, SettingsError
from cdc_core.values.merges import LoadBatch, TargetTable
from tests.contracts.destination_contract import (
    ORDERS,
    checkpoint,
    content,
    keyed,
    replacing,
    table_of,
)
from tests.contracts.history_contract import IMAGE, append, image, versions
from tests.support.spark_engine import databricks_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

TABLES = [TargetTable(name, pa.schema([("id", pa.int64()), ("n", pa.int64())])) for name in "ab"]
BOTH = ", ".join(f"(SELECT MAX(n) FROM bronze.{table.name})" for table in TABLES)


@pytest.fixture
def in_one_transaction() -> bool:
    return True


def rows(number: int) -> list[dict[str, int]]:
    return [{"id": 1, "n": number, "_cdc_lsn": number}]


def changes(_: Destination, number: int) -> LoadBatch:
    return LoadBatch(merges=tuple(keyed(table, rows(number)) for table in TABLES))


def snapshot(destination: Destination, number: int) -> LoadBatch:
    return replacing(destination, *(table_of(table, rows(number)) for table in TABLES))


@pytest.mark.parametrize("in_one_transaction", [True, False])
def test_no_reader_sees_a_table_without_the_other(
    opened: Callable[[], Destination], warehouse: Warehouse, *, in_one_transaction: bool
) -> None:
    """One table is slower: without a transaction the reader does see what it looks for."""
    seen: set[tuple[int, int]] = set()
    stop = threading.Event()

    def read() -> None:
        with warehouse.connect() as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(f"SELECT {BOTH}")
                seen.update(tuple(row) for row in cursor.fetchall())

    with opened() as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        thread = threading.Thread(target=read)
        thread.start()
        try:
            for number, batch in enumerate((changes, snapshot), start=2):
                warehouse.add_fault("`bronze`.`b` .*parquet", "delay", seconds=0.3)
                destination.load(batch(destination, number), checkpoint(number))
        finally:
            stop.set()
            thread.join()
    assert {(3, 3)} <= seen
    assert all(a == b for a, b in seen) == in_one_transaction


@pytest.mark.parametrize("batch", [changes, snapshot])
def test_the_checkpoint_is_in_it(
    opened: Callable[[], Destination],
    warehouse: Warehouse,
    batch: Callable[[Destination, int], LoadBatch],
) -> None:
    with opened() as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        warehouse.clear_log()
        warehouse.add_fault("BEGIN ATOMIC", "error")
        with pytest.raises(DestinationFailed, match="INTERNAL_ERROR"):
            destination.load(batch(destination, 2), checkpoint(2))
    writes = [s["text"] for s in warehouse.statements() if "PUT" not in s["text"]]
    assert [t.split()[0] for t in writes if "INSERT" in t or "MERGE" in t] == ["BEGIN"]
    with opened() as destination:
        assert destination.read_checkpoint() == checkpoint(1)
        assert content(destination, "a", "n") == content(destination, "b", "n") == [(1,)]
        assert not any((destination.volumes() or {}).values())
        destination.load(batch(destination, 2), checkpoint(2))
    with opened() as destination:
        assert destination.read_checkpoint() == checkpoint(2)
        assert content(destination, "a", "n") == content(destination, "b", "n") == [(2,)]


def test_history_and_soft_deletes_are_in_it(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    """Statements of one table see what those before them wrote."""
    rows = [{"id": n, "note": "a", "doc": "big", "_cdc_lsn": 10} for n in (1, 2)]
    gone = {"id": 1, "_cdc_op": "D", "_cdc_lsn": 20}
    preimage = image(3, "update_preimage", (1, None, None), 20, ".1.2.", 3)
    later = image(5, "delete", (1, None, None), 21, ".1.2.", 5)
    with opened() as destination:
        before = keyed(ORDERS, rows, soft_deletes=True)
        destination.load(LoadBatch(merges=(before,)), checkpoint(1))
        warehouse.clear_log()
        history = (
            append(preimage, image(4, "update_postimage", (1, "b", None), 20, ".2.", 3)),
            append(later, batch_first=3),
            versions(("U", 20, (1, "b", "big"))),
        )
        merge = keyed(ORDERS, [gone], soft_deletes=True)
        destination.load(LoadBatch(history=history, merges=(merge,)), checkpoint(2))
        assert [row[1:] for row in content(destination, "orders_history", *IMAGE)] == [
            ("update_preimage", 1, "a", "big"),
            ("update_postimage", 1, "b", "big"),
            ("delete", 1, "b", "big"),
        ]
        marked = content(destination, "orders", "id", "_cdc_deleted_at")
        assert [deleted is None for _, deleted in marked] == [False, True]
    texts = [s["text"] for s in warehouse.statements()]
    assert sum(text.startswith("BEGIN ATOMIC") for text in texts) == 1
    assert not any(text.startswith("MERGE") for text in texts)
    for table in ("orders_history", "orders_scd2"):
        (made,) = [t for t in texts if t.startswith("CREATE TABLE") and f"`{table}`" in t]
        assert "catalogManaged" in made


def test_nothing_is_attempted_that_cannot_work(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    with opened() as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        destination.load(changes(destination, 2), checkpoint(2))
    texts = [s["text"] for s in warehouse.statements()]
    assert sum(text.startswith("BEGIN ATOMIC") for text in texts) == 2
    assert not any(text.startswith("ALTER") for text in texts)


def test_existing_tables_are_enabled_for_transactions_once(
    opened: Callable[[], Destination], warehouse: Warehouse, tmp_path: Path
) -> None:
    settings = PipelineSettings("pgbronze", "bronze", tmp_path / "before")
    with databricks_on(warehouse, settings) as before:
        before.load(snapshot(before, 1), checkpoint(1))
    told = []
    for number in (2, 3):
        warehouse.clear_log()
        with opened() as destination:
            destination.load(changes(destination, number), checkpoint(number))
        told.append(sum("catalogManaged" in s["text"] for s in warehouse.statements()))
    assert told == [4, 0]
    assert warehouse.read_table("bronze", "b").column("n").to_pylist() == [3]


def test_a_table_whose_types_changed_is_replaced_before_it(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    now = TargetTable("a", pa.schema([("id", pa.string())]))
    with opened() as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        warehouse.clear_log()
        batch = replacing(
            destination,
            table_of(now, [{"id": "x", "_cdc_lsn": 2}]),
            merges=(keyed(TABLES[1], rows(2)),),
        )
        destination.load(batch, checkpoint(2))
        assert content(destination, "a", "id") == [("x",)]
        destination.load(
            LoadBatch(merges=(keyed(now, [{"id": "y", "_cdc_lsn": 3}]),)), checkpoint(3)
        )
    assert [s["error_class"] for s in warehouse.statements() if s["error_class"]] == []


@pytest.mark.parametrize(
    ("pattern", "error_class"),
    [
        ("BEGIN ATOMIC", "PARSE_SYNTAX_ERROR"),
        ("BEGIN ATOMIC", "TRANSACTION_NOT_SUPPORTED.PREVIEW_NOT_ENABLED"),
        ("BEGIN ATOMIC", "MULTI_STATEMENT_TRANSACTION_NOT_SUPPORTED.PREVIEW_NOT_ENABLED"),
        ("CREATE TABLE .*`a`", "DELTA_UNSUPPORTED_FEATURES_FOR_WRITE"),
    ],
)
def test_a_workspace_without_it_gets_an_error_with_the_setting(
    opened: Callable[[], Destination], warehouse: Warehouse, pattern: str, error_class: str
) -> None:
    warehouse.add_fault(pattern, "error", error_class=error_class)
    with opened() as destination, pytest.raises(SettingsError, match=error_class) as caught:
        destination.load(changes(destination, 1), checkpoint(1))
    assert "destination.databricks.multi_table_transaction" in str(caught.value)
    assert caught.value.exit_code == 2
