"""Statements and sessions of a run, by the number of tables, all of which change in each run.

`python -m tests.integration.databricks.costs [TABLES …]` prints them, for stock dlt (its own merge
and replace, of Parquet files) and for the destination, table by table and as one transaction.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.merges import LoadBatch, TargetTable
from tests.contracts.destination_contract import checkpoint, keyed, replacing, table_of
from tests.integration.warehouse.fixtures import running_warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.warehouse.client import Warehouse

#: Sessions and statements.
Cost = tuple[int, int]
RUNS = ("first snapshot", "next snapshot", "first CDC", "next CDC")
COLUMNS = pa.schema([("id", pa.int64()), ("v", pa.string())])


def _cost(warehouse: Warehouse) -> Cost:
    counters = warehouse.counters()
    return counters["sessions"], counters["statements"]


def of_stock_dlt(warehouse: Warehouse, folder: Path, tables: int) -> dict[str, Cost]:
    """Of one pipeline object that goes on, which saves it the look for its state."""
    import dlt

    file = folder / "rows.parquet"
    pq.write_table(pa.table({"id": [1], "v": ["a"]}), file)
    hints = {"id": {"data_type": "bigint"}, "v": {"data_type": "text"}}

    def resource(name: str, disposition: Any) -> Any:
        def rows() -> Iterator[Any]:
            dlt.current.resource_state()["rows"] = 1
            columns: Any = dlt.mark.make_hints(columns=hints)
            yield dlt.mark.with_file_import(str(file), "parquet", 1, hints=columns)

        return dlt.resource(rows, name=name, write_disposition=disposition, primary_key="id")

    destination = dlt.destinations.databricks(credentials=warehouse.dlt_credentials())
    pipeline = dlt.pipeline(
        "stock", destination=destination, dataset_name="stock", pipelines_dir=str(folder / "work")
    )
    found = {}
    for run, disposition in zip(RUNS, ("replace", "replace", "merge", "merge"), strict=True):
        warehouse.clear_log()
        resources = [resource(f"t{n}", disposition) for n in range(tables)]
        pipeline.run(resources).raise_on_failed_jobs()
        found[run] = _cost(warehouse)
    return found


def of_the_destination(
    warehouse: Warehouse, folder: Path, tables: int, *, in_one_transaction: bool = False
) -> dict[str, Cost]:
    """Of runs in processes of their own, each looking for the checkpoint first."""
    settings = PipelineSettings("pgbronze", "bronze", folder)
    targets = [TargetTable(f"t{n}", COLUMNS) for n in range(tables)]
    found = {}
    for lsn, run in enumerate((*RUNS, "CDC without a change"), start=1):
        rows = [{"id": 1, "v": run, "_cdc_lsn": lsn}]
        warehouse.clear_log()
        with databricks_destination(
            settings, warehouse.dlt_credentials(), multi_table_transaction=in_one_transaction
        ) as destination:
            destination.read_checkpoint()
            match run.rpartition(" ")[2]:
                case "snapshot":
                    wholes = [table_of(target, rows) for target in targets]
                    destination.load(replacing(destination, *wholes), checkpoint(lsn))
                case "CDC":
                    merges = tuple(keyed(target, rows) for target in targets)
                    destination.load(LoadBatch(merges=merges), checkpoint(lsn))
        found[run] = _cost(warehouse)
    return found


def main() -> None:
    logging.disable()
    sizes = [int(argument) for argument in sys.argv[1:]] or [1, 10, 50]
    ways = {
        "stock dlt": of_stock_dlt,
        "pgbronze": of_the_destination,
        "pgbronze, one transaction": lambda *args: of_the_destination(
            *args, in_one_transaction=True
        ),
    }
    costs: dict[str, dict[str, list[Cost]]] = {}
    with tempfile.TemporaryDirectory() as name, running_warehouse(Path(name) / "root") as warehouse:
        for way, count in ways.items():
            for tables in sizes:
                warehouse.reset()
                folder = Path(tempfile.mkdtemp(dir=name))
                for run, cost in count(warehouse, folder, tables).items():
                    costs.setdefault(way, {}).setdefault(run, []).append(cost)
    print("| sessions / statements |", " | ".join(f"{size} tables" for size in sizes), "|")
    print("|---|", "---|" * len(sizes), sep="")
    for way, runs in costs.items():
        for run, found in runs.items():
            print(f"| {way}: {run} |", " | ".join(f"{a} / {b}" for a, b in found), "|")


if __name__ == "__main__":
    main()
