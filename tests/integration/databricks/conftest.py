"""A destination on the local warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.databricks.retry import RetryPolicy
from adapters.dlt_destination.settings import PipelineSettings

if TYPE_CHECKING:
    from collections.abc import Callable
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
def opened(
    warehouse: Warehouse, tmp_path: Path, *, in_one_transaction: bool
) -> Callable[[], Destination]:
    """A function that gives a destination, not yet opened, always of the same dataset."""
    settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
    return lambda: databricks_destination(
        settings,
        warehouse.dlt_credentials(),
        multi_table_transaction=in_one_transaction,
        retry_policy=PATIENCE,
    )
