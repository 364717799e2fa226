"""Compact small files and delete old ones, so that merges stay fast and the folder small."""

from __future__ import annotations

import contextlib
from typing import Any

#: Every `UPKEEP_EVERY` commits of a table.
UPKEEP_EVERY = 20

#: Properties of new tables: how long unneeded files are kept for readers of earlier versions. Every
#: merge leaves such files behind.
PROPERTIES = {"delta.deletedFileRetentionDuration": "interval 1 hours"}


def keep_up(delta: Any, before: int) -> None:
    """Tidy the table if that is due since its version was `before`."""
    from deltalake.exceptions import DeltaError

    if delta.version() // UPKEEP_EVERY == before // UPKEEP_EVERY:
        return
    # Another tool can do the same at this moment; the table is correct either way.
    with contextlib.suppress(DeltaError):
        delta.optimize.compact()
        delta.vacuum(dry_run=False, enforce_retention_duration=False)
