"""A run into Databricks that is recorded, and replayed on a machine without a warehouse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.lakes import LocalLake, WarehouseLake
from tests.support.pipeline import InProcess
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse


@pytest.mark.parametrize("kind", ["duckdb", "delta"])
def test_a_run_into_databricks_replays_elsewhere(
    database: str, warehouse: Warehouse, tmp_path: Path, kind: str
) -> None:
    for name in ("recorded", "replayed"):
        (tmp_path / name).mkdir()
    lake = WarehouseLake(warehouse, tmp_path / "recorded")
    elsewhere = LocalLake(kind, tmp_path / "replayed")
    pipeline = InProcess(database, lake)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=7)
        workload.run(20)
        pipeline.run("snapshot")
        workload.run(40)
        file = tmp_path / "bug.pgbronze"
        pipeline.run("record", str(file), "--rows")
        replay = InProcess("", elsewhere)
        # No settings of the source; those of the user's destination do not matter.
        replay.environment = {
            key: value for key, value in replay.environment.items() if not key.startswith("SOURCES")
        } | {"PIPELINE__DESTINATION": "databricks"}
        replay.run("replay", str(file), "--destination", kind)
        assert_equal(connection, elsewhere)
        pipeline.run("cdc")
        assert_equal(connection, lake)


def test_json_of_databricks_replays_in_duckdb(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    for name in ("recorded", "replayed"):
        (tmp_path / name).mkdir()
    rules = json.dumps([{"match": "*", "json": "variant"}])
    lake = WarehouseLake(warehouse, tmp_path / "recorded")
    pipeline = InProcess(database, lake, SOURCES__PG_REPLICATION__TABLES=rules)
    elsewhere = LocalLake("duckdb", tmp_path / "replayed")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body jsonb)")
        connection.execute("""INSERT INTO docs VALUES (1, '{"a": 1.50}'), (2, 'null')""")
        pipeline.run("snapshot")
        connection.execute("""INSERT INTO docs VALUES (3, '[1.50]'), (4, NULL)""")
        file = tmp_path / "bug.pgbronze"
        pipeline.run("record", str(file), "--rows")
    replay = InProcess("", elsewhere)
    replay.environment = {
        key: value for key, value in replay.environment.items() if not key.startswith("SOURCES")
    }
    said = replay.run("replay", str(file), "--destination", "duckdb")
    assert "rules changed" not in " ".join(said.split())
    found = {key: body and json.loads(body) for key, body in elsewhere.rows("docs", "id", "body")}
    assert found == {1: {"a": 1.5}, 2: None, 3: [1.5], 4: None}
