"""Destinations ready to be opened, one function for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.databricks.retry import PATIENCE, RetryPolicy
from adapters.dlt_destination.destination import DltDestination
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapters.dlt_destination.settings import PipelineSettings


def duckdb_destination(settings: PipelineSettings, credentials: Any = None) -> DltDestination:
    """`credentials`: the database file's path, or what else dlt takes; None: dlt's settings."""
    from adapters.dlt_destination.duckdb.store import DuckDbStore

    return DltDestination(DuckDbStore(credentials), settings)


def delta_destination(
    settings: PipelineSettings,
    bucket_url: str | None = None,
    credentials: Any = None,
    **options: Mapping[str, Any] | None,
) -> DltDestination:
    """`bucket_url`: a folder or what else dlt's filesystem takes, whose other keys are `options`;
    None: dlt's settings."""
    from adapters.dlt_destination.delta.store import DeltaStore

    return DltDestination(DeltaStore(bucket_url, credentials, **options), settings)


def databricks_destination(
    settings: PipelineSettings,
    credentials: Mapping[str, Any],
    *,
    staging_volume_name: str | None = None,
    keep_staged_files: bool = False,
    multi_table_transaction: bool = False,
    retry_policy: RetryPolicy = PATIENCE,
    read_credentials: Callable[[], Mapping[str, Any]] | None = None,
) -> DltDestination:
    """`credentials`: dlt's keys for Databricks, `http_path` and `catalog` always among them.
    `read_credentials` reads them again, where a token or secret may be replaced during a run.

    dlt would take the first warehouse that it finds for a missing `http_path`.
    """
    from adapters.dlt_destination.databricks.store import DatabricksStore

    for key in ("http_path", "catalog"):
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
        in_one_transaction=multi_table_transaction,
        credentials=read_credentials,
    )
    return DltDestination(store, settings)
