"""Rows for `_cdc_unrepresentable`: the text of values that do not fit their destination type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdc_core.ports.progress import Warned
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA
from cdc_core.values.postgres_text import postgres_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence, Set

    import numpy as np
    import numpy.typing as npt

    from cdc_core.fold.row_layout import RowLayout
    from cdc_core.ports.progress import Progress
    from cdc_core.values.changes import Unrepresentable
    from cdc_core.values.merges import StagedRows


#: Bytes of rows held in memory until their load. Beyond this they are staged.
HELD_BYTES = 16 << 20


class HeldUnrepresentable:
    """Rows that wait for their load, by the oid of their table, in limited memory."""

    def __init__(self, stage: Callable[[pa.Table], StagedRows]) -> None:
        self._stage = stage
        self._held: dict[int, list[pa.Table]] = {}
        self._staged: dict[int, list[StagedRows]] = {}

    @property
    def oids(self) -> Set[int]:
        return self._held.keys() | self._staged.keys()

    def add(self, oid: int, rows: pa.Table) -> None:
        self._held.setdefault(oid, []).append(rows)
        if sum(rows.nbytes for held in self._held.values() for rows in held) > HELD_BYTES:
            for table, held in self._held.items():
                self._staged.setdefault(table, []).append(self._stage(pa.concat_tables(held)))
            self._held.clear()

    def add_staged(self, oid: int, rows: Iterable[StagedRows]) -> None:
        self._staged.setdefault(oid, []).extend(rows)

    def discard(self, oid: int) -> None:
        self._held.pop(oid, None)
        self._staged.pop(oid, None)

    def rows(self) -> tuple[pa.Table | StagedRows, ...]:
        """Return all rows, in the form of a `LoadBatch`."""
        held = [rows for of_table in self._held.values() for rows in of_table]
        staged = [rows for of_table in self._staged.values() for rows in of_table]
        return (*staged, pa.concat_tables(held)) if held else tuple(staged)

    def take(self) -> tuple[pa.Table | StagedRows, ...]:
        """Return all rows, in the form of a `LoadBatch`, and forget them."""
        rows = self.rows()
        self._held.clear()
        self._staged.clear()
        return rows


def warn_of_unrepresentable(progress: Progress, count: int) -> None:
    if count:
        progress.emit(
            Warned(
                f"{count} values do not fit their destination type: "
                "stored as NULL, original text in _cdc_unrepresentable"
            )
        )


def unrepresentable_rows(
    target: str,
    layout: RowLayout,
    key: Sequence[str],
    rows: pa.Table,
    values: Iterable[Unrepresentable],
    commit_lsn: npt.NDArray[np.uint64] | int,
    committed_at: npt.NDArray[np.int64] | int,
) -> pa.Table:
    """Return one row per value of `rows`, which has columns of the source, unless a rule hides it.

    LSN and time are one value for all rows (a snapshot) or an array by row. The key is a JSON
    object of target column and text, as the destination has it, even if a key value itself is
    unrepresentable. It is empty for a table without a key.
    """
    shown = [(value, column) for value in values if (column := layout.shown(value.column))]
    found = [value for value, _ in shown]
    named = {name: layout.columns[name].target for name in key}
    odd: dict[int, dict[str, str | None]] = {}
    for value in found:
        if value.column in named:
            odd.setdefault(value.row, {})[named[value.column]] = value.text
    owners = pa.array([value.row for value in found], pa.int64())
    keys = pa.table(layout.values(rows.select(list(named)).take(owners)))
    texts = (key_texts(keys, n) | odd.get(value.row, {}) for n, value in enumerate(found))
    content = (
        [target] * len(found),
        [column for _, column in shown],
        [json.dumps(identity, ensure_ascii=False) for identity in texts],
        [value.text for value in found],
        [_of_row(commit_lsn, value.row) for value in found],
        [_of_row(committed_at, value.row) for value in found],
    )
    arrays = [pa.array(c, f.type) for c, f in zip(content, UNREPRESENTABLE_SCHEMA, strict=True)]
    return pa.table(arrays, schema=UNREPRESENTABLE_SCHEMA)


def _of_row(of: npt.NDArray[Any] | int, row: int) -> int:
    return of if isinstance(of, int) else int(of[row])


def key_texts(keys: pa.Table, row: int) -> dict[str, str | None]:
    """Return a row of key columns as PostgreSQL's texts, by name."""
    return {name: postgres_text(keys.column(name)[row]) for name in keys.column_names}
