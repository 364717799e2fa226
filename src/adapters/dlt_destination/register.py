"""The destinations that there are: the one list that a new destination is added to.

A destination's folder has a module `section` with a class `Settings`, and a module `factory` with a
function `from_section`. Nothing else of a destination is imported before it is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapters.dlt_destination.destination import DltDestination
    from adapters.dlt_destination.section import Section
    from adapters.dlt_destination.settings import PipelineSettings


class Registered(NamedTuple):
    """`folder` is its package here, `section` the name of its settings below `destination`."""

    folder: str
    section: str


#: By the name that `pipeline.destination` has.
DESTINATIONS = {
    "databricks": Registered("databricks", "databricks"),
    "duckdb": Registered("duckdb", "duckdb"),
    "delta": Registered("delta", "filesystem"),
}


def section_models() -> dict[str, type[Section]]:
    """Return the model of each destination's settings, by the name of its section."""
    return {entry.section: _module(entry, "section").Settings for entry in DESTINATIONS.values()}


def build(
    name: str,
    pipeline: PipelineSettings,
    section: Mapping[str, Any],
    read_again: Callable[[], Mapping[str, Any]],
) -> DltDestination:
    """Return the destination of that name, not yet opened.

    `section` holds the keys of the destination's section of the settings. `read_again` reads the
    section again: a token can be replaced during a run.
    """
    factory = _module(DESTINATIONS[name], "factory")
    destination: DltDestination = factory.from_section(pipeline, section, read_again)
    return destination


def _module(entry: Registered, name: str) -> Any:
    return import_module(f"{__package__}.{entry.folder}.{name}")
