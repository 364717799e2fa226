"""Where the checkpoint is in dlt's pipeline state, and the state's form in the dataset.

Nothing of dlt is imported here. Source: dlt, `dlt.common.versioned_state`.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The name of dlt's source and schema, and the keys of the source's state.
SOURCE = "pgbronze"
CHECKPOINT = "checkpoint"
PACKAGES = "packages"
#: The key in a checkpoint whose value grows with the number of tables.
TABLES = "tables"

#: The version of the state's form that `decoded` knows.
STATE_ENGINE_VERSION = 4


def checkpoint_in(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the checkpoint as it is in a pipeline state; None if there is none."""
    found: Mapping[str, Any] | None = state.get("sources", {}).get(SOURCE, {}).get(CHECKPOINT)
    return found


def with_tables(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the checkpoint with its tables parsed: a package stores them as one string."""
    tables = checkpoint[TABLES]
    return {**checkpoint, TABLES: json.loads(tables)} if isinstance(tables, str) else checkpoint


def decoded(text: str) -> Mapping[str, Any]:
    """Return the pipeline state that dlt stored as `text`. Values in dlt's own encoding, such as
    times, stay strings; a checkpoint has none. Raises `ValueError` or `zlib.error` for another
    form."""
    state: Mapping[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    if state.get("_state_engine_version") != STATE_ENGINE_VERSION:
        raise ValueError("the state has another version")
    return state
