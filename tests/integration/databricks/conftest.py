"""A destination on the local warehouse, with the engine of `tests.support.spark_engine`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from adapters.dlt_destination.databricks import spark_connection
from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.databricks.retry import RetryPolicy
from adapters.dlt_destination.settings import PipelineSettings
from tests.support.spark_engine import ENGINE, opened_by, session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
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
    """What runs the statements; parametrized by tests of both."""
    return ENGINE


@pytest.fixture
def keeping_files(
    warehouse: Warehouse, engine: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], AbstractContextManager[None]]:
    """A function: within its block no file of a volume is removed, whoever tries."""

    def fails(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    @contextmanager
    def keeping() -> Iterator[None]:
        with monkeypatch.context() as patch:
            if engine == "spark":
                patch.setattr(spark_connection, "_remove", fails)
            else:
                warehouse.add_fault("REMOVE", "error", times=100)
            yield
            warehouse.clear_faults()

    return keeping


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
