"""Where the checkpoint is in dlt's pipeline state, and the state's form in the dataset.

Nothing of dlt is imported here. Source: dlt, `dlt.common.versioned_state`,
`dlt.pipeline.state_sync`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

#: The name of dlt's source and schema, and the keys of the source's state.
SOURCE = "pgbronze"
CHECKPOINT = "checkpoint"
PACKAGES = "packages"
#: The key in a checkpoint whose value grows with the number of tables.
TABLES = "tables"

#: The version of the state's form that `decoded` knows.
STATE_ENGINE_VERSION = 4

#: Keys of a state that its hash does not cover.
_VERSION, _HASH = "_state_version", "_version_hash"
_UNHASHED = (_VERSION, "_state_engine_version", _HASH, "_local")


def checkpoint_in(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the checkpoint as it is in a pipeline state; None if there is none."""
    found: Mapping[str, Any] | None = state.get("sources", {}).get(SOURCE, {}).get(CHECKPOINT)
    return found


def with_tables(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the checkpoint with its tables parsed: a package stores them as one string."""
    tables = checkpoint[TABLES]
    return {**checkpoint, TABLES: json.loads(tables)} if isinstance(tables, str) else checkpoint


def note_checkpoint(own: MutableMapping[str, Any], checkpoint: Mapping[str, Any]) -> None:
    """Put the checkpoint into the state of dlt's source, `own`."""
    # As one string: dlt copies and searches a state several times, value by value.
    own[CHECKPOINT] = {**checkpoint, TABLES: _json(checkpoint[TABLES])}
    # dlt creates no package for an unchanged state.
    own[PACKAGES] = own.get(PACKAGES, 0) + 1


def with_checkpoint(state: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the next version of a pipeline state that has a checkpoint, with another one."""
    own = dict(state["sources"][SOURCE])
    note_checkpoint(own, checkpoint)
    following = {**state, "sources": {**state["sources"], SOURCE: own}}
    following[_VERSION] = state[_VERSION] + 1
    hashed = {key: value for key, value in following.items() if key not in _UNHASHED}
    digest = hashlib.sha3_256(_json(hashed, sort_keys=True).encode()).digest()
    following[_HASH] = base64.b64encode(digest).decode()
    return following


def encoded(state: Mapping[str, Any]) -> str:
    """Return the text that dlt stores for a pipeline state."""
    return base64.b64encode(zlib.compress(_json(state).encode())).decode()


def decoded(text: str) -> Mapping[str, Any]:
    """Return the pipeline state that dlt stored as `text`. Values in dlt's own encoding, such as
    times, stay strings; a checkpoint has none. Raises `ValueError` or `zlib.error` for another
    form."""
    state: Mapping[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    if state.get("_state_engine_version") != STATE_ENGINE_VERSION:
        raise ValueError("the state has another version")
    return state


def _json(value: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
