"""The destination contract with the engine Spark: same statements, same strict rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.settings import PipelineSettings
from tests.contracts.destination_contract import DestinationContract
from tests.integration.databricks.conftest import PATIENCE
from tests.integration.databricks.spark_engine import session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse


class TestDatabricksBySpark(DestinationContract):
    volumes_at_first: ClassVar = {}

    @pytest.fixture
    def opened(self, warehouse: Warehouse, tmp_path: Path) -> Iterator[Callable[[], Destination]]:
        settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
        with session_of(warehouse) as session:
            yield lambda: databricks_destination(
                settings,
                {"catalog": warehouse.catalog},
                engine="spark",
                spark=lambda: session,
                retry_policy=PATIENCE,
            )
            # Nothing of it went through the warehouse.
            assert warehouse.counters().get("thrift_requests", 0) == 0
