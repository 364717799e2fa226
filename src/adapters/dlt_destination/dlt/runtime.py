"""dlt as a library: imported late, and silent. Its log and telemetry could quote rows.

Source: dlt documentation, "Runtime configuration", "Telemetry".
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from adapters import dlt_import


def import_dlt() -> Any:
    """Import dlt with telemetry off, unless the operator has set it. Call this before any other
    import of dlt.

    Raises `SettingsError`, as `adapters.dlt_import` does.
    """
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    os.environ.setdefault("RUNTIME__LOG_LEVEL", "CRITICAL")
    module = dlt_import.import_dlt()
    # dlt prefers SQLAlchemy's URL to its own copy of it, and SQLAlchemy takes 0.1 s to import.
    from dlt.common.libs import sql_alchemy_shims

    sys.modules.setdefault("dlt.common.libs.sql_alchemy_compat", sql_alchemy_shims)
    return module


def silence(pipeline: Any) -> None:
    """Make a pipeline log nothing, keep no trace, and leave signals to the caller."""
    logging.getLogger("dlt").setLevel(logging.CRITICAL + 1)
    pipeline.config.enable_runtime_trace = False
    pipeline.runtime_config.intercept_signals = False
