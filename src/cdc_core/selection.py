"""Which of the tables found a command is about."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cdc_core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.ports.catalog import SourceTable


def choose_tables(found: Sequence[SourceTable], globs: Sequence[str]) -> list[SourceTable]:
    """Those that match the globs, all without any; `SettingsError` if a glob matches none."""
    vain = [glob for glob in globs if not any(t.relation.table.matches((glob,)) for t in found)]
    if vain:
        raise SettingsError(
            f"--tables {shlex.join(vain)} matches none of the {len(found)} tables found",
            "globs match schema.table, or the bare name; wal2delta check lists the tables",
        )
    return [table for table in found if not globs or table.relation.table.matches(globs)]
