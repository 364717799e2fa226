"""What one load package does to each table, beside dlt's schema: a batch must not change that.

The plan is handed from the destination to its load jobs in memory; a package never outlives the
process that made it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adapters.dlt_destination.columns import all_fields

if TYPE_CHECKING:
    from pathlib import Path

    from cdc_core.staging import KeyedMerge, MultisetMerge, TargetTable


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
    exact: bool = False
    kept: tuple[str, ...] = ()

    def stays(self, column: str) -> bool:
        """Whether a column of the table before stays, empty, beside the target's."""
        return not self.exact and not self.has(column)

    def has(self, column: str) -> bool:
        names = {field.name.casefold() for field in all_fields(self.target)}
        return column.casefold() in names


@dataclass(frozen=True)
class Filled:
    """A replacement that is done: the store took the rows as they came."""

    rows: int
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StagedCells:
    """Cells for the table of unrepresentable values."""

    paths: tuple[Path, ...]
    rows: int


Step = StagedMerge | StagedReplacement | Filled | StagedCells


@dataclass
class Plan:
    """Steps of each table, in order.

    `names` maps dlt's name of a table, which must do as a file name, to the table's own; `failures`
    are what the jobs ran into, by table. Until the run `writes`, nothing is made that is not there.
    `begins`: dlt found no state, so that any of its own tables may be missing.
    """

    steps: dict[str, list[Step]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, BaseException]] = field(default_factory=list)
    writes: bool = False
    begins: bool = False

    def clear(self) -> None:
        self.begins = False
        self.steps.clear()
        self.names.clear()
        self.failures.clear()

    def add(self, table: str, step: Step) -> None:
        self.steps.setdefault(table, []).append(step)

    def files(self, table: str) -> list[Path]:
        return [path for step in self.steps[table] for path in step.paths]
