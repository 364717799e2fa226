"""A batch in several parts: each part is folded on arrival and waits for the last one.

Memory holds a limited amount of them, whatever the size of a transaction; the rest is staged at the
destination. Parts with different keys are used as they are; others are folded again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_core.fold.fold import fold
from cdc_core.fold.row_layout import keyed_schema, relaid
from cdc_core.values.changes import Op, TableChanges
from cdc_core.values.history import BASE
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    DELETE,
    LSN_COLUMN,
    OP_COLUMN,
    SOFT_DELETE,
    UNCHANGED_COLUMN,
    UPSERT,
    KeyedMerge,
    Merge,
    MultisetMerge,
    TargetTable,
)
from cdc_core.values.row_hash import hash_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cdc_core.values.lsn import Lsn
    from cdc_core.values.merges import StagedRows
    from cdc_core.values.relation import Relation

    Stage = Callable[[pa.Table], StagedRows]
    #: From changes, target, key, and the first `_cdc_ref`.
    Refold = Callable[[TableChanges, TargetTable, tuple[str, ...], int], KeyedMerge]

Place = TypeVar("Place")

#: Bytes of folded rows held in memory. Beyond this the largest are staged, down to half of it.
HELD_BYTES = 48 << 20
#: Up to this many folded rows, of about this many bytes, are folded again at a time.
REGROUP_ROWS = 1 << 19
REGROUP_BYTES = 64 << 20


class Entangled(Exception):
    """Rows changed their key and the source did not send all of their values, in several parts with
    the same keys: a folded part does not contain enough to fold it again."""


@dataclass
class _Part:
    merge: Merge
    relation: Relation
    #: Least and greatest value of the key's first column; None if they have no order.
    keys: tuple[object, object] | None
    #: Bytes of its rows, in memory or staged.
    nbytes: int
    #: Whether a truncation has deleted all of its rows.
    ended: bool = False

    @property
    def held_bytes(self) -> int:
        return self.nbytes if len(self.merge.rows) else 0

    def stage(self, stage: Stage) -> None:
        rows = self.merge.rows
        self.merge = replace(
            self.merge, rows=rows.schema.empty_table(), staged=(*self.merge.staged, stage(rows))
        )

    def drop_from(self, lsn: Lsn, stage: Stage) -> None:
        """Drop the rows that committed at or after `lsn`."""
        self._change(lambda rows: _older(rows, lsn), stage)

    def end_at(self, lsn: Lsn, time: int, stage: Stage) -> None:
        """Mark the live rows as deleted by a truncation."""
        if not self.ended:
            self._change(lambda rows: _ended(rows, lsn, time), stage)
            self.ended = True

    def _change(self, change: Callable[[pa.Table], pa.Table], stage: Stage) -> None:
        """Change the rows; `change` returns the same table if nothing changes."""
        staged = []
        for chunk in self.merge.staged:
            rows = chunk.read()
            changed = change(rows)
            staged.append(chunk if changed is rows else stage(changed))
        self.merge = replace(self.merge, rows=change(self.merge.rows), staged=tuple(staged))


class BatchParts(Generic[Place]):
    """The parts of a batch so far, by their place: a table, or a section of its changes.

    `refold` folds the rows of several parts, as changes, once more.
    """

    def __init__(self, stage: Stage, refold: Refold | None = None) -> None:
        self._stage = stage
        self._refold = refold
        self._parts: dict[Place, list[_Part]] = {}
        self._rows: dict[Place, int] = {}

    @property
    def places(self) -> list[Place]:
        return list(self._parts)

    def rows_of(self, place: Place) -> int:
        """Return the number of folded rows of a place: the next part's `_cdc_ref` starts there."""
        return self._rows.get(place, 0)

    def renamed(self, place: Place, target: TargetTable) -> bool:
        """Whether a part uses other names than `target` for the table or its columns."""
        before = [part.merge.target for part in self._parts[place]]
        names = target.schema.names
        return any(
            (table.name, table.schema.names) != (target.name, names[: len(table.schema)])
            for table in before
        )

    def add(self, place: Place, relation: Relation, merge: Merge) -> None:
        if isinstance(merge, KeyedMerge) and merge.soft_deletes:
            if merge.truncated_at is not None:
                assert merge.truncated_time is not None
                for part in self._parts.get(place, ()):
                    part.end_at(merge.truncated_at, merge.truncated_time, self._stage)
        elif merge.truncated_at is not None:
            self._parts.pop(place, None)  # the row count stays: `_cdc_ref` must not repeat
        part = _Part(merge, relation, _key_range(merge), merge.rows.nbytes)
        self._parts.setdefault(place, []).append(part)
        self._rows[place] = self.rows_of(place) + len(merge.rows)

    def drop_from(self, place: Place, lsn: Lsn) -> None:
        """Drop the rows of a place that committed at or after `lsn`."""
        for part in self._parts.get(place, ()):
            part.drop_from(lsn, self._stage)

    def make_room(self) -> None:
        """Stage rows that memory should not hold while more parts arrive."""
        parts = [part for of_table in self._parts.values() for part in of_table]
        held = sum(part.held_bytes for part in parts)
        if held <= HELD_BYTES:
            return
        for part in sorted(parts, key=lambda part: part.held_bytes, reverse=True):
            if held <= HELD_BYTES // 2:
                return
            held -= part.held_bytes
            part.stage(self._stage)

    def discard(self, place: Place) -> None:
        self._parts.pop(place, None)
        self._rows.pop(place, None)

    def clear(self) -> None:
        self._parts.clear()
        self._rows.clear()

    def take(
        self, place: Place, target: TargetTable, key: tuple[str, ...], dropped: Sequence[str]
    ) -> Merge:
        """Return and forget the parts of a place as one merge into `target`, at most one row per
        key.

        `target` may have changed since the first part. Raises `Entangled`.
        """
        parts = self._parts.pop(place)
        self._rows.pop(place)
        as_they_are = all(part.merge.target == target for part in parts)
        if len(parts) == 1 and as_they_are:
            return parts[0].merge
        first = parts[0].merge
        content = tuple(name for name in target.schema.names if name not in dropped)
        if as_they_are and (not key or _apart(parts)):
            return _together([part.merge for part in parts], target)
        if not key:
            empty = first.rows.schema.empty_table()
            staged = tuple(self._stage(rows) for rows in _relaid(parts, target))
            columns = pa.schema([*target.schema, *list(empty.schema)[len(first.target.schema) :]])
            return MultisetMerge(target, columns.empty_table(), content, first.truncated_at, staged)
        if any(isinstance(part.merge, KeyedMerge) and part.merge.has_hops for part in parts):
            raise Entangled
        return self._folded_again(parts, target, key)

    def _folded_again(
        self, parts: list[_Part], target: TargetTable, key: tuple[str, ...]
    ) -> KeyedMerge:
        relation, first = parts[-1].relation, _first_truncated([part.merge for part in parts])
        assert isinstance(first, KeyedMerge)
        refold = self._refold or partial(_keyed, soft_deletes=first.soft_deletes)
        total = sum(_count(part.merge) for part in parts)
        if not total:
            empty = keyed_schema(target).empty_table()
            return replace(first, target=target, key=key, rows=empty, staged=())
        groups = max(-(-total // REGROUP_ROWS), sum(p.nbytes for p in parts) // REGROUP_BYTES)
        merges: list[KeyedMerge] = []
        if groups <= 1:
            events = _events(pa.concat_tables(list(_relaid(parts, target))), relation, target)
            merges.append(refold(events, target, key, 0))
        else:
            shares: list[list[StagedRows]] = [[] for _ in range(groups)]
            for rows in _relaid(parts, target):
                for group, share in enumerate(_shares(rows, key, groups)):
                    if len(share):
                        shares[group].append(self._stage(share))
            for staged in shares:
                if staged:
                    rows = pa.concat_tables([chunk.read() for chunk in staged])
                    events, refs = _events(rows, relation, target), sum(map(_count, merges))
                    merge = refold(events, target, key, refs)
                    merges.append(
                        replace(
                            merge,
                            rows=merge.rows.schema.empty_table(),
                            staged=(self._stage(merge.rows),),
                        )
                    )
        together = _together(merges, target)
        assert isinstance(together, KeyedMerge)
        return replace(
            together, truncated_at=first.truncated_at, truncated_time=first.truncated_time
        )


def _key_range(merge: Merge) -> tuple[object, object] | None:
    if isinstance(merge, MultisetMerge) or not len(merge.rows):
        return None
    values = merge.rows.column(merge.key[0])
    if pa.types.is_floating(values.type):
        return None  # NaN is outside of any range
    extremes = pc.min_max(values).as_py()
    return extremes["min"], extremes["max"]


def _apart(parts: list[_Part]) -> bool:
    """Whether the parts have no key in common."""
    ranges = [part.keys for part in parts if len(part.merge.rows) or part.merge.staged]
    if any(bounds is None or bounds[0] is None for bounds in ranges):
        return False
    ordered = sorted(ranges, key=lambda bounds: bounds[0])  # type: ignore[index, arg-type, return-value]
    pairs = itertools.pairwise(ordered)
    return all(before[1] < after[0] for before, after in pairs)  # type: ignore[index, operator]


def _together(merges: Sequence[Merge], target: TargetTable) -> Merge:
    """Combine merges with different keys, or of a multiset, into one."""
    rows = pa.concat_tables([merge.rows for merge in merges])
    staged = tuple(chunk for merge in merges for chunk in merge.staged)
    first = _first_truncated(merges)
    if isinstance(first, MultisetMerge):
        return replace(first, rows=rows, staged=staged)
    keyed = [merge for merge in merges if isinstance(merge, KeyedMerge)]
    unchanged = {name for merge in keyed for name in merge.unchanged_columns}
    return replace(
        first,
        rows=rows,
        staged=staged,
        unchanged_columns=tuple(name for name in target.schema.names if name in unchanged),
        has_hops=any(merge.has_hops for merge in keyed),
    )


def _first_truncated(merges: Sequence[Merge]) -> Merge:
    """Return the first merge with a truncation, else the first; the others have no earlier one."""
    return next((merge for merge in merges if merge.truncated_at is not None), merges[0])


def _relaid(parts: list[_Part], target: TargetTable) -> Iterator[pa.Table]:
    """Yield the rows of the parts, in order, in the columns of `target`."""
    for part in parts:
        for rows in (*(chunk.read() for chunk in part.merge.staged), part.merge.rows):
            if len(rows):
                yield relaid(rows, part.merge.target, target)


def _shares(rows: pa.Table, key: tuple[str, ...], groups: int) -> Iterator[pa.Table]:
    """Yield the rows of each group, in order; a key is always in the same group."""
    hashes = hash_rows([rows.column(name) for name in key], len(rows), as_key=True)
    group = (hashes % np.uint64(groups)).astype(np.int64)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(groups + 1))
    for start, stop in itertools.pairwise(bounds):
        yield rows.take(pa.array(order[start:stop]))


def _events(rows: pa.Table, relation: Relation, target: TargetTable) -> TableChanges:
    """Return folded rows, in the order of their parts, as changes.

    A row that was deleted with its values is an update to them and a delete.
    """
    bases = pc.equal(rows.column(OP_COLUMN), BASE)
    if pc.any(bases).as_py():
        rows = rows.filter(pc.invert(bases))
    deleted = pc.equal(rows.column(OP_COLUMN), DELETE).to_numpy(zero_copy_only=False)
    soft = pc.equal(rows.column(OP_COLUMN), SOFT_DELETE).to_numpy(zero_copy_only=False)
    if soft.any():
        events = 1 + soft.astype(np.int64)
        rows = rows.take(pa.array(np.repeat(np.arange(len(rows)), events)))
        deleted = np.repeat(deleted, events)
        deleted[np.cumsum(events)[soft] - 1] = True
    marks = rows.column(UNCHANGED_COLUMN)
    unchanged = {}
    if marks.null_count < len(rows):
        for place, name in enumerate(target.schema.names):
            marked = pc.fill_null(pc.match_substring(marks, f".{place}."), False)
            unchanged[name] = marked.to_numpy(zero_copy_only=False)
    committed_at = rows.column(COMMITTED_AT_COLUMN).cast(pa.int64())
    return TableChanges(
        relation,
        rows.select(target.schema.names),
        np.where(deleted, np.uint8(Op.DELETE), np.uint8(Op.UPDATE)),
        rows.column(LSN_COLUMN).to_numpy().astype(np.uint64),
        committed_at.to_numpy(),
        np.zeros(len(rows), np.uint32),
        np.full(len(rows), -1, dtype=np.int64),
        {name: mask for name, mask in unchanged.items() if mask.any()},
    )


def _count(merge: Merge) -> int:
    return len(merge.rows) + sum(map(len, merge.staged))


def _older(rows: pa.Table, lsn: Lsn) -> pa.Table:
    older = rows.filter(pc.less(rows.column(LSN_COLUMN), int(lsn)))
    return rows if len(older) == len(rows) else older


def _ended(rows: pa.Table, lsn: Lsn, time: int) -> pa.Table:
    live = pc.equal(rows.column(OP_COLUMN), UPSERT)
    if not pc.any(live).as_py():
        return rows
    values = {OP_COLUMN: SOFT_DELETE, LSN_COLUMN: int(lsn), COMMITTED_AT_COLUMN: time}
    for name, value in values.items():
        place = rows.schema.get_field_index(name)
        field = rows.schema.field(place)
        changed = pc.if_else(live, pa.scalar(value, field.type), rows.column(place))
        rows = rows.set_column(place, field, changed)
    return rows


def _keyed(
    changes: TableChanges,
    target: TargetTable,
    key: tuple[str, ...],
    first_ref: int,
    *,
    soft_deletes: bool,
) -> KeyedMerge:
    merge = fold(changes, target, key, first_ref=first_ref, soft_deletes=soft_deletes)
    assert isinstance(merge, KeyedMerge)
    return merge
