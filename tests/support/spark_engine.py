"""The Databricks destination with a Spark session as its engine, by the local warehouse's rules.

`PGBRONZE_TEST_ENGINE=spark` chooses it for all tests of that destination. Tests with the mark
`needs_warehouse` are then left out. The mark's argument is the difference that makes them so, in
the words of the page on Spark.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from adapters.dlt_destination.databricks.engines import Engine
    from adapters.dlt_destination.databricks.retry import RetryPolicy
    from adapters.dlt_destination.settings import PipelineSettings
    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

#: "warehouse" or "spark".
ENGINE = os.environ.get("PGBRONZE_TEST_ENGINE", "warehouse")

#: The folder with the volumes, for processes that tests start.
_VOLUMES = "PGBRONZE_TEST_VOLUMES"


def _volume_path(place: str) -> Path:
    catalog, schema, volume, *rest = place.removeprefix("/Volumes/").split("/")
    return Path(os.environ[_VOLUMES], catalog, schema.lower(), "volumes", volume, *rest)


@contextmanager
def chosen_for(warehouse: Warehouse) -> Iterator[None]:
    """While tests use a warehouse: what the chosen engine needs in this process."""
    if ENGINE == "warehouse":
        yield
        return
    with sharing_volumes(warehouse):
        yield
        # Otherwise its client tries for minutes to tell a server that is gone.
        _process_session(warehouse).stop()


def find_volumes() -> None:
    """In a process that a test of a session started: have `/Volumes`, as a job on Databricks."""
    from adapters.dlt_destination.databricks import spark_connection

    spark_connection.volume_path = _volume_path


@contextmanager
def sharing_volumes(warehouse: Warehouse) -> Iterator[None]:
    """Give this process, and those that it starts, the warehouse's volumes as folders."""
    from adapters.dlt_destination.databricks import spark_connection

    with (
        mock.patch.dict(os.environ, {_VOLUMES: warehouse.root}),
        mock.patch.object(spark_connection, "volume_path", _volume_path),
    ):
        yield


def settings_of(warehouse: Warehouse) -> dict[str, str]:
    """Environment of a command whose statements a session runs."""
    return {"DESTINATION__DATABRICKS__ENGINE": "spark", "SPARK_REMOTE": warehouse.spark_remote()}


@contextmanager
def session_of(warehouse: Warehouse) -> Iterator[Any]:
    """A Spark Connect session, with `/Volumes` as a job on Databricks has it."""
    from pyspark.sql.connect.session import SparkSession

    session = SparkSession.builder.remote(warehouse.spark_remote()).create()
    with sharing_volumes(warehouse):
        try:
            yield session
        finally:
            session.stop()


def _process_session(warehouse: Warehouse) -> Any:
    """The session of this process, which lasts as long."""
    from pyspark.sql.connect.session import SparkSession

    return SparkSession.builder.remote(warehouse.spark_remote()).getOrCreate()


def place_on(warehouse: Warehouse) -> tuple[dict[str, Any], Engine]:
    """dlt's credentials, and the chosen engine."""
    from adapters.dlt_destination.databricks.engines import SparkEngine, WarehouseEngine

    if ENGINE == "warehouse":
        return warehouse.dlt_credentials(), WarehouseEngine()
    return {"catalog": warehouse.catalog}, SparkEngine(lambda: _process_session(warehouse))


def databricks_on(warehouse: Warehouse, settings: PipelineSettings, **options: Any) -> Destination:
    """The destination with the chosen engine, not yet opened."""
    from adapters.dlt_destination.databricks.factory import databricks_destination

    credentials, _ = place_on(warehouse)
    return databricks_destination(
        settings,
        credentials,
        engine=ENGINE,
        spark=lambda: _process_session(warehouse),
        **options,
    )


def opened_by(
    session: Any,
    warehouse: Warehouse,
    settings: PipelineSettings,
    retry_policy: RetryPolicy,
    *,
    in_one_transaction: bool = False,
) -> Callable[[], Destination]:
    """A function that gives a destination, not yet opened, whose statements the session runs."""
    from adapters.dlt_destination.databricks.factory import databricks_destination

    return lambda: databricks_destination(
        settings,
        {"catalog": warehouse.catalog},
        engine="spark",
        spark=lambda: session,
        multi_table_transaction=in_one_transaction,
        retry_policy=retry_policy,
    )
