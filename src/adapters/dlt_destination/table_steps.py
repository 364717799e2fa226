"""The steps that one load applies to each table, and the state of a run that dlt's clients need."""

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
    """The whole content of a table, in one or more Parquet files. `kept` names further files that
    the store has kept from before. `gone` names columns that the table loses; None means all
    columns that the target does not have."""

    target: TargetTable
    paths: tuple[Path, ...]
    rows: int
    key: tuple[str, ...] = ()
    gone: frozenset[str] | None = frozenset()
    kept: tuple[str, ...] = ()

    def stays(self, column: str) -> bool:
        """Whether the replaced table keeps a column that the target does not have."""
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
    """Until a run `writes`, it creates nothing. `begins`: dlt found no state, so any of dlt's own
    tables can be missing."""

    writes: bool = False
    begins: bool = False
