"""The mission on the local warehouse by the real command; its Delta folders are read without it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from tests.support.pipeline import Pipeline
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from tests.integration.warehouse.client import Warehouse


@dataclass(frozen=True)
class WarehouseLake:
    """As `LocalLake`, of tables in a warehouse."""

    warehouse: Warehouse
    path: Path

    def __post_init__(self) -> None:
        """The settings, where a user keeps them: dlt's file of secrets."""
        credentials = self.warehouse.dlt_credentials()
        parameters = credentials.pop("connection_parameters")
        lines = ["[destination.databricks.credentials]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in credentials.items()]
        lines += ["[destination.databricks.credentials.connection_parameters]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in parameters.items()]
        (self.path / ".dlt").mkdir()
        (self.path / ".dlt" / "secrets.toml").write_text("\n".join(lines))

    @property
    def environment(self) -> dict[str, str]:
        return {"PIPELINE__DESTINATION": "databricks"}

    def read(self, table: str) -> pa.Table:
        return self.warehouse.read_table("bronze", table)


def test_rounds_of_cdc_end_equal(database: str, warehouse: Warehouse, tmp_path: Path) -> None:
    lake = WarehouseLake(warehouse, tmp_path)
    pipeline = Pipeline(database, lake)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=11)
        workload.run(20)
        pipeline.run("snapshot")
        assert_equal(connection, lake)
        for _ in range(3):
            workload.run(60)
            pipeline.run("cdc")
            assert_equal(connection, lake)
        pipeline.run("verify")
        workload.run(10)
        pipeline.run("snapshot", "--tables", "plain")
        pipeline.run("cdc")
        assert_equal(connection, lake)
        assert "_dlt_staging_load_volume" in pipeline.run("volumes")
        pipeline.run("cleanup", "--yes")
        with warehouse.connect() as session, session.cursor() as cursor:
            cursor.execute("SHOW SCHEMAS")
            assert not {"bronze", "bronze_staging"} & {row[0] for row in cursor.fetchall()}


def test_killed_at_any_moment_and_run_again_is_equal(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    lake = WarehouseLake(warehouse, tmp_path)
    pipeline = Pipeline(database, lake)
    chance = random.Random(12)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
        workload = Workload(connection, seed=12)
        workload.run(20)
        pipeline.killed("snapshot", after=chance.uniform(1.5, 4.0))
        pipeline.run("snapshot")
        assert_equal(connection, lake)
        for _ in range(4):
            workload.run(60)
            pipeline.killed("cdc", after=chance.uniform(1.5, 5.0))
            workload.run(5)
        pipeline.run("cdc")
        assert_equal(connection, lake)


def test_conflicts_and_dropped_connections_on_the_way(
    database: str, warehouse: Warehouse, tmp_path: Path
) -> None:
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
