"""A destination whose statements run in a Spark session, on the local warehouse's rules."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from adapters.dlt_destination.databricks import spark_connection
from adapters.dlt_destination.databricks.factory import databricks_destination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from adapters.dlt_destination.databricks.retry import RetryPolicy
    from adapters.dlt_destination.settings import PipelineSettings
    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse


@contextmanager
def session_of(warehouse: Warehouse) -> Iterator[Any]:
    """A Spark Connect session, with `/Volumes` as a job on Databricks has it."""
    from pyspark.sql.connect.session import SparkSession

    session = SparkSession.builder.remote(warehouse.spark_remote()).create()
    with mock.patch.object(spark_connection, "volume_path", warehouse.local_path):
        try:
            yield session
        finally:
            session.stop()


def opened_by(
    session: Any,
    warehouse: Warehouse,
    settings: PipelineSettings,
    retry_policy: RetryPolicy,
    *,
    in_one_transaction: bool = False,
) -> Callable[[], Destination]:
    """A function that gives a destination, not yet opened, whose statements the session runs."""
    return lambda: databricks_destination(
        settings,
        {"catalog": warehouse.catalog},
        engine="spark",
        spark=lambda: session,
        multi_table_transaction=in_one_transaction,
        retry_policy=retry_policy,
    )
