"""Rows for `_cdc_unrepresentable`: values that their destination type cannot hold, kept as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.postgres_text import postgres_text
from cdc_core.staging import UNREPRESENTABLE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from cdc_core.changes import Unrepresentable
    from cdc_core.ports.progress import Progress


def joined(tables: Sequence[pa.Table]) -> pa.Table | None:
    """Rows of several tables as a `LoadBatch` takes them: None for none."""
    return pa.concat_tables(tables) if tables else None


def warn_of_unrepresentable(progress: Progress, count: int) -> None:
    if count:
        progress.warn(
            f"{count} values cannot be held by their destination type: "
            "NULL, and kept as text in _cdc_unrepresentable"
        )


def unrepresentable_rows(
    target: str,
    columns: Mapping[str, str],
    key: Sequence[str],
    rows: pa.Table,
    values: Iterable[Unrepresentable],
    commit_lsn: npt.NDArray[np.uint64] | int,
    committed_at: npt.NDArray[np.int64] | int,
) -> pa.Table:
    """One row per value; `columns` maps source column names to the target's.

    LSN and time are one for all rows (a snapshot), or an array by row. The key is a JSON object of
    target column and text; of a table without key it is empty.
    """
    records = []
    for value in values:
        if value.column not in columns:
            continue
        identity = key_texts(rows, value.row, {name: columns[name] for name in key})
        lsn = commit_lsn if isinstance(commit_lsn, int) else int(commit_lsn[value.row])
        time = committed_at if isinstance(committed_at, int) else int(committed_at[value.row])
        records.append(
            {
                "table_name": target,
                "column_name": columns[value.column],
                "key": json.dumps(identity, ensure_ascii=False),
                "value_text": value.text,
                "_cdc_lsn": lsn,
                "_cdc_committed_at": time,
            }
        )
    return pa.Table.from_pylist(records, schema=UNREPRESENTABLE_SCHEMA)


def key_texts(rows: pa.Table, row: int, columns: Mapping[str, str]) -> dict[str, str | None]:
    """A row's key as PostgreSQL's texts, under the target's names; `columns` maps the source's to
    them."""
    return {target: postgres_text(rows.column(name)[row]) for name, target in columns.items()}
