"""Make a destination that writes a DuckDB file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.destination import DltDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapters.dlt_destination.settings import PipelineSettings


def from_section(
    pipeline: PipelineSettings,
    section: Mapping[str, Any],
    read_again: Callable[[], Mapping[str, Any]],  # noqa: ARG001 - nothing here is replaced during a run
) -> DltDestination:
    """`section` holds the keys of `destination.duckdb`."""
    return duckdb_destination(pipeline, section["credentials"])


def duckdb_destination(settings: PipelineSettings, credentials: Any = None) -> DltDestination:
    """`credentials` is the path of the database file, or anything else that dlt accepts; None
    means that dlt looks them up."""
    from adapters.dlt_destination.duckdb.store import DuckDbStore

    return DltDestination(DuckDbStore(credentials), settings)
