"""Folding: the changes of a table in a batch become the final changes, one row per key.

Everything is columnar. The row index of a `TableChanges` is the order of events. A lineage links an
event to the previous event of the same row, across changes of key. It finds a value that the source
did not send (unchanged TOAST) where the batch last contained it, and with soft deletes the last
values of a deleted row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_core.fold.lineage import NONE, follow, key_codes, lineage, unchanged_text
from cdc_core.fold.row_layout import arrange, keyed_schema, multiset_schema, values_of
from cdc_core.values.changes import Op
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    DELETE,
    HOP,
    LSN_COLUMN,
    OP_COLUMN,
    REF_COLUMN,
    SOFT_DELETE,
    UNCHANGED_COLUMN,
    UPSERT,
    KeyedMerge,
    MultisetMerge,
    TargetTable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdc_core.fold.lineage import Indexes, Mask
    from cdc_core.fold.row_layout import Values
    from cdc_core.values.changes import TableChanges


def fold(
    changes: TableChanges,
    target: TargetTable,
    key: Sequence[str],
    dropped: Sequence[str] = (),
    first_ref: int = 0,
    *,
    soft_deletes: bool = False,
) -> KeyedMerge | MultisetMerge | None:
    """Return the merge of `changes` into `target`; None for no changes.

    `changes.rows` has exactly the target's columns (see `layout.lay_out`). `key` names target
    columns; empty for a multiset. `_cdc_ref` counts from `first_ref`. O(n) without unchanged TOAST
    and without soft deletes, O(n log n) with them.
    """
    truncations = np.flatnonzero(changes.op == Op.TRUNCATE)
    if len(changes) == 0:
        return None
    if key and soft_deletes:
        merge = _keyed(
            changes, target, tuple(key), np.flatnonzero(changes.op != Op.TRUNCATE), first_ref,
            truncations,
        )  # fmt: skip
        return _truncated(merge, changes, truncations[:1])
    start = int(truncations[-1]) + 1 if len(truncations) else 0
    events = np.arange(start, len(changes), dtype=np.int64)
    if key:
        merge = _keyed(changes, target, tuple(key), events, first_ref)
        return _truncated(merge, changes, truncations[-1:])
    content = tuple(name for name in target.schema.names if name not in dropped)
    truncated_at = Lsn(int(changes.commit_lsn[start - 1])) if start else None
    return _multiset(changes, target, content, events, truncated_at, first_ref)


def _truncated(merge: KeyedMerge, changes: TableChanges, truncation: Indexes) -> KeyedMerge:
    """Return the merge with this truncation, if there is one."""
    if not len(truncation):
        return merge
    (lsn,), (time,) = changes.commit_lsn[truncation], changes.committed_at[truncation]
    return replace(merge, truncated_at=Lsn(int(lsn)), truncated_time=int(time))


def _multiset(
    changes: TableChanges,
    target: TargetTable,
    content: tuple[str, ...],
    events: Indexes,
    truncated_at: Lsn | None,
    first_ref: int,
) -> MultisetMerge:
    rows = _take(changes.rows, events, len(changes))
    control = {
        OP_COLUMN: _operations(changes.op[events] == Op.DELETE),
        REF_COLUMN: pa.array(np.arange(first_ref, first_ref + len(events), dtype=np.int64)),
    }
    table = _staged(multiset_schema(target), rows, changes, events, control)
    return MultisetMerge(target, table, content, truncated_at)


def _keyed(
    changes: TableChanges,
    target: TargetTable,
    key: tuple[str, ...],
    events: Indexes,
    first_ref: int,
    truncations: Indexes | None = None,
) -> KeyedMerge:
    """Fold `events`; `truncations` are those that mark the rows of earlier events as deleted. None:
    without soft deletes."""
    soft_deletes = truncations is not None
    codes = key_codes(_take(changes.rows.select(list(key)), events, len(changes)))
    final = _last_of_each(codes, events)
    removal = changes.op == Op.DELETE
    deleted = removal[final]
    # The event that a row has its LSN and time from.
    ended = final if truncations is None else _ended(final, deleted, truncations)
    marked = None if truncations is None else ended != final
    masks = {name: mask for name, mask in changes.unchanged.items() if mask[events].any()}
    if not (masks or (soft_deletes and deleted.any())):
        rows = _take(changes.rows, final, len(changes))
        control: dict[str, Values] = {OP_COLUMN: _operations(deleted, marked)}
        table = _staged(keyed_schema(target), rows, changes, ended, control)
        return KeyedMerge(target, key, table, soft_deletes=soft_deletes)

    before = lineage(changes, codes, events)
    of_sent_columns = final
    if marked is not None:
        of_sent_columns = follow(before, removal)[final]
        marked |= deleted & ~removal[of_sent_columns]
    without_values = deleted if marked is None else deleted & ~marked
    columns = {name: changes.rows.column(name) for name in target.schema.names}
    unresolved: dict[str, Mask] = {}
    taken: dict[str, pa.ChunkedArray] = {}
    for name in target.schema.names:
        if name not in masks:
            source = final if name in key else of_sent_columns
            taken[name] = columns[name].take(pa.array(source))
            continue
        unknown = masks[name] | removal
        source = follow(before, unknown)[final]
        taken[name] = columns[name].take(pa.array(source))
        missing = unknown[source] & ~without_values
        if missing.any():
            unresolved[name] = missing

    hops = _hops(changes, before, final, unresolved, first_ref)
    rows = pa.table(taken, schema=target.schema)
    control = {
        OP_COLUMN: _operations(deleted, marked),
        UNCHANGED_COLUMN: unchanged_text(target.schema, unresolved, len(final)),
        REF_COLUMN: hops.references,
    }
    table = _staged(keyed_schema(target), rows, changes, ended, control)
    if len(hops.events):
        table = pa.concat_tables([table, hops.rows(changes, target, key)])
    return KeyedMerge(
        target, key, table, unchanged_columns=tuple(unresolved), has_hops=len(hops.events) > 0,
        soft_deletes=soft_deletes,
    )  # fmt: skip


def _ended(final: Indexes, deleted: Mask, truncations: Indexes) -> Indexes:
    """Return for each final event the first truncation after it; itself if it is a delete, or if
    there is none."""
    following = np.append(truncations, NONE)[np.searchsorted(truncations, final)]
    return np.where(deleted | (following == NONE), final, following)


def _last_of_each(codes: Indexes, events: Indexes) -> Indexes:
    """Return the last event of each code, ascending."""
    if not len(codes):
        return np.empty(0, dtype=np.int64)
    last = np.full(int(codes.max()) + 1, NONE, dtype=np.int64)
    last[codes] = events
    # Already in order if each row changed once.
    return last if bool((last[1:] > last[:-1]).all()) else np.sort(last)


class _Hops:
    """Earlier keys of rows whose value must be looked up in the target."""

    def __init__(self, references: pa.Array, events: Indexes, lsns: Indexes, refs: Indexes) -> None:
        self.references = references
        self.events = events
        self.lsns = lsns
        self.refs = refs

    def rows(self, changes: TableChanges, target: TargetTable, key: tuple[str, ...]) -> pa.Table:
        """Return the hops as rows that have only a key; all else is null."""
        keys = changes.rows.select(list(key)).take(pa.array(self.events))
        control = {
            LSN_COLUMN: pa.array(self.lsns),
            OP_COLUMN: pa.scalar(HOP),
            REF_COLUMN: pa.array(self.refs),
        }
        return arrange(keyed_schema(target), values_of(keys) | control, len(self.events))


def _hops(
    changes: TableChanges,
    before: Indexes,
    final: Indexes,
    unresolved: dict[str, Mask],
    first_ref: int,
) -> _Hops:
    """Follow the key changes of every unresolved row back to the key that the target knows.

    A hop is a key and the LSN at which the row got it. Of several hops within one transaction, a
    target can only contain the last, because it holds whole transactions.
    """
    none = np.empty(0, dtype=np.int64)
    wanted = np.zeros(len(final), dtype=np.bool_)
    for mask in unresolved.values():
        wanted |= mask
    arrival = follow(before, changes.moved_from < 0)
    place = arrival[final]
    rows = np.flatnonzero(wanted & (changes.moved_from[place] >= 0))
    references = np.full(len(final), NONE, dtype=np.int64)
    references[rows] = np.arange(first_ref, first_ref + len(rows))
    array = pa.array(references, mask=references == NONE)
    if not len(rows):
        return _Hops(array, none, none, none)

    refs = np.arange(first_ref, first_ref + len(rows), dtype=np.int64)
    keyed_by, arrived = final[rows], place[rows]
    events, lsns, owners = [], [], []
    newest = np.full(len(rows), np.iinfo(np.int64).max, dtype=np.int64)
    while len(refs):
        moved = changes.moved_from[arrived] >= 0
        lsn = np.where(moved, changes.commit_lsn[arrived].astype(np.int64), 0)
        keep = lsn < newest
        events.append(keyed_by[keep])
        lsns.append(lsn[keep])
        owners.append(refs[keep])
        refs, newest = refs[moved], lsn[moved]
        keyed_by = changes.moved_from[arrived[moved]]
        arrived = arrival[keyed_by]
    return _Hops(array, np.concatenate(events), np.concatenate(lsns), np.concatenate(owners))


def _take(rows: pa.Table, indexes: Indexes, total: int) -> pa.Table:
    if len(indexes) == total:
        return rows
    if len(indexes) and int(indexes[-1]) - int(indexes[0]) + 1 == len(indexes):
        return rows.slice(int(indexes[0]), len(indexes))
    return rows.take(pa.array(indexes))


def _operations(deleted: Mask, marked: Mask | None = None) -> pa.Array:
    found = pc.if_else(pa.array(deleted), DELETE, UPSERT)
    return found if marked is None else pc.if_else(pa.array(marked), SOFT_DELETE, found)


def _staged(
    schema: pa.Schema,
    rows: pa.Table,
    changes: TableChanges,
    indexes: Indexes,
    control: Mapping[str, Values],
) -> pa.Table:
    metadata = {
        LSN_COLUMN: pa.array(changes.commit_lsn[indexes].astype(np.int64)),
        COMMITTED_AT_COLUMN: pa.array(changes.committed_at[indexes]),
    }
    return arrange(schema, values_of(rows) | metadata | {**control}, len(indexes))
