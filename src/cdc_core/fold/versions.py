"""The versions of a batch: from the changes of a table to the state of each key per transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdc_core.fold.lineage import follow, key_codes, lineage, unchanged_text
from cdc_core.fold.multi_part_batch import BatchParts
from cdc_core.fold.row_layout import arrange, keyed_schema, values_of
from cdc_core.fold.sections import sections
from cdc_core.values.changes import Op
from cdc_core.values.history import BASE, VersionMerge
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    DELETE,
    LSN_COLUMN,
    METADATA_FIELDS,
    OP_COLUMN,
    REF_COLUMN,
    UNCHANGED_COLUMN,
    UPSERT,
    KeyedMerge,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.fold.lineage import Indexes, Mask
    from cdc_core.fold.row_layout import Values
    from cdc_core.values.changes import TableChanges
    from cdc_core.values.history import Moment
    from cdc_core.values.merges import Merge, StagedRows, TargetTable


def version_rows(
    changes: TableChanges, target: TargetTable, key: tuple[str, ...], first_ref: int
) -> KeyedMerge:
    """Return the rows of a `VersionMerge` for changes without a TRUNCATE, in the form of a merge.

    `has_hops` says whether a row without all of its values had another key before.
    `changes.rows` has exactly the target's columns. `_cdc_ref` counts from `first_ref`.
    """
    count = len(changes)
    every = np.arange(count, dtype=np.int64)
    codes = key_codes(changes.rows.select(list(key)))
    final = _last_of_transactions(codes, changes)
    deleted = changes.op == Op.DELETE
    values: dict[str, Values] = {}
    unresolved: dict[str, Mask] = {}
    if not changes.unchanged:
        values = values_of(changes.rows.take(pa.array(final)))
        return KeyedMerge(target, key, _rows(changes, target, values, final, deleted))
    before = lineage(changes, codes, every)
    for name in target.schema.names:
        column = changes.rows.column(name)
        if name not in changes.unchanged:
            values[name] = column.take(pa.array(final))
            continue
        unknown = changes.unchanged[name] | deleted
        place = follow(before, unknown)[final]
        values[name] = column.take(pa.array(place))
        missing = unknown[place] & ~deleted[final]
        if missing.any():
            unresolved[name] = missing
    if not unresolved:
        return KeyedMerge(target, key, _rows(changes, target, values, final, deleted))
    marked = np.logical_or.reduce(list(unresolved.values()))
    root = follow(before, np.ones(count, np.bool_))[final]
    bases, number = np.unique(root[marked], return_inverse=True)
    refs = np.zeros(len(final), np.int64)
    refs[marked] = first_ref + number.reshape(-1)
    values |= {
        UNCHANGED_COLUMN: unchanged_text(target.schema, unresolved, len(final)),
        REF_COLUMN: pa.array(refs, mask=~marked),
    }
    rows = [
        _rows(changes, target, values, final, deleted),
        _base_rows(changes, target, key, bases, first_ref),
    ]
    has_hops = bool((codes[root[marked]] != codes[final[marked]]).any())
    return KeyedMerge(
        target, key, pa.concat_tables(rows), None, tuple(unresolved), has_hops=has_hops
    )


def _last_of_transactions(codes: Indexes, changes: TableChanges) -> Indexes:
    """Return the index of the last event of each key in each transaction, ascending."""
    order = np.argsort(codes, kind="stable")
    last = np.ones(len(order), np.bool_)
    lsns = changes.commit_lsn[order]
    last[:-1] = (codes[order[1:]] != codes[order[:-1]]) | (lsns[1:] != lsns[:-1])
    return np.sort(order[last])


def _rows(
    changes: TableChanges,
    target: TargetTable,
    values: dict[str, Values],
    events: Indexes,
    deleted: Mask,
) -> pa.Table:
    operations = pa.array([UPSERT, DELETE]).take(pa.array(deleted[events].astype(np.int8)))
    stamps = {**_stamps(changes, events), OP_COLUMN: operations}
    return arrange(keyed_schema(target), {**values, **stamps}, len(events))


def _base_rows(
    changes: TableChanges, target: TargetTable, key: tuple[str, ...], events: Indexes, ref: int
) -> pa.Table:
    values = {
        **values_of(changes.rows.select(list(key)).take(pa.array(events))),
        **_stamps(changes, events),
        OP_COLUMN: pa.scalar(BASE),
        REF_COLUMN: pa.array(np.arange(ref, ref + len(events), dtype=np.int64)),
    }
    return arrange(keyed_schema(target), values, len(events))


def _stamps(changes: TableChanges, events: Indexes) -> dict[str, Values]:
    return {
        LSN_COLUMN: pa.array(changes.commit_lsn[events].astype(np.int64)),
        COMMITTED_AT_COLUMN: pa.array(changes.committed_at[events]).cast(METADATA_FIELDS[1].type),
    }


@dataclass(frozen=True)
class _Place:
    """A section of a table's changes in the batch."""

    oid: int
    section: int


class VersionParts:
    """The versions of a batch so far, by the oid of their table, in limited memory."""

    def __init__(self, stage: Callable[[pa.Table], StagedRows]) -> None:
        self._parts: BatchParts[_Place] = BatchParts(stage, version_rows)
        #: The TRUNCATE before each section; None before the first.
        self._truncated: dict[int, list[Moment | None]] = {}

    def add(
        self, oid: int, changes: TableChanges, target: TargetTable, key: tuple[str, ...]
    ) -> None:
        """Add the changes of a table; `changes.rows` has exactly the target's columns."""
        truncated = self._truncated.setdefault(oid, [None])
        for section in sections(changes):
            place = _Place(oid, len(truncated) - 1)
            if section.truncated is not None:
                # No other session saw what the same transaction did before.
                self._parts.drop_from(place, section.truncated.lsn)
                truncated.append(section.truncated)
                place = _Place(oid, len(truncated) - 1)
            if len(section.changes):
                first_ref = self._parts.rows_of(place)
                rows = version_rows(section.changes, target, key, first_ref)
                self._parts.add(place, changes.relation, rows)

    def make_room(self) -> None:
        self._parts.make_room()

    def discard(self, oid: int) -> None:
        for section in range(len(self._truncated.pop(oid, ()))):
            self._parts.discard(_Place(oid, section))

    def clear(self) -> None:
        self._truncated.clear()
        self._parts.clear()

    def take(
        self, oid: int, name: str, target: TargetTable, key: tuple[str, ...]
    ) -> list[VersionMerge]:
        """Return and forget what a table's changes make of its versions `name`. Raises `Entangled`.

        `target` may have changed since the first part.
        """
        held = set(self._parts.places)
        found = []
        for section, truncated in enumerate(self._truncated.pop(oid, ())):
            place = _Place(oid, section)
            merge: Merge = KeyedMerge(target, key, keyed_schema(target).empty_table())
            if place in held:
                merge = self._parts.take(place, target, key, ())
            assert isinstance(merge, KeyedMerge)
            if truncated is not None or len(merge.rows) or merge.staged:
                found.append(
                    VersionMerge(
                        name, target, key, merge.rows, truncated, merge.unchanged_columns,
                        merge.staged,
                    )
                )  # fmt: skip
        return found
