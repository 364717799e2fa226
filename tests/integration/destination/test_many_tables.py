"""Work grows with the tables, not with their square: counted, not timed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from adapters.dlt_destination.databricks import store as databricks_store
from adapters.dlt_destination.destination import DltDestination
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.duckdb.store import DuckDbStore
from cdc_core.values.merges import ColumnRename, LoadBatch, TableRename, TargetTable
from tests.contracts.destination_contract import ORDERS, checkpoint, keyed, replacing, table_of
from tests.support.spark_engine import databricks_on

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from adapters.dlt_destination.settings import PipelineSettings
    from tests.integration.destination.stores import Store
    from tests.integration.warehouse.client import Warehouse

#: What a run may do whatever the number of tables: opening files, asking for all columns.
FEW = 20


def targets(count: int) -> list[TargetTable]:
    return [TargetTable(f"t{n}", ORDERS.schema) for n in range(count)]


def fill(destination: DltDestination, tables: list[TargetTable]) -> None:
    wholes = [table_of(table, [{"id": 1, "_cdc_lsn": 1}]) for table in tables]
    destination.load(replacing(destination, *wholes), checkpoint(1))


def test_rows_of_thousands_of_tables_are_counted(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    """One statement for all was too deep for DuckDB from some 420 tables on."""
    place = str(tmp_path / "lake.duckdb")
    with duckdb_destination(settings, place) as destination:
        fill(destination, targets(1))
    with duckdb.connect(place) as connection:
        for number in range(2000):
            rows = f"SELECT unnest(range({number % 3})) AS id"
            connection.execute(f"CREATE TABLE bronze.many_{number} AS {rows}")
    with duckdb_destination(settings, place) as destination:
        found = destination.tables()
    assert found == {"t0": 1} | {f"many_{number}": number % 3 for number in range(2000)}


def test_a_warehouse_counts_in_statements_of_bounded_size(
    settings: PipelineSettings, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databricks_store, "TABLES_PER_COUNT", 4)
    with databricks_on(warehouse, settings) as destination:
        fill(destination, targets(9))
        warehouse.clear_log()
        assert destination.tables() == {f"t{n}": 1 for n in range(9)}
        counts = [s["text"].count("COUNT(*)") for s in warehouse.statements()]
        assert sorted(count for count in counts if count) == [1, 4, 4]
        warehouse.clear_log()
        for n in range(9):
            assert sum(map(len, destination.scan(f"t{n}", ["id"]))) == 1
        # Once for all tables that the load has changed.
        asked = [s for s in warehouse.statements() if "information_schema" in s["text"]]
        assert len(asked) <= 1


def test_files_are_opened_and_columns_asked_for_as_often_for_many_tables_as_for_few(
    settings: PipelineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: Counter[str] = Counter()
    connect = duckdb.connect

    def counted(*args: Any, **options: Any) -> Any:
        done["files opened"] += 1
        return connect(*args, **options)

    class Counted(DuckDbStore):
        def columns(self, client: Any) -> dict[str, pa.Schema]:
            done["all columns"] += 1
            return super().columns(client)

    monkeypatch.setattr(duckdb, "connect", counted)
    found = {}
    for count in (5, 40):
        done.clear()
        tables = targets(count)
        store = Counted(str(tmp_path / f"{count}.duckdb"))
        with DltDestination(store, settings) as destination:
            fill(destination, tables)
            wider = pa.schema([*ORDERS.schema, ("more", pa.int64())])
            tables = [TargetTable(table.name, wider) for table in tables]
            merges = tuple(keyed(table, [{"id": 2, "_cdc_lsn": 2}]) for table in tables)
            destination.load(LoadBatch(merges=merges), checkpoint(2))
            columns = [ColumnRename(table.name, "more", "much") for table in tables]
            renames = [TableRename(table.name, f"new_{table.name}") for table in tables]
            destination.load(LoadBatch(steps=(*columns, *renames)), checkpoint(3))
            for table in tables:
                rows = destination.scan(f"new_{table.name}", ["id", "much"])
                assert sum(map(len, rows)) == 2
        found[count] = dict(done)
    assert found[5] == found[40]
    assert max(found[40].values()) <= FEW


def test_dlt_has_no_table_of_ours(store: Store, settings: PipelineSettings, tmp_path: Path) -> None:
    """What dlt does with a schema is quadratic in its tables, at each start and each batch."""
    with DltDestination(store(), settings) as destination:
        fill(destination, targets(3))
    with DltDestination(store(), settings) as destination:
        destination.read_checkpoint()
        packages = destination._with_dlt()
        assert set(packages._schema.tables) == set(packages._schema.dlt_table_names())


def test_a_table_may_have_the_name_of_a_variable(store: Store, settings: PipelineSettings) -> None:
    """DuckDB takes one for a table that it does not know, where a query lets it."""
    tables = [TargetTable(name, ORDERS.schema) for name in ("plain", "re", 'odd"name')]
    with DltDestination(store(), settings) as destination:
        fill(destination, tables)
        assert destination.tables() == {table.name: 1 for table in tables}
