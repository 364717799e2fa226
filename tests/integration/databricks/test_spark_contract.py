"""The contracts of the destination with the engine Spark: same statements, same strict rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.databricks.test_contract import TestDatabricks as OnWarehouse
from tests.integration.databricks.test_contract import TestDatabricksHistory as HistoryOnWarehouse
from tests.integration.databricks.test_contract import TestDatabricksJson as JsonOnWarehouse
from tests.integration.databricks.test_run_log import TestDatabricks as RunLogOnWarehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.warehouse.client import Warehouse


class BySpark:
    @pytest.fixture
    def engine(self) -> str:
        return "spark"

    @pytest.fixture(autouse=True)
    def _nothing_goes_through_the_warehouse(self, warehouse: Warehouse) -> Iterator[None]:
        before = warehouse.counters().get("thrift_requests", 0)
        yield
        assert warehouse.counters().get("thrift_requests", 0) == before


class TestDatabricksBySpark(BySpark, OnWarehouse):
    pass


class TestDatabricksHistoryBySpark(BySpark, HistoryOnWarehouse):
    pass


class TestDatabricksJsonBySpark(BySpark, JsonOnWarehouse):
    pass


class TestRunLogBySpark(BySpark, RunLogOnWarehouse):
    #: Spark's client itself retries for minutes, whatever we wait for.
    test_a_warehouse_that_is_away_does_not_hold_the_run = None
