"""Destinations ready to be opened, one function for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.destination import DltDestination

if TYPE_CHECKING:
    from adapters.dlt_destination.settings import PipelineSettings


def duckdb_destination(settings: PipelineSettings, credentials: Any = None) -> DltDestination:
    """`credentials`: the database file's path, or what else dlt takes; None: dlt's settings."""
    from adapters.dlt_destination.duckdb_store import DuckDbStore

    return DltDestination(DuckDbStore(credentials), settings)


def delta_destination(
    settings: PipelineSettings, bucket_url: str | None = None, credentials: Any = None
) -> DltDestination:
    """`bucket_url`: a folder or what else dlt's filesystem takes; None: dlt's settings."""
    from adapters.dlt_destination.delta_store import DeltaStore

    return DltDestination(DeltaStore(bucket_url, credentials), settings)
