"""Make a destination that writes Delta tables through a Databricks SQL warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.databricks.retry import DEFAULT_RETRY_POLICY, RetryPolicy
from adapters.dlt_destination.destination import DltDestination
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
        read_credentials=lambda: read_again()["credentials"],
    )


def databricks_destination(
    settings: PipelineSettings,
    credentials: Mapping[str, Any],
    *,
    staging_volume_name: str | None = None,
    keep_staged_files: bool = False,
    multi_table_transaction: bool = False,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
    read_credentials: Callable[[], Mapping[str, Any]] | None = None,
) -> DltDestination:
    """`credentials` are dlt's keys for Databricks; `http_path` and `catalog` are required.
    `read_credentials` reads the keys again, if a token or secret can be replaced during a run.

    Without `http_path`, dlt would use the first warehouse that it finds.
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
