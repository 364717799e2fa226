"""What one load does to each table, and what dlt's clients must know of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.dlt_destination.columns import all_fields

if TYPE_CHECKING:
    from pathlib import Path

    from cdc_core.values.merges import KeyedMerge, MultisetMerge, TargetTable


@dataclass(frozen=True)
class StagedMerge:
    """A merge whose rows are in Parquet files; `merge.rows` is empty."""

    merge: KeyedMerge | MultisetMerge
    paths: tuple[Path, ...]
    rows: int


@dataclass(frozen=True)
class StagedReplacement:
    """The whole content of a table, in one Parquet file or several. More of them may be `kept`, at
    places that the store knows."""

    target: TargetTable
    paths: tuple[Path, ...]
    rows: int
    key: tuple[str, ...] = ()
    gone: frozenset[str] | None = frozenset()
    kept: tuple[str, ...] = ()

    def stays(self, column: str) -> bool:
        """Whether a column of the table before stays, beside the target's."""
        return self.gone is not None and column not in self.gone and not self.has(column)

    def has(self, column: str) -> bool:
        names = {field.name.casefold() for field in all_fields(self.target)}
        return column.casefold() in names


@dataclass(frozen=True)
class StagedCells:
    """Cells for the table of unrepresentable values."""

    paths: tuple[Path, ...]
    rows: int


Step = StagedMerge | StagedReplacement | StagedCells


class Steps(dict[str, list[Step]]):
    """Steps of each table, in order."""

    def add(self, table: str, step: Step) -> None:
        self.setdefault(table, []).append(step)


@dataclass
class Run:
    """Until a run `writes`, it makes nothing that is missing. `begins`: dlt found no state, so any
    of its own tables may be missing."""

    writes: bool = False
    begins: bool = False
