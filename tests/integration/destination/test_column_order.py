"""Columns keep the source's order, and the metadata columns stay right behind the table's own."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem

from adapters.dlt_destination.delta.column_order import order_columns
from adapters.dlt_destination.delta.factory import delta_destination
from adapters.dlt_destination.destination import DltDestination
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.history import LOG_FIELDS, VERSION_FIELDS, LogAppend, VersionMerge
from cdc_core.values.merges import (
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    LoadBatch,
    TargetTable,
)
from tests.contracts.destination_contract import ORDERS, checkpoint, content, keyed, table_of
from tests.contracts.history_contract import LOG, VERSIONS, append, at, image, images, versions

if TYPE_CHECKING:
    from cdc_core.ports.destination import Destination
    from tests.integration.destination.stores import Store

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

    settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
    columns_are_in_order([duckdb_destination(settings, file) for _ in range(3)], names)


def test_of_a_delta_table(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    lake = tmp_path / "lake house"

    def names() -> list[str]:
        return [field.name for field in DeltaTable(lake / "bronze" / "orders").schema().fields]

    settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
    columns_are_in_order([delta_destination(settings, str(lake)) for _ in range(3)], names)


def test_no_room_for_the_commit_leaves_the_table_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an entry of its log would make the table unreadable."""
    from deltalake import DeltaTable, write_deltalake

    table = tmp_path / "t"
    write_deltalake(table, pa.table({"a": [1], "b": [2]}))
    write = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    files, log = LocalFileSystem(), str(table / "_delta_log")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(OSError, match="No space left"):
            order_columns(DeltaTable(table), files, log, ["b", "a"])
    assert [field.name for field in DeltaTable(table).schema().fields] == ["a", "b"]
    order_columns(DeltaTable(table), files, log, ["b", "a"])
    assert [field.name for field in DeltaTable(table).schema().fields] == ["b", "a"]
    assert len(list((table / "_delta_log").glob("*.tmp"))) == 0


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
        table_of(TURNED, [{"id": 3, "price": 7, "_cdc_lsn": 30}]).load(destination, 30)
        assert content(destination, "orders", "id", "price") == [(3, 7)]
    assert names() == [*TURNED.schema.names, *METADATA]


def test_new_columns_of_a_history_are_before_its_own(
    store: Store, settings: PipelineSettings
) -> None:
    """The table's columns, in their order, then those of the log and of the versions."""
    wide = TargetTable("orders", pa.schema([*ORDERS.schema, ("more", pa.int64())]))
    row = {**image(2, "insert", (2, "b", None)), "more": 5}
    log = LogAppend(LOG, wide, ("id",), images([row], wide), 2, 2)
    schema = pa.schema([*wide.schema, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])
    merge = VersionMerge(VERSIONS, wide, ("id",), pa.Table.from_pylist([], schema=schema), at(9))
    with DltDestination(store(), settings) as destination:
        first = (append(image(1, "insert", (1, "a", "x"))), versions(("U", 10, (1, "a", "x"))))
        destination.load(LoadBatch(history=first), checkpoint(1))
        destination.load(LoadBatch(history=(log, merge)), checkpoint(2))
        found = destination.columns([LOG, VERSIONS], current=True)
        assert found[LOG] == [*wide.schema.names, *(f.name for f in LOG_FIELDS)]
        assert found[VERSIONS] == [*wide.schema.names, *(f.name for f in VERSION_FIELDS)]
