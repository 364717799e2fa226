"""The commands on the local warehouse; what is the same on every destination is tested for all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg

from tests.support.lakes import WarehouseLake
from tests.support.pipeline import Pipeline
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse


def test_from_the_first_snapshot_to_the_cleanup(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    """With conflicts and dropped connections on the way."""
    lake = WarehouseLake(warehouse, tmp_path)
    pipeline = Pipeline(database, lake)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=13)
        workload.run(20)
        pipeline.run("snapshot")
        workload.run(60)
        warehouse.add_fault("MERGE INTO", "conflict", nth=1, times=2)
        warehouse.add_fault("MERGE INTO", "drop_after", nth=4, times=2)
        warehouse.add_fault("HTTP PUT", "drop_before", nth=2)
        pipeline.run("cdc")
        assert all(fault["fired"] for fault in warehouse.faults())
        assert_equal(connection, lake)
        warehouse.clear_faults()
        told = json.loads(pipeline.call("status", "--json"))
        assert {table["table"] for table in told["tables"]} >= {"public.plain", "public.heap"}
        pipeline.call("verify")
        lake.execute("DELETE FROM bronze.plain WHERE id % 2 = 0")
        lake.execute("INSERT INTO bronze.heap SELECT * FROM bronze.heap")
        pipeline.call("verify", code=1)
        pipeline.call("verify", "--repair")
        assert_equal(connection, lake)
        assert "_dlt_staging_load_volume" in pipeline.call("volumes")
        pipeline.call("cleanup", "--yes")
        with warehouse.connect() as session, session.cursor() as cursor:
            cursor.execute("SHOW SCHEMAS")
            assert not {"bronze", "bronze_staging"} & {row[0] for row in cursor.fetchall()}
