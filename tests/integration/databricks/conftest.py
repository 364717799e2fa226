"""A destination on the local warehouse.

`PGBRONZE_TEST_ENGINE=spark` has a Spark session run the statements of all tests that use `opened`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.databricks.retry import RetryPolicy
from adapters.dlt_destination.settings import PipelineSettings
from tests.support.spark_engine import opened_by, session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

#: Waits that cost a test nothing.
PATIENCE = RetryPolicy(first_wait=0.01, longest_wait=0.05)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pauses that the connector makes after a lost connection, whatever is set."""
    from databricks.sql.auth.retry import DatabricksRetryPolicy

    monkeypatch.setattr(DatabricksRetryPolicy, "get_backoff_time", lambda _: 0.0)


@pytest.fixture
def in_one_transaction() -> bool:
    """Whether a batch is one transaction; parametrized by tests that are about both."""
    return False


@pytest.fixture
def engine() -> str:
    """What runs the statements; parametrized by tests of both, or for all by the environment."""
    return os.environ.get("PGBRONZE_TEST_ENGINE", "warehouse")


@pytest.fixture
def opened(
    warehouse: Warehouse, tmp_path: Path, engine: str, *, in_one_transaction: bool
) -> Iterator[Callable[[], Destination]]:
    """A function that gives a destination, not yet opened, always of the same dataset."""
    settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
    if engine == "spark":
        with session_of(warehouse) as session:
            yield opened_by(
                session, warehouse, settings, PATIENCE, in_one_transaction=in_one_transaction
            )
        return
    yield lambda: databricks_destination(
        settings,
        warehouse.dlt_credentials(),
        multi_table_transaction=in_one_transaction,
        retry_policy=PATIENCE,
    )
