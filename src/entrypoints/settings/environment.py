"""Facts about this process that are not settings of the pipeline. Imports nothing heavy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def log_level(environ: Mapping[str, str] | None = None) -> str:
    """Return `LOG_LEVEL`, checked; INFO if it is empty or not set."""
    level = (os.environ if environ is None else environ).get("LOG_LEVEL", "").strip() or "INFO"
    if level.upper() not in LOG_LEVELS:
        raise SettingsError(
            f"LOG_LEVEL is {level[:40]!r}", f"set it to one of {', '.join(LOG_LEVELS)}"
        )
    return level.upper()


def on_databricks(environ: Mapping[str, str] | None = None) -> bool:
    return "DATABRICKS_RUNTIME_VERSION" in (os.environ if environ is None else environ)
