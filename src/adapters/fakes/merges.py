"""What a merge means, in plain Python: the reference for the SQL of the real destinations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.fakes.history import time_of
from adapters.fakes.rows import Row, content_of, key_of, marked
from cdc_core.values.history import Moment
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    DELETE,
    DELETED_AT_COLUMN,
    HOP,
    LSN_COLUMN,
    METADATA_FIELDS,
    SOFT_DELETE,
    UPSERT,
    KeyedMerge,
    MultisetMerge,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from cdc_core.values.merges import Replacement


def _lsn(row: Row) -> int:
    """A row that somebody else wrote may have none; then it is older than any change."""
    return row[LSN_COLUMN] or 0


def all_rows(merge: KeyedMerge | MultisetMerge) -> list[Row]:
    tables = [merge.rows, *(piece.read() for piece in merge.staged)]
    return [row for table in tables for row in table.to_pylist()]


def merge_keyed(rows: list[Row], merge: KeyedMerge) -> list[Row]:
    """The table after a `KeyedMerge`."""
    names = merge.target.schema.names
    held = {key_of(row, merge.key): row for row in rows}
    result = dict(held)
    if merge.truncated_at is not None:
        older = [k for k, r in held.items() if _lsn(r) < merge.truncated_at]
        for key in older:
            if not merge.soft_deletes:
                del result[key]
            elif held[key].get(DELETED_AT_COLUMN) is None:
                assert merge.truncated_time is not None
                at = Moment(merge.truncated_at, merge.truncated_time)
                result[key] = _deleted(held[key], at.lsn, time_of(at))
    staged = all_rows(merge)
    hops: dict[int, list[Row]] = {}
    for row in staged:
        if row["_cdc_op"] == HOP:
            hops.setdefault(row["_cdc_ref"], []).append(row)
    for row in staged:
        key = key_of(row, merge.key)
        current = held.get(key)
        if row["_cdc_op"] == HOP or (current and _lsn(current) >= row[LSN_COLUMN]):
            continue
        if row["_cdc_op"] == DELETE:
            if not merge.soft_deletes:
                result.pop(key, None)
            elif key in result:
                result[key] = _deleted(result[key], row[LSN_COLUMN], row[COMMITTED_AT_COLUMN])
            continue
        fresh = {name: row[name] for name in [*names, *(f.name for f in METADATA_FIELDS)]}
        if row["_cdc_op"] == SOFT_DELETE:
            fresh[DELETED_AT_COLUMN] = row[COMMITTED_AT_COLUMN]
        source = current
        for hop in sorted(hops.get(row["_cdc_ref"], ()), key=lambda h: -int(h[LSN_COLUMN])):
            earlier = held.get(key_of(hop, merge.key))
            if earlier is not None and _lsn(earlier) >= hop[LSN_COLUMN]:
                source = earlier
                break
        if (unsent := marked(row, names)) and source is None:
            continue
        result[key] = fresh | {name: source[name] for name in unsent if source is not None}
    return list(result.values())


def marked_as_deleted(
    held: Sequence[Row], new: Sequence[Row], replacement: Replacement
) -> list[Row]:
    """The rows of a table that a `Replacement` with soft deletes keeps."""
    key, at, emptied = replacement.key, replacement.soft_deletes, replacement.emptied
    assert at is not None
    present = {key_of(row, key) for row in new}
    keyed = [row for row in held if all(row.get(name) is not None for name in key)]
    kept = [row for row in keyed if key_of(row, key) not in present]
    gone = [{**row, **dict.fromkeys(emptied)} for row in kept]
    return [
        _deleted(row, at.lsn, time_of(at)) if row.get(DELETED_AT_COLUMN) is None else row
        for row in gone
    ]


def _deleted(row: Row, lsn: int, at: dt.datetime | None) -> Row:
    stamps = {LSN_COLUMN: int(lsn), COMMITTED_AT_COLUMN: at, DELETED_AT_COLUMN: at}
    return {**row, **stamps}


def merge_multiset(rows: list[Row], merge: MultisetMerge) -> list[Row]:
    """The table after a `MultisetMerge`."""
    names = merge.target.schema.names
    metadata = [f.name for f in METADATA_FIELDS]
    if merge.truncated_at is not None:
        rows = [row for row in rows if _lsn(row) >= merge.truncated_at]
    events: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(all_rows(merge), key=lambda r: int(r["_cdc_ref"])):
        events.setdefault(content_of(row, merge.content), []).append(row)
    copies: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        copies.setdefault(content_of(row, merge.content), []).append(row)
    for content, walk in events.items():
        present = copies.get(content, [])
        applied = max(map(_lsn, present), default=0)
        fresh = [event for event in walk if event[LSN_COLUMN] > applied]
        if not fresh:
            continue
        count = len(present)
        for event in fresh:
            count = max(0, count + (1 if event["_cdc_op"] == UPSERT else -1))
        stamp = {name: fresh[-1][name] for name in metadata}
        # Copies that the target has keep what it alone has: columns dropped at the source.
        added = [event for event in fresh if event["_cdc_op"] == UPSERT]
        pool = [*present, *added][:count]
        copies[content] = [{**{name: row.get(name) for name in names}, **stamp} for row in pool]
    return [row for group in copies.values() for row in group]
