"""The commands on the local warehouse; what is the same on every destination is tested for all."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.lakes import WarehouseLake
from tests.support.pipeline import Installed, Pipeline
from tests.support.spark_engine import ENGINE
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse


def test_from_the_first_snapshot_to_the_cleanup(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    """With conflicts and dropped connections on the way."""
    lake = WarehouseLake(warehouse, tmp_path)
    pipeline = Installed(database, lake)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=13)
        workload.run(20)
        pipeline.run("snapshot")
        workload.run(60)
        warehouse.add_fault("MERGE INTO", "conflict", nth=1, times=2)
        warehouse.add_fault("MERGE INTO", "drop_after", nth=4, times=2)
        if ENGINE == "warehouse":
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


@pytest.mark.needs_warehouse("Logins and network")
def test_a_run_that_follows_outlives_its_tokens(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    """Each time it is rotated, in the workspace and in the file that the run read it from."""
    lake = WarehouseLake(warehouse, tmp_path)
    pipeline = Pipeline(database, lake)
    secrets = tmp_path / ".dlt" / "secrets.toml"
    token = warehouse.token
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE steady (id int PRIMARY KEY)")
        pipeline.run("snapshot")
        following = pipeline.start("cdc", "--follow")
        for number in range(1, 4):
            following_token = f"next-token-{number}"
            secrets.write_text(secrets.read_text().replace(token, following_token))
            warehouse.change_access(token=following_token)
            token = following_token
            connection.execute("INSERT INTO steady VALUES (%s)", [number])
            _wait(lambda: lake.read("steady").num_rows == number)  # noqa: B023
        warehouse.change_access(token="next-token-nobody-has")
        connection.execute("INSERT INTO steady VALUES (0)")
        output, _ = following.communicate(timeout=60)
    assert following.returncode == 2, output
    assert "refused the credentials" in output
    assert "next-token" not in output


def _wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.2)
