"""A destination whose statements run in a Spark session, on the local warehouse's rules."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from adapters.dlt_destination.databricks import spark_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

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
