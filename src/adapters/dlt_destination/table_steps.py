"""The steps that one load applies to each table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.values.history import LogTruncate
from cdc_core.values.merges import KeyedMerge, Replacement

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

    from cdc_core.values.history import HistoryStep
    from cdc_core.values.merges import MultisetMerge


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
class StagedUnrepresentable:
    """Rows for the table of unrepresentable values."""

    paths: tuple[Path, ...]
    rows: int


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
