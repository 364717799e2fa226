"""Make a destination that writes Delta tables to a folder or an object store."""

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
    """`section` holds the keys of `destination.filesystem`."""
    return delta_destination(pipeline, **section)


def delta_destination(
    settings: PipelineSettings,
    bucket_url: str | None = None,
    credentials: Any = None,
    **options: Mapping[str, Any] | None,
) -> DltDestination:
    """`bucket_url` is a folder or any other URL that dlt's filesystem accepts, `options` are the
    other keys of that filesystem; None means that dlt looks them up."""
    from adapters.dlt_destination.delta.store import DeltaStore

    return DltDestination(DeltaStore(bucket_url, credentials, **options), settings)
