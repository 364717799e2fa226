"""The steps that one load applies to each table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.values.history import LogTruncate
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA, KeyedMerge, Replacement
from cdc_core.values.row_files import read_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cdc_core.values.history import HistoryStep
    from cdc_core.values.merges import MultisetMerge
    from cdc_core.values.row_files import RowFiles


@dataclass(frozen=True)
class StagedMerge:
    """A merge whose rows are in Parquet files; `merge.rows` is empty."""

    merge: KeyedMerge | MultisetMerge
    paths: tuple[Path, ...]
    rows: int


@dataclass(frozen=True)
class StagedHistory:
    """A step of a table's history whose rows are in Parquet files; its own `rows` are empty."""

    step: HistoryStep
    paths: tuple[Path, ...]


def staged_schema(step: HistoryStep) -> pa.Schema:
    """Return the columns of a step's files."""
    assert not isinstance(step, LogTruncate)
    return step.rows.schema


@dataclass(frozen=True)
class FilesOfWorkers:
    """`StagedRows` of `UNREPRESENTABLE_SCHEMA` in files that workers have written. `places` are
    those of `files` for the destination's statements."""

    files: RowFiles
    places: tuple[str, ...]

    def __len__(self) -> int:
        return self.files.rows

    def read(self) -> pa.Table:
        return pa.concat_tables(read_files(self.files, UNREPRESENTABLE_SCHEMA))


@dataclass(frozen=True)
class StagedUnrepresentable:
    """Rows for the table of unrepresentable values: files here, and places of workers' files."""

    paths: tuple[Path, ...]
    rows: int
    by_workers: tuple[str, ...] = ()


Step = Replacement | StagedMerge | StagedHistory | StagedUnrepresentable


class Steps(dict[str, list[Step]]):
    """Steps of each table, in order. Its history is first."""

    def add(self, table: str, step: Step) -> None:
        self.setdefault(table, []).append(step)


def history_tables(steps: Iterable[Step]) -> list[str]:
    """Return the names of the history tables that steps write, each once, in order."""
    names: list[str | None] = []
    for step in steps:
        if isinstance(step, StagedHistory):
            names.append(step.step.name)
        read = step.merge if isinstance(step, StagedMerge) else step
        if isinstance(read, Replacement | KeyedMerge) and read.history is not None:
            names += [read.history.log, read.history.versions]
    return list(dict.fromkeys(name for name in names if name is not None))
