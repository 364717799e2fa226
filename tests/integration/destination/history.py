"""A fixed history of batches over two tables, and a program that loads what is missing of it.

`python -m tests.integration.destination.history KIND FOLDER` loads from the checkpoint on and
prints a line once it is open; it may be killed at any moment and started again. A warehouse is told
of in the file `warehouse.json` of the folder.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.delta.factory import delta_destination
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.settings import PipelineSettings
from adapters.fakes.merges import merge_keyed, merge_multiset
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import (
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
    KeyedMerge,
    LoadBatch,
    MultisetMerge,
    TargetTable,
)
from tests.contracts.destination_contract import Content, replacing
from tests.integration.warehouse.client import Warehouse
from tests.support.spark_engine import databricks_on

if TYPE_CHECKING:
    from cdc_core.ports.destination import Destination

STEPS = 14
ORDERS = TargetTable("orders", pa.schema([("id", pa.int64()), ("note", pa.string())]))
LOG = TargetTable("log", pa.schema([("what", pa.string())]))
SOURCE = SourceIdentity("1", "shop", "slot")


def open_destination(kind: str, folder: Path) -> Destination:
    settings = PipelineSettings("pgbronze", "bronze", folder / "work")
    match kind:
        case "duckdb":
            return duckdb_destination(settings, str(folder / "lake.duckdb"))
        case "delta":
            return delta_destination(settings, str(folder / "lake"))
        case _:
            warehouse = Warehouse.from_json((folder / "warehouse.json").read_text())
            return databricks_on(warehouse, settings)


def batch(step: int) -> LoadBatch:
    """The changes that committed at LSN `step`."""
    chance = random.Random(step)
    stamp = {"_cdc_lsn": step, "_cdc_committed_at": step * 1_000_000}
    orders: list[dict[str, Any]] = [
        {"id": key, "note": f"{step}", "_cdc_op": chance.choice("UUUD"), **stamp}
        for key in chance.sample(range(40), 10)
    ]
    log = [
        {"what": chance.choice("abc"), "_cdc_op": chance.choice("UUD"), "_cdc_ref": ref, **stamp}
        for ref in range(8)
    ]
    keyed = pa.schema([*ORDERS.schema, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])
    bag = pa.schema([*LOG.schema, *METADATA_FIELDS, *MULTISET_CONTROL_FIELDS])
    truncated_at = Lsn(step) if step % 9 == 0 else None
    return LoadBatch(
        merges=(
            KeyedMerge(ORDERS, ("id",), pa.Table.from_pylist(orders, keyed), truncated_at),
            MultisetMerge(LOG, pa.Table.from_pylist(log, bag), ("what",)),
        )
    )


def first_content() -> Content:
    rows = [{"id": n, "note": "0", "_cdc_lsn": 0, "_cdc_committed_at": 0} for n in range(20)]
    schema = pa.schema([*ORDERS.schema, *METADATA_FIELDS])
    pieces = [pa.Table.from_pylist(rows[start : start + 7], schema) for start in (0, 7, 14)]
    return Content(ORDERS, pieces)


def expected() -> dict[str, list[dict[str, Any]]]:
    orders = [row for piece in first_content().rows for row in piece.to_pylist()]
    log: list[dict[str, Any]] = []
    for step in range(1, STEPS + 1):
        for merge in batch(step).merges:
            if isinstance(merge, KeyedMerge):
                orders = merge_keyed(orders, merge)
            else:
                log = merge_multiset(log, merge)
    return {"orders": orders, "log": log}


def load_all(destination: Destination) -> None:
    with destination:
        print("open", flush=True)
        checkpoint = destination.read_checkpoint()
        if checkpoint is None:
            whole = replacing(destination, first_content())
            destination.load(whole, Checkpoint(SOURCE, Lsn(0)))
            checkpoint = Checkpoint(SOURCE, Lsn(0))
        for step in range(checkpoint.lsn + 1, STEPS + 1):
            destination.load(batch(step), Checkpoint(SOURCE, Lsn(step)))


def main() -> None:
    load_all(open_destination(sys.argv[1], Path(sys.argv[2])))


if __name__ == "__main__":
    main()
