"""Every kind of store, each with a place of its own, and the settings of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.dlt_destination.databricks.retry import RetryPolicy
from adapters.dlt_destination.databricks.store import DatabricksStore
from adapters.dlt_destination.delta.store import DeltaStore
from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.dlt_destination.settings import PipelineSettings
from tests.integration.destination.stores import Store
from tests.support.spark_engine import place_on

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse


@pytest.fixture(params=["duckdb", "delta", "databricks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "duckdb":
            return Store(DuckDbStore, str(tmp_path / "lake.duckdb"))
        case "delta":
            return Store(DeltaStore, str(tmp_path / "lake"))
        case _:
            warehouse: Warehouse = request.getfixturevalue("warehouse")
            credentials, engine = place_on(warehouse)
            others = ("pgbronze", RetryPolicy(), engine)
            return Store(DatabricksStore, {"credentials": credentials}, others)


@pytest.fixture
def settings(tmp_path: Path) -> PipelineSettings:
    return PipelineSettings("pgbronze", "bronze", tmp_path / "work")
