"""dlt as a library: imported late, and silent. What it would log or send may quote rows.

Source: dlt documentation, "Runtime configuration", "Telemetry".
"""

from __future__ import annotations

import logging
import os
from typing import Any

from adapters import dlt_import


def import_dlt() -> Any:
    """The module, with telemetry off unless the operator has set it; the first of all imports.

    Raises what `adapters.dlt_import` does.
    """
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    os.environ.setdefault("RUNTIME__LOG_LEVEL", "CRITICAL")
    return dlt_import.import_dlt()


def silence(pipeline: Any) -> None:
    """A pipeline that logs nothing, keeps no trace, and leaves signals to the caller."""
    logging.getLogger("dlt").setLevel(logging.CRITICAL + 1)
    pipeline.config.enable_runtime_trace = False
    pipeline.runtime_config.intercept_signals = False
