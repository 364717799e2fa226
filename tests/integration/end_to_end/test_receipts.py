"""Receipts on Delta tables and on the warehouse, read without the product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.lakes import WarehouseLake, lake_of
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse
    from tests.support.lakes import Lake

SETUP = """
CREATE TABLE orders (id int PRIMARY KEY, n int);
CREATE TABLE heap (n int);
ALTER TABLE heap REPLICA IDENTITY FULL;
INSERT INTO orders SELECT g, 0 FROM generate_series(1, 10) AS g;
INSERT INTO heap SELECT g FROM generate_series(1, 5) AS g;
"""
CHANGES = """
INSERT INTO orders SELECT g, 0 FROM generate_series(11, 13) AS g;
UPDATE orders SET n = 1 WHERE id <= 4;
DELETE FROM orders WHERE id <= 2;
UPDATE heap SET n = 50 WHERE n = 5;
TRUNCATE heap;
"""


def runs(lake: Lake) -> list[dict[str, Any]]:
    return sorted(lake.read("_cdc_runs").to_pylist(), key=lambda row: row["ended_at"])


def summary(run: dict[str, Any]) -> tuple[Any, ...]:
    names = (
        "command", "exit_code", "inserts", "updates", "deletes", "truncates", "rows_read", "tables",
    )  # fmt: skip
    return tuple(run[name] for name in names)


@pytest.mark.parametrize("kind", ["delta", "databricks"])
def test_each_run_leaves_a_row(
    database: str, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    lake = lake_of(kind, tmp_path, request)
    pipeline = InProcess(database, lake)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(SETUP)
        pipeline.run("snapshot")
        sql.execute(CHANGES)
        pipeline.run("cdc")
        pipeline.run("cdc")
        pipeline.run("verify")
        sql.execute("INSERT INTO heap VALUES (1)")
        pipeline.run("verify", code=1)
    found = runs(lake)
    assert [summary(run) for run in found] == [
        ("snapshot", 0, 0, 0, 0, 0, 15, 2),
        ("cdc", 0, 3, 5, 2, 1, 0, 2),
        ("cdc", 0, 0, 0, 0, 0, 0, 0),
        ("verify", 0, 0, 0, 0, 0, 11, 2),
        ("verify", 1, 0, 0, 0, 0, 12, 2),
    ]
    assert all(run["statements"] > 0 for run in found[:2])
    assert found[-1]["error"] == "not equal to the source: public.heap"
    tables = lake.read("_cdc_run_tables").to_pylist()
    named = {
        (row["table_name"], row["target"], row["inserts"], row["updates"])
        for row in tables
        if row["run_id"] == found[1]["run_id"]
    }
    assert named == {("public.orders", "orders", 3, 4), ("public.heap", "heap", 0, 1)}
    assert len(tables) == 2 * 4
    shown = pipeline.run("runs")
    assert shown.count("verify") >= 2
    assert "public.heap" in shown


def test_a_receipt_costs_a_run_one_statement(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    """An idle run and one with changes, next to the same run without a receipt. A row has the
    statements that its run sent before it."""
    pipeline = InProcess(database, WarehouseLake(warehouse, tmp_path))

    def cost(command: str, receipts: str) -> int:
        warehouse.clear_log()
        pipeline.environment["PIPELINE__RECEIPTS"] = receipts
        pipeline.run(command)
        return len(warehouse.statements())

    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(SETUP)
        first = cost("snapshot", "true")
        insert = "INSERT INTO orders SELECT max(id) + 1, 0 FROM orders"
        sql.execute(insert)
        pipeline.run("cdc")  # the first one with changes makes the staging volume
        costs = []
        for change in ("", insert):
            pair = []
            for receipts in ("false", "true"):
                if change:
                    sql.execute(change)
                pair.append(cost("cdc", receipts))
            costs.append(pair)
    assert [after - before for before, after in costs] == [1, 1]
    written = runs(pipeline.lake)  # type: ignore[arg-type]
    counted = [written[0]["statements"], *(run["statements"] for run in written[2:])]
    assert counted == [first - 1, costs[0][1] - 1, costs[1][1] - 1]
