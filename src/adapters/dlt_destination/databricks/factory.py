"""Make a destination that writes Delta tables on Databricks.

Statements run in a SQL warehouse, or in the job's own Spark session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.databricks.engines import SparkEngine, WarehouseEngine, chosen_engine
from adapters.dlt_destination.databricks.retry import DEFAULT_RETRY_POLICY, RetryPolicy
from adapters.dlt_destination.destination import DltDestination
from adapters.spark_session import spark_session
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapters.dlt_destination.settings import PipelineSettings


def from_section(
    pipeline: PipelineSettings,
    section: Mapping[str, Any],
    read_again: Callable[[], Mapping[str, Any]],
) -> DltDestination:
    """`section` holds the keys of `destination.databricks`."""
    return databricks_destination(
        pipeline,
        section["credentials"],
        staging_volume_name=section.get("staging_volume_name"),
        keep_staged_files=section["keep_staged_files"],
        multi_table_transaction=section["multi_table_transaction"],
        engine=section.get("engine"),
        read_credentials=lambda: read_again()["credentials"],
    )


def databricks_destination(
    settings: PipelineSettings,
    credentials: Mapping[str, Any],
    *,
    staging_volume_name: str | None = None,
    keep_staged_files: bool = False,
    multi_table_transaction: bool = False,
    engine: str | None = None,
    spark: Callable[[], Any] = spark_session,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
    read_credentials: Callable[[], Mapping[str, Any]] | None = None,
) -> DltDestination:
    """`credentials` are dlt's keys for Databricks; `catalog` is required, and `http_path` for a
    warehouse. `read_credentials` reads the keys again, if a token or secret can be replaced during
    a run.

    `engine` is "warehouse" or "spark"; None: see `chosen_engine`. `spark` returns the session.
    Without `http_path`, dlt would use the first warehouse that it finds.
    """
    from adapters.dlt_destination.databricks.store import DatabricksStore

    by_spark = chosen_engine(engine, credentials.get("http_path")) == "spark"
    for key in ("catalog",) if by_spark else ("http_path", "catalog"):
        if not credentials.get(key):
            raise SettingsError(
                f"destination.databricks.credentials.{key} is not set",
                "set it in .dlt/secrets.toml, or as DESTINATION__DATABRICKS__CREDENTIALS__"
                f"{key.upper()}",
            )
    store = DatabricksStore(
        {
            "credentials": dict(credentials),
            "staging_volume_name": staging_volume_name,
            "keep_staged_files": keep_staged_files,
        },
        settings.pipeline_name,
        retry_policy,
        SparkEngine(spark) if by_spark else WarehouseEngine(),
        in_one_transaction=multi_table_transaction,
        credentials=read_credentials,
    )
    return DltDestination(store, settings)
