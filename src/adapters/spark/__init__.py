"""Spark reads PostgreSQL: a data source for users, and a reader of large tables for a full load.

    from adapters.spark import PostgresSnapshot, open_snapshot

Importing this package does not import pyspark; using `PostgresSnapshot` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.spark.data_source import PostgresSnapshot
    from adapters.spark.opened_snapshot import OpenedSnapshot, open_snapshot

__all__ = ["OpenedSnapshot", "PostgresSnapshot", "open_snapshot"]

_HOMES = {
    "PostgresSnapshot": "adapters.spark.data_source",
    "OpenedSnapshot": "adapters.spark.opened_snapshot",
    "open_snapshot": "adapters.spark.opened_snapshot",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
