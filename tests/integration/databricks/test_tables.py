"""What the destination makes of tables in the catalog, and how many statements a run takes."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from adapters.dlt_destination.destination import TABLES_AT_ONCE
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.errors import DestinationFailed
from cdc_core.values.merges import METADATA_FIELDS, LoadBatch, TargetTable
from tests.contracts.destination_contract import (
    Content,
    checkpoint,
    content,
    keyed,
    multiset,
    table_of,
)
from tests.integration.databricks.costs import of_the_destination
from tests.support.spark_engine import databricks_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

ORDERS = TargetTable("orders", pa.schema([("id", pa.int64()), ("note", pa.string())]))


def query(warehouse: Warehouse, statement: str) -> list[Any]:
    with warehouse.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def properties(warehouse: Warehouse, table: str) -> dict[str, str]:
    return dict(query(warehouse, f"SHOW TBLPROPERTIES bronze.{table}"))


def clustering(warehouse: Warehouse, table: str) -> list[str]:
    (row,) = query(warehouse, f"DESCRIBE DETAIL bronze.{table}")
    return list(row.clusteringColumns)


def whole(target: TargetTable, key: tuple[str, ...], **row: Any) -> Content:
    return table_of(target, [row], key=key)


@pytest.mark.parametrize("way", ["replacement", "merge"])
def test_a_new_table_is_laid_out_by_its_key(
    opened: Callable[[], Destination], warehouse: Warehouse, way: str
) -> None:
    fields = [("flag", pa.bool_()), ("raw", pa.binary()), ("no", pa.int16()), ("Day", pa.date32())]
    target = TargetTable("lines", pa.schema(fields))
    row = {"flag": True, "raw": b"x", "no": 1, "Day": dt.date(2024, 1, 1), "_cdc_lsn": 1}
    key = ("flag", "raw", "no", "Day")
    with opened() as destination:
        if way == "replacement":
            whole(target, key, **row).load(destination, 1)
        else:
            destination.load(LoadBatch(merges=(keyed(target, [row], key),)), checkpoint(1))
    assert clustering(warehouse, "lines") == ["no", "Day"]
    made = properties(warehouse, "lines")
    assert made["delta.enableDeletionVectors"] == "true"
    assert "delta.columnMapping.mode" not in made
    assert warehouse.read_table("bronze", "lines").column_names[:4] == ["flag", "raw", "no", "Day"]


def test_columns_that_delta_forbids_are_mapped(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    plain = TargetTable("a", ORDERS.schema)
    odd = TargetTable("a", pa.schema([*ORDERS.schema, ("a b", pa.int32())]))
    with opened() as destination:
        destination.load(
            LoadBatch(merges=(keyed(plain, [{"id": 1, "_cdc_lsn": 1}]),)), checkpoint(1)
        )
        assert "delta.columnMapping.mode" not in properties(warehouse, "a")
        rows = [{"id": 2, "a b": 7, "_cdc_lsn": 2}]
        destination.load(LoadBatch(merges=(keyed(odd, rows),)), checkpoint(2))
        assert properties(warehouse, "a")["delta.columnMapping.mode"] == "name"
        assert content(destination, "a", "id", "a b") == [(1, None), (2, 7)]


def test_a_replacement_keeps_what_others_set_on_the_table(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    """A table is overwritten, or, where a column's type cannot become the other, replaced and given
    back what was on it."""
    same = TargetTable("orders", pa.schema([*ORDERS.schema]))
    wider = TargetTable("orders", pa.schema([*ORDERS.schema, ("n", pa.int16()), ("o", pa.int16())]))
    widest = TargetTable("orders", pa.schema([*ORDERS.schema, ("n", pa.int32())]))
    other = TargetTable("orders", pa.schema([("id", pa.string()), ("note", pa.string())]))
    writes = []
    with opened() as destination:
        whole(ORDERS, ("id",), id=1, _cdc_lsn=1).load(destination, 1)
        for statement in (
            "GRANT SELECT ON TABLE bronze.orders TO `readers`",
            "COMMENT ON TABLE bronze.orders IS 'theirs'",
            "ALTER TABLE bronze.orders SET TBLPROPERTIES ('their.own' = 'x')",
            "ALTER TABLE bronze.orders ADD COLUMNS (their_own ARRAY<INT>)",
        ):
            query(warehouse, statement)
    for lsn, (target, key) in enumerate(
        [(same, 2), (wider, 3), (widest, 4), (other, "5")], start=2
    ):
        warehouse.clear_log()
        with opened() as destination:
            whole(target, ("id",), id=key, _cdc_lsn=lsn).load(destination, lsn)
            assert content(destination, "orders", "id") == [(key,)]
            texts = [s["text"] for s in warehouse.statements() if "`orders`" in s["text"]]
            asking = ("SELECT", "DESCRIBE", "SHOW")
            writes.append([t.split(" `")[0] for t in texts if not t.startswith(asking)])
        assert "their.own" in properties(warehouse, "orders")
        assert "readers" in str(query(warehouse, "SHOW GRANTS ON TABLE bronze.orders"))
        assert "theirs" in str(query(warehouse, "DESCRIBE DETAIL bronze.orders"))
    assert writes == [
        ["INSERT OVERWRITE"],
        ["ALTER TABLE", "INSERT OVERWRITE"],
        ["ALTER TABLE", "ALTER TABLE", "INSERT OVERWRITE"],
        ["CREATE OR REPLACE TABLE"],
    ]
    names = warehouse.read_table("bronze", "orders").column_names
    assert names == ["id", "note", "_cdc_lsn", "_cdc_committed_at", "n", "o", "their_own"]
    assert len(query(warehouse, "DESCRIBE HISTORY bronze.orders")) >= len(writes)
    assert clustering(warehouse, "orders") == ["id"]


def test_a_rule_says_what_a_table_is_clustered_by(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    schema = pa.schema([("id", pa.int64()), ("customer", pa.int64()), ("note", pa.string())])
    rules: list[Any] = [(), ("customer", "id"), "auto", (), ("note",)]
    found = []
    with opened() as destination:
        for lsn, rule in enumerate(rules, start=1):
            target = TargetTable("orders", schema, cluster_by=rule)
            row = {"id": 1, "customer": 2, "note": "a", "_cdc_lsn": lsn}
            whole(target, ("id",), **row).load(destination, lsn)
            auto = properties(warehouse, "orders").get("clusterByAuto")
            found.append((clustering(warehouse, "orders"), auto))
        new = TargetTable("chosen", schema, cluster_by="auto")
        whole(new, ("id",), id=1, _cdc_lsn=1).load(destination, 9)
    # A table without a rule keeps its clustering.
    assert found == [
        (["id"], None),
        (["customer", "id"], None),
        ([], "true"),
        ([], "true"),
        (["note"], None),
    ]
    assert properties(warehouse, "chosen")["clusterByAuto"] == "true"


def test_a_new_column_is_placed_before_the_metadata_columns(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    """Of a table without columns too."""
    bare = TargetTable("bare", pa.schema([]))
    wider = TargetTable("bare", pa.schema([("b", pa.int32()), ("a", pa.int32())]))
    widest = TargetTable("bare", pa.schema([*wider.schema, ("c", pa.int32())]))
    with opened() as destination:
        for lsn, target in enumerate((bare, wider, widest), start=1):
            merge = multiset(target, [{"_cdc_lsn": lsn}])
            destination.load(LoadBatch(merges=(merge,)), checkpoint(lsn))
    names = warehouse.read_table("bronze", "bare").column_names
    assert names == ["b", "a", "c", "_cdc_lsn", "_cdc_committed_at"]


def test_types_are_those_of_the_contract(
    opened: Callable[[], Destination], warehouse: Warehouse
) -> None:
    types = {
        "b": (pa.bool_(), "boolean"),
        "i2": (pa.int16(), "smallint"),
        "i4": (pa.int32(), "int"),
        "i8": (pa.int64(), "bigint"),
        "f4": (pa.float32(), "float"),
        "f8": (pa.float64(), "double"),
        "n": (pa.decimal128(12, 2), "decimal(12,2)"),
        "t": (pa.string(), "string"),
        "x": (pa.binary(), "binary"),
        "d": (pa.date32(), "date"),
        "naive": (pa.timestamp("us"), "timestamp_ntz"),
        "zoned": (pa.timestamp("us", tz="UTC"), "timestamp"),
    }
    target = TargetTable("typed", pa.schema([(n, t) for n, (t, _) in types.items()]))
    with opened() as destination:
        whole(target, (), _cdc_lsn=1).load(destination, 1)
    found = query(
        warehouse,
        "SELECT column_name, full_data_type FROM main.information_schema.columns "
        "WHERE table_schema = 'bronze' AND table_name = 'typed' ORDER BY ordinal_position",
    )
    assert [tuple(row) for row in found] == [
        *((name, sql_type) for name, (_, sql_type) in types.items()),
        ("_cdc_lsn", "bigint"),
        ("_cdc_committed_at", "timestamp"),
    ]


@pytest.mark.needs_warehouse("Number of statements")
@pytest.mark.parametrize("in_one_transaction", [False, True])
def test_statements_and_sessions_are_few(
    warehouse: Warehouse, tmp_path: Path, *, in_one_transaction: bool
) -> None:
    """As the page on costs has them: three statements a table, two in a transaction."""
    n = 10
    found = of_the_destination(warehouse, tmp_path, n, in_one_transaction=in_one_transaction)
    sessions = {run: cost[0] for run, cost in found.items()}
    assert max(sessions.values()) <= 8
    assert warehouse.open_sessions() == 0
    assert {run: cost[1] for run, cost in found.items()} == {
        "first snapshot": (15 if in_one_transaction else 16) + 3 * n,
        "next snapshot": 6 + 2 * n if in_one_transaction else 7 + 3 * n,
        "first CDC": 8 + 2 * n if in_one_transaction else 9 + 3 * n,
        "next CDC": 6 + 2 * n if in_one_transaction else 7 + 3 * n,
        "CDC without a change": 2,
    }


def test_tables_are_loaded_at_the_same_time(
    opened: Callable[[], Destination], warehouse: Warehouse, engine: str
) -> None:
    targets = [TargetTable(f"t{n}", ORDERS.schema) for n in range(TABLES_AT_ONCE + 1)]
    batch = LoadBatch(merges=tuple(keyed(t, [{"id": 1, "_cdc_lsn": 1}]) for t in targets))
    warehouse.add_fault("MERGE INTO", "hold", times=TABLES_AT_ONCE)
    with ThreadPoolExecutor(1) as thread, opened() as destination:
        loading = thread.submit(destination.load, batch, checkpoint(1))
        while warehouse.faults()[0]["fired"] < TABLES_AT_ONCE:
            assert not loading.done()
        warehouse.clear_faults()
        loading.result()
        assert set(destination.tables().values()) == {1}
    assert warehouse.counters()["sessions"] == (1 if engine == "spark" else TABLES_AT_ONCE)


def test_staged_files_may_be_kept(warehouse: Warehouse, tmp_path: Path) -> None:
    """Of a snapshot in the dataset's volume, of changes in that of the staging dataset."""
    for number in (1, 2):
        with databricks_on(
            warehouse,
            PipelineSettings("pgbronze", "bronze", tmp_path),
            keep_staged_files=True,
        ) as destination:
            row = {"id": number, "_cdc_lsn": number}
            whole(ORDERS, ("id",), **row).load(destination, number)
            destination.load(LoadBatch(merges=(keyed(ORDERS, [row]),)), checkpoint(number))
            found = destination.volumes() or {}
        assert {volume: len(files) for volume, files in found.items()} == {
            "main.bronze._dlt_staging_load_volume": number,
            "main.bronze_staging._dlt_staging_load_volume": number,
        }


