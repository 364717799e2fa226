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
