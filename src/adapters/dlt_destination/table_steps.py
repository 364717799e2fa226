"""The steps that one load applies to each table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.values.merges import Replacement

if TYPE_CHECKING:
    from pathlib import Path

    from cdc_core.values.merges import KeyedMerge, MultisetMerge


@dataclass(frozen=True)
class StagedMerge:
    """A merge whose rows are in Parquet files; `merge.rows` is empty."""

    merge: KeyedMerge | MultisetMerge
    paths: tuple[Path, ...]
    rows: int


@dataclass(frozen=True)
class StagedCells:
    """Cells for the table of unrepresentable values."""

    paths: tuple[Path, ...]
    rows: int


Step = Replacement | StagedMerge | StagedCells


class Steps(dict[str, list[Step]]):
    """Steps of each table, in order."""

    def add(self, table: str, step: Step) -> None:
        self.setdefault(table, []).append(step)