@pytest.fixture
def many_files(monkeypatch: pytest.MonkeyPatch) -> Content:
    """Fifty rows in five files."""
    monkeypatch.setattr("adapters.dlt_destination.files.parquet.FILE_ROWS", 10)
    monkeypatch.setattr("adapters.dlt_destination.files.parquet.ROW_GROUP_ROWS", 10)
    schema = pa.schema([*ORDERS.schema, *METADATA_FIELDS])
    pieces = [
        pa.Table.from_pylist([{"id": n, "_cdc_lsn": 1} for n in range(at, at + 10)], schema=schema)
        for at in range(0, 50, 10)
    ]
    return Content(ORDERS, pieces, ("id",))


def test_many_files_are_one_replacement(
    opened: Callable[[], Destination], many_files: Content
) -> None:
    with opened() as destination:
        many_files.load(destination, 1)
        assert {n for (n,) in content(destination, "orders", "id")} == set(range(50))
        assert dict(destination.tables()) == {"orders": 50}
        assert destination.volumes() == {"main.bronze._dlt_staging_load_volume": []}


def test_rows_of_a_file_that_is_gone_are_missed(
    opened: Callable[[], Destination], warehouse: Warehouse, many_files: Content
) -> None:
    """Whatever took it away: no table is replaced by a part of its rows."""
    with opened() as destination:
        whole(ORDERS, ("id",), id=7, _cdc_lsn=1).load(destination, 1)
    warehouse.add_fault("INSERT OVERWRITE", "hold")
    with ThreadPoolExecutor(1) as thread, opened() as destination:
        loading = thread.submit(many_files.load, destination, 2)
        while not any(fault["fired"] for fault in warehouse.faults()):
            assert not loading.done()
        folder = warehouse.volume_path("bronze", "_dlt_staging_load_volume")
        next(folder.rglob("*.parquet")).unlink()
        warehouse.clear_faults()
        with pytest.raises(DestinationFailed, match="PATH_NOT_FOUND"):
            loading.result()
    with opened() as destination:
        assert content(destination, "orders", "id") == [(7,)]


def test_pipelines_share_a_volume(
    warehouse: Warehouse,
    tmp_path: Path,
    keeping_files: Callable[[], AbstractContextManager[None]],
) -> None:
    """One sweeps what it left itself, never what another is about to load."""
    name = "main.shared.files"
    query(warehouse, "CREATE SCHEMA main.shared")
    query(warehouse, f"CREATE VOLUME {name}")

    def pipeline(called: str) -> Destination:
        return databricks_on(
            warehouse,
            PipelineSettings(called, "bronze", tmp_path / called),
            staging_volume_name=name,
        )

    batch = LoadBatch(merges=(keyed(ORDERS, [{"id": 1, "_cdc_lsn": 1}]),))
    with keeping_files(), pipeline("one") as one:
        one.load(batch, checkpoint(1))
        (left,) = (one.volumes() or {})[name]
    assert left.endswith(".main.bronze.one.parquet")
    for called, stays in (("two", [left]), ("one", [])):
        with pipeline(called) as destination:
            destination.load(batch, checkpoint(2))
            assert destination.volumes() == {name: stays}
