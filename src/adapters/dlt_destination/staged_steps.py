"""Write the rows of a batch to Parquet files, and name the steps that use them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from adapters.dlt_destination.files.parquet import StagedParquet, write_table
from adapters.dlt_destination.table_steps import (
    FilesOfWorkers,
    StagedHistory,
    StagedMerge,
    StagedUnrepresentable,
    Steps,
)
from cdc_core.values.history import LogAppend, LogTruncate, VersionMerge
from cdc_core.values.merges import UNREPRESENTABLE_TABLE, KeyedMerge, MultisetMerge

if TYPE_CHECKING:
    from pathlib import Path

    from cdc_core.values.merges import LoadBatch

#: What has rows to be written to files.
Rows = TypeVar("Rows", bound=KeyedMerge | MultisetMerge | LogAppend | VersionMerge)


def written_steps(batch: LoadBatch, folder: Path) -> Steps:
    """Write the rows of a batch to Parquet files; return the steps that use them."""
    steps = Steps()
    for number, step in enumerate(batch.history):
        if isinstance(step, LogTruncate):
            steps.add(step.table.name, StagedHistory(step, ()))
            continue
        if _count(step) or (isinstance(step, VersionMerge) and step.truncated is not None):
            paths = _paths(step, folder / f"history-{number}.parquet")
            steps.add(step.table.name, StagedHistory(_slim(step), paths))
    for replacement in batch.replacements:
        steps.add(replacement.target.name, replacement)
    for number, merge in enumerate(batch.merges):
        rows = _count(merge)
        if rows or merge.truncated_at is not None:  # else only the table and its columns are needed
            paths = _paths(merge, folder / f"merge-{number}.parquet")
            steps.add(merge.target.name, StagedMerge(_slim(merge), paths, rows))
    if rows := sum(map(len, batch.unrepresentable)):
        by_workers = [one for one in batch.unrepresentable if isinstance(one, FilesOfWorkers)]
        paths = tuple(
            values.path
            if isinstance(values, StagedParquet)
            else write_table(values, folder / f"unrepresentable-{number}.parquet")
            for number, values in enumerate(batch.unrepresentable)
            if not isinstance(values, FilesOfWorkers)
        )
        places = tuple(place for one in by_workers for place in one.places)
        steps.add(UNREPRESENTABLE_TABLE, StagedUnrepresentable(paths, rows, places))
    return steps


def _count(value: Rows) -> int:
    return len(value.rows) + sum(map(len, value.staged))


def _paths(value: Rows, path: Path) -> tuple[Path, ...]:
    """Return the files of the rows, at least one. Rows in memory are written to `path`."""
    paths = tuple(chunk.path for chunk in value.staged if isinstance(chunk, StagedParquet))
    if len(value.rows) or not paths:
        paths += (write_table(value.rows, path),)
    return paths


def _slim(value: Rows) -> Rows:
    """Return the value without its rows."""
    return replace(value, rows=value.rows.schema.empty_table(), staged=())
