"""History over lists of plain Python rows: the reference of what its values mean."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Any

from adapters.fakes.rows import Row, content_of, key_of, marked
from cdc_core.values.history import (
    BASE,
    BASE_COLUMN,
    CHANGE_TYPE_COLUMN,
    DELETE_IMAGE,
    END_COLUMN,
    END_LSN_COLUMN,
    INSERT,
    LOG_FIELDS,
    POSTIMAGE,
    PREIMAGE,
    SORT_COLUMN,
    START_COLUMN,
    START_LSN_COLUMN,
    TRUNCATE_NUMBERS,
)
from cdc_core.values.merges import COMMITTED_AT_COLUMN, DELETE, LSN_COLUMN, UPSERT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cdc_core.values.history import (
        HistoryDifference,
        LogAppend,
        LogTruncate,
        Moment,
        VersionMerge,
    )

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def time_of(moment: Moment) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=moment.committed_at)


def live_images(
    log: Iterable[Row], columns: Sequence[str], key: Sequence[str], below: int | None = None
) -> list[Row]:
    """Return the images that are live, in the order of `_sort_by`."""
    ordered = sorted(log, key=lambda image: int(image[SORT_COLUMN]))
    images = [image for image in ordered if below is None or image[SORT_COLUMN] < below]
    if key:
        last = {key_of(image, key): image for image in images}
        found = [image for image in last.values() if _adds(image)]
        return sorted(found, key=lambda image: int(image[SORT_COLUMN]))
    copies: dict[tuple[Any, ...], list[Row]] = {}
    for image in images:
        held = copies.setdefault(content_of(image, columns), [])
        if _adds(image):
            held.append(image)
        elif held:
            held.pop()
    return [image for held in copies.values() for image in held]


def append_to_log(log: list[Row], table: Sequence[Row], append: LogAppend) -> None:
    columns = append.table.schema.names
    staged = [
        row
        for rows in (*(part.read() for part in append.staged), append.rows)
        for row in rows.to_pylist()
    ]
    written = {image[SORT_COLUMN]: image for image in log}
    own = {row[SORT_COLUMN]: row for row in staged}
    last = {
        key_of(image, append.key): image
        for image in sorted(log, key=lambda image: int(image[SORT_COLUMN]))
        if append.key and append.batch_first <= image[SORT_COLUMN] < append.first
    }
    current = {key_of(row, append.key): row for row in table} if append.key else {}
    for row in staged:
        if row[SORT_COLUMN] in written:
            continue
        values = {name: row[name] for name in [*columns, *(f.name for f in LOG_FIELDS)]}
        if row["_cdc_unchanged"] is not None:
            number = row[BASE_COLUMN]
            key = key_of(own[number], append.key)
            base = written.get(number) or last.get(key) or current.get(key) or {}
            values.update({name: base.get(name) for name in marked(row, columns)})
        log.append(values)


def truncate_log(log: list[Row], truncate: LogTruncate) -> None:
    columns, first = truncate.table.schema.names, truncate.first
    if any(first <= image[SORT_COLUMN] < first + TRUNCATE_NUMBERS for image in log):
        return
    for image in live_images(log, columns, truncate.key, below=first):
        log.append(_image(image, columns, DELETE_IMAGE, truncate.at, first, truncate.xid))
        first += 1


def log_difference(
    log: list[Row],
    new: Sequence[Row],
    columns: Sequence[str],
    key: Sequence[str],
    difference: HistoryDifference,
    scope: set[tuple[Any, ...]] | None = None,
) -> None:
    """`scope`: the keys that are compared; None for all."""
    live = live_images(log, columns, key)
    changes: list[tuple[Row, str]] = []
    if key:
        before = {key_of(image, key): image for image in live}
        after = {key_of(row, key): row for row in new}
        for found in dict.fromkeys([*before, *after]):
            if scope is not None and found not in scope:
                continue
            old, current = before.get(found), after.get(found)
            if current is None:
                assert old is not None
                changes.append((old, DELETE_IMAGE))
            elif old is None:
                changes.append((current, INSERT))
            elif content_of(old, columns) != content_of(current, columns):
                changes += [(old, PREIMAGE), (current, POSTIMAGE)]
    else:
        left = Counter(content_of(image, columns) for image in live)
        for row in new:
            if left[content_of(row, columns)] > 0:
                left[content_of(row, columns)] -= 1
            else:
                changes.append((row, INSERT))
        for image in live:
            if left[content_of(image, columns)] > 0:
                left[content_of(image, columns)] -= 1
                changes.append((image, DELETE_IMAGE))
    for number, (row, kind) in enumerate(changes, difference.first):
        log.append(_image(row, columns, kind, difference.at, number, None))


def merge_versions(versions: list[Row], merge: VersionMerge) -> None:
    columns = merge.table.schema.names
    truncated = merge.truncated
    if truncated is not None:
        for version in versions:
            if version[START_LSN_COLUMN] < truncated.lsn:
                _end(version, truncated.lsn, time_of(truncated))
    rows = [
        row
        for part in (*(part.read() for part in merge.staged), merge.rows)
        for row in part.to_pylist()
    ]
    bases = {row["_cdc_ref"]: row for row in rows if row["_cdc_op"] == BASE}
    before = [dict(version) for version in versions]
    held = {(key_of(v, merge.key), v[START_LSN_COLUMN]): v for v in versions}
    ordered = sorted(
        (row for row in rows if row["_cdc_op"] != BASE), key=lambda row: int(row[LSN_COLUMN])
    )
    last: dict[tuple[Any, ...], Row | None] = {}
    for row in ordered:
        key, lsn = key_of(row, merge.key), row[LSN_COLUMN]
        previous = last[key] if key in last else _before(versions, merge.key, key, lsn)
        if previous is not None:
            _end(previous, lsn, row[COMMITTED_AT_COLUMN])
        if row["_cdc_op"] == DELETE:
            last[key] = None
            continue
        own = held.get((key, lsn))
        if own is None:
            assert row["_cdc_op"] == UPSERT
            values = {name: row[name] for name in columns}
            if row["_cdc_unchanged"] is not None:
                base = bases[row["_cdc_ref"]]
                key_of_base = key_of(base, merge.key)
                source = _before(before, merge.key, key_of_base, base[LSN_COLUMN]) or {}
                values.update({name: source.get(name) for name in marked(row, columns)})
            own = _version(values, columns, lsn, row[COMMITTED_AT_COLUMN])
            versions.append(own)
            held[key, lsn] = own
        last[key] = own


def version_difference(
    versions: list[Row],
    new: Sequence[Row],
    columns: Sequence[str],
    key: Sequence[str],
    difference: HistoryDifference,
    scope: set[tuple[Any, ...]] | None = None,
) -> None:
    wanted = {content_of(row, columns): row for row in new}
    at = difference.at
    for version in versions:
        if version[END_LSN_COLUMN] is not None:
            continue
        if scope is not None and key_of(version, key) not in scope:
            continue
        if content_of(version, columns) in wanted:
            del wanted[content_of(version, columns)]
        else:
            _end(version, at.lsn, time_of(at))
    versions += [_version(row, columns, int(at.lsn), time_of(at)) for row in wanted.values()]


def _adds(image: Row) -> bool:
    return image[CHANGE_TYPE_COLUMN] in (INSERT, POSTIMAGE)


def _image(
    row: Row, columns: Sequence[str], kind: str, at: Moment, number: int, xid: int | None
) -> Row:
    own = (kind, int(at.lsn), xid, time_of(at), number)
    named = zip((f.name for f in LOG_FIELDS), own, strict=True)
    return {**{name: row.get(name) for name in columns}, **dict(named)}


def _version(row: Row, columns: Sequence[str], lsn: int, start: dt.datetime) -> Row:
    own = {START_COLUMN: start, END_COLUMN: None, START_LSN_COLUMN: lsn, END_LSN_COLUMN: None}
    return {**{name: row[name] for name in columns}, **own}


def _before(
    versions: Iterable[Row], names: Sequence[str], key: tuple[Any, ...], lsn: int
) -> Row | None:
    """Return the version of a key with the greatest LSN below `lsn`."""
    own = [v for v in versions if v[START_LSN_COLUMN] < lsn and key_of(v, names) == key]
    return max(own, key=lambda version: int(version[START_LSN_COLUMN]), default=None)


def _end(version: Row, lsn: int, at: dt.datetime | None) -> None:
    if version[END_LSN_COLUMN] is None:
        version[END_LSN_COLUMN], version[END_COLUMN] = int(lsn), at
