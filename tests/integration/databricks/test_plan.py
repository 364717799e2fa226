"""`plan` on the local warehouse: types, definitions and the number of statements."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import psycopg

from tests.support.lakes import WarehouseLake
from tests.support.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse

TABLES = b"""
CREATE TABLE orders (id int PRIMARY KEY, price numeric(8, 2), wide numeric, placed timestamptz,
    local timestamp, day date, flag boolean, small smallint, big bigint, real real, double float8,
    doc jsonb, raw bytea, tags int[], "Name" text);
CREATE TABLE lines (id int PRIMARY KEY, note text);
CREATE TABLE renames (id int PRIMARY KEY);
INSERT INTO orders (id) SELECT generate_series(1, 10);
INSERT INTO lines SELECT g, 'x' FROM generate_series(1, 10) g;
"""
CHANGES = b"""
ALTER TABLE orders ADD COLUMN a text, ADD COLUMN b int;
ALTER TABLE lines RENAME COLUMN note TO remark;
ALTER TABLE renames RENAME TO renamed;
CREATE TABLE late (id int PRIMARY KEY);
"""
#: Statements that change a table of the source or its definition; others are dlt's, of the
#: receipts, or set a property that a definition needs.
CHANGING = re.compile(
    r"(CREATE (OR REPLACE )?TABLE|ALTER TABLE|INSERT OVERWRITE|INSERT INTO|MERGE INTO)"
    r" `main`\.`bronze`\.`(?!_)(\w+)`(?! SET TBLPROPERTIES)"
)


def changing(warehouse: Warehouse) -> list[str]:
    """The tables of the changing statements since the log was cleared."""
    found = (CHANGING.match(" ".join(s["text"].split())) for s in warehouse.statements())
    return sorted(match[3] for match in found if match)


def expected(planned: dict[str, Any]) -> int:
    return int(planned["statements"])


def test_types_and_statements_are_as_planned(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    pipeline = Pipeline(database, WarehouseLake(warehouse, tmp_path))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)

        def plan() -> dict[str, Any]:
            warehouse.clear_log()
            found: dict[str, Any] = json.loads(pipeline.call("plan", "--json"))
            assert changing(warehouse) == []
            assert not any(
                s["text"]
                .lstrip()
                .upper()
                .startswith(("CREATE", "ALTER", "INSERT", "MERGE", "DROP"))
                for s in warehouse.statements()
            )
            return found

        first = plan()
        warehouse.clear_log()
        pipeline.call("snapshot")
        assert len(changing(warehouse)) == expected(first) == 3
        orders = next(t for t in first["tables"] if t["table"] == "public.orders")
        planned = {column["target"]: column["target_type"] for column in orders["columns"]}
        with warehouse.connect() as session, session.cursor() as cursor:
            cursor.execute("DESCRIBE TABLE bronze.orders")
            rows = [tuple(row)[:2] for row in cursor.fetchall()]
        actual = {name: kind.upper() for name, kind in rows if name in planned}
        assert actual == planned

        connection.execute(CHANGES)
        second = plan()
        assert {d["kind"] for t in second["tables"] for d in t["definitions"]} == {
            "add column",
            "rename column",
            "rename table",
            "create table",
        }
        warehouse.clear_log()
        pipeline.call("cdc")
        assert len(changing(warehouse)) == expected(second) == 4
        assert changing(warehouse) == ["late", "lines", "orders", "renames"]
