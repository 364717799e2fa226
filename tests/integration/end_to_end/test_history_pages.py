"""Every query of the pages on history, soft deletes and privacy runs on DuckDB, and is right."""

from __future__ import annotations

import datetime as dt
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tests.support.lakes import LocalLake
from tests.support.pages import python_of, queries
from tests.support.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

RULES = (
    '[{"match": "*", "history": ["log", "scd2"]}, {"match": "public.customers", "deletes": "soft"}]'
)


@pytest.fixture(scope="module")
def lake(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A shop: a price that changed twice, and a customer who left."""
    import psycopg

    path = tmp_path_factory.mktemp("shop")
    with postgres.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        _fill(
            connection,
            Pipeline(dsn, LocalLake("duckdb", path), SOURCES__PG_REPLICATION__TABLES=RULES),
        )
    with duckdb.connect(str(path / "lake.duckdb")) as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


def _fill(shop: psycopg.Connection, pipeline: Pipeline) -> None:
    shop.execute(
        "CREATE TABLE products (id int PRIMARY KEY, name text, price numeric(9,2));"
        "CREATE TABLE customers (id int PRIMARY KEY, name text, since date);"
        "INSERT INTO products VALUES (1, 'tea', 3), (2, 'rice', 2);"
        "INSERT INTO customers VALUES (1, 'Ada', '2020-01-01'), (2, 'Bo', 'infinity')"
    )
    pipeline.call("snapshot")
    shop.execute("UPDATE products SET price = 4 WHERE id = 1")
    with shop.transaction():
        shop.execute("UPDATE products SET id = 5, price = 5 WHERE id = 1")
        shop.execute("UPDATE products SET name = 'brown rice' WHERE id = 2")
    shop.execute("DELETE FROM customers WHERE id = 2")
    pipeline.call("cdc")


def run(lake: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return lake.execute(query).fetchall()


def test_history(lake: duckdb.DuckDBPyConnection) -> None:
    prices, transaction, monday, at_lsn, from_log = queries("how-to/history.md")
    assert [(row[0], float(row[1]), float(row[2])) for row in run(lake, prices)] == [
        (1, 3.0, 4.0),
        (5, 4.0, 5.0),
    ]
    assert [row[:2] for row in run(lake, transaction)] == [
        ("update_preimage", 1),
        ("update_postimage", 5),
        ("update_preimage", 2),
        ("update_postimage", 2),
    ]
    # Everything happened after last Monday, unless it is Monday.
    assert run(lake, monday) == run(lake, from_log)
    now = "current_timestamp + INTERVAL 1 DAY"
    wanted = [(2, "brown rice", 2.0), (5, "tea", 5.0)]
    for query in (monday, from_log):
        found = run(lake, query.replace("date_trunc('week', current_timestamp)", now))
        assert [(*row[:2], float(row[2])) for row in found] == wanted
    ((first,),) = run(lake, "SELECT min(_cdc_lsn) FROM bronze.products_scd2")
    found = run(lake, at_lsn.replace("26738688", str(first)))
    assert [(*row[:2], float(row[2])) for row in found] == [(1, "tea", 3.0), (2, "rice", 2.0)]


def test_the_flow_of_a_databricks_pipeline(
    lake: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result by the definition of SCD type 1: of each key the change with the greatest sequence
    number, unless it is a delete. `tests/integration/spark/test_auto_cdc.py` has Spark's opinion.
    """
    flows: list[dict[str, Any]] = []
    pipelines: Any = ModuleType("pipelines")
    pipelines.temporary_view = lambda function: function
    pipelines.create_streaming_table = lambda name: None
    pipelines.create_auto_cdc_flow = lambda **flow: flows.append(flow)
    spark: Any = ModuleType("pyspark")
    spark.pipelines = pipelines
    monkeypatch.setitem(sys.modules, "pyspark", spark)
    exec(compile(python_of("how-to/history.md"), "history.md", "exec"), {})
    (flow,) = flows
    assert flow["target"] == "products"
    keys, number = ", ".join(flow["keys"]), flow["sequence_by"]
    latest = (
        f"SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY {number} DESC) AS latest "
        "FROM bronze.products_history"
    )
    found = (
        f"SELECT * EXCLUDE (latest, {', '.join(flow['except_column_list'])}) FROM ({latest}) "
        f"WHERE latest = 1 AND NOT ({flow['apply_as_deletes']}) ORDER BY ALL"
    )
    rows = run(
        lake, "SELECT * EXCLUDE (_cdc_lsn, _cdc_committed_at) FROM bronze.products ORDER BY ALL"
    )
    assert run(lake, found) == rows
    assert [row[0] for row in rows] == [2, 5]


def test_soft_deletes(lake: duckdb.DuckDBPyConnection) -> None:
    churned, by_month, view = queries("how-to/soft-deletes.md")
    ((id_, name, at),) = run(lake, churned)
    assert (id_, name) == (2, "Bo")
    assert abs(dt.datetime.now(dt.UTC) - at) < dt.timedelta(minutes=10)
    assert [row[1] for row in run(lake, by_month)] == [1]
    run(lake, view)
    assert run(lake, "SELECT id FROM bronze.live_customers") == [(1,)]


def test_privacy(lake: duckdb.DuckDBPyConnection) -> None:
    assert "Bo" in str(run(lake, "FROM bronze.customers_history"))
    assert "infinity" in str(run(lake, "FROM bronze._cdc_unrepresentable"))
    *erasing, check = queries("explanation/privacy.md")
    for statement in erasing:
        run(lake, statement)
    assert run(lake, check) == [(0,)]
    tables = [
        f'"{schema}"."{table}"'
        for schema, table in run(
            lake,
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_type = 'BASE TABLE' AND table_name NOT LIKE '%dlt%'",
        )
    ]
    assert any("customers_scd2" in table for table in tables)
    for table in tables:
        rows = str(run(lake, f"FROM {table}"))
        assert "'Bo'" not in rows, table
        assert "infinity" not in rows, table
