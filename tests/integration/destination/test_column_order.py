"""Columns keep the source's order, and the metadata columns stay right behind the table's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from adapters.dlt_destination.factories import delta_destination, duckdb_destination
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.staging import LoadBatch, TargetTable
from tests.contracts.destination_contract import ORDERS, checkpoint, content, keyed, replacement

if TYPE_CHECKING:
    from pathlib import Path

    from cdc_core.ports.destination import Destination

WIDER = TargetTable(
    "orders", pa.schema([*ORDERS.schema, ("price", pa.int32()), ("Odd name", pa.string())])
)
TURNED = TargetTable("orders", pa.schema(list(reversed(list(WIDER.schema)))))
METADATA = ["_cdc_lsn", "_cdc_committed_at"]


def test_of_a_duckdb_table(tmp_path: Path) -> None:
    import duckdb

    file = str(tmp_path / "lake.duckdb")

    def names() -> list[str]:
        with duckdb.connect(file, read_only=True) as connection:
            return [row[0] for row in connection.execute("DESCRIBE bronze.orders").fetchall()]

    settings = PipelineSettings("wal2delta", "bronze", tmp_path / "work")
    columns_are_in_order([duckdb_destination(settings, file) for _ in range(3)], names)


def test_of_a_delta_table(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    lake = tmp_path / "lake house"

    def names() -> list[str]:
        return [field.name for field in DeltaTable(lake / "bronze" / "orders").schema().fields]

    settings = PipelineSettings("wal2delta", "bronze", tmp_path / "work")
    columns_are_in_order([delta_destination(settings, str(lake)) for _ in range(3)], names)


def columns_are_in_order(destinations: list[Destination], names: object) -> None:
    assert callable(names)
    first, second, third = destinations
    with first as destination:
        merge = keyed(ORDERS, [{"id": 1, "note": "a", "_cdc_lsn": 10}])
        destination.load(LoadBatch(merges=(merge,)), checkpoint(10))
    with second as destination:
        merge = keyed(WIDER, [{"id": 2, "price": 5, "Odd name": "b", "_cdc_lsn": 20}])
        destination.load(LoadBatch(merges=(merge,)), checkpoint(20))
        rows = content(destination, "orders", "id", "note", "price", "Odd name", "_cdc_lsn")
        assert rows == [(1, "a", None, None, 10), (2, None, 5, "b", 20)]
    assert names() == [*WIDER.schema.names, *METADATA]
    with third as destination:
        whole = replacement(TURNED, [{"id": 3, "price": 7, "_cdc_lsn": 30}])
        destination.load(LoadBatch(replacements=(whole,)), checkpoint(30))
        assert content(destination, "orders", "id", "price") == [(3, 7)]
    assert names() == [*TURNED.schema.names, *METADATA]
