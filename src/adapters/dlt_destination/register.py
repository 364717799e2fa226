"""The destinations that there are: the one list that a new destination is added to.

A destination's folder has a module `factory` with a function `from_section`. Nothing of a
destination is imported before it is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapters.dlt_destination.destination import DltDestination
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
    factory: Any = import_module(f"{__package__}.{DESTINATIONS[name].folder}.factory")
    destination: DltDestination = factory.from_section(pipeline, section, read_again)
    return destination
