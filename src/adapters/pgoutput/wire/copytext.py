r"""Rows of `COPY … TO STDOUT` (format text, default delimiters) to an Arrow table.

A tab or newline in the bytes always delimits, for within values they are escaped; so finding them
finds every value. Source: PostgreSQL manual, "COPY", "File Formats", "Text Format".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adapters.pgoutput.wire.codec import decode_column
from adapters.pgoutput.wire.text import TextColumn, contents, gather, table_of
from cdc_core.changes import Unrepresentable
from cdc_core.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adapters.pgoutput.wire.text import Bytes, Positions
    from adapters.pgoutput.wire.types import TypeMap
    from cdc_core.relation import Column

_PIECE_BYTES = 1 << 20
_WINDOW_BYTES = 1 << 16

_TAB, _NEWLINE, _BACKSLASH = ord("\t"), ord("\n"), ord("\\")

#: What follows a backslash, and the byte that both stand for; 0 for what COPY TO never writes.
_ESCAPED = np.zeros(256, dtype=np.uint8)
for _letter, _byte in zip(b"bfnrtv\\", b"\b\f\n\r\t\v\\", strict=True):
    _ESCAPED[_letter] = _byte


@dataclass(frozen=True, eq=False)
class CopiedRows:
    """`rows` has the columns asked for; values that their type cannot hold are null and listed."""

    rows: pa.Table
    unrepresentable: tuple[Unrepresentable, ...]


def decode_copy_text(
    buffer: bytes | memoryview | Bytes, columns: Sequence[Column], types: TypeMap, table: str = ""
) -> CopiedRows:
    """Decode whole lines of a COPY of exactly these columns; `table` names it in errors.

    Raises `DecodeError` when a line has another number of values or a value does not read.
    """
    data = buffer if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, np.uint8)
    if len(data) and data[-1] != _NEWLINE:
        raise DecodeError(f"a COPY of {table} does not end with a line")
    schema = pa.schema([(column.name, column.arrow_type) for column in columns])
    chunks: list[list[pa.Array]] = [[] for _ in columns]
    unrepresentable: list[Unrepresentable] = []
    count = 0
    for piece in _pieces(data):
        texts, rows = _split(piece, columns, table)
        for column, text, into in zip(columns, texts, chunks, strict=True):
            where = f"{table}.{column.name}" if table else column.name
            decoded = decode_column(text, types[column.type_oid], column.typmod, where)
            into.extend(decoded.values.chunks)
            unrepresentable += [
                Unrepresentable(column.name, count + row, odd)
                for row, odd in decoded.unrepresentable
            ]
        count += rows
    return CopiedRows(table_of(schema, chunks, count), tuple(unrepresentable))


def _pieces(data: Bytes) -> Iterator[Bytes]:
    """Runs of whole lines, small enough for the caches to help; one line at least."""
    start = 0
    while start < len(data):
        stop = start + _PIECE_BYTES
        if stop >= len(data):
            yield data[start:]
            return
        window = _WINDOW_BYTES
        while True:
            newlines = np.flatnonzero(data[stop : stop + window] == _NEWLINE)
            if len(newlines):
                break
            window *= 2  # ends, for the data ends with a newline
        stop += int(newlines[0]) + 1
        yield data[start:stop]
        start = stop


def _split(data: Bytes, columns: Sequence[Column], table: str) -> tuple[list[TextColumn], int]:
    """The text of each column, and the number of lines."""
    # Tab and newline are neighbours: in eight bits one comparison finds both.
    delimiters = np.flatnonzero(data - np.uint8(_TAB) <= _NEWLINE - _TAB)
    width = max(len(columns), 1)
    malformed = DecodeError(f"a line of a COPY of {table} has other than {len(columns)} columns")
    if len(delimiters) % width:
        raise malformed
    lines = (len(delimiters) // width, width)
    ends = delimiters.reshape(lines)
    kinds = data[ends]
    if bool((kinds[:, -1] != _NEWLINE).any()) or bool((kinds[:, :-1] != _TAB).any()):
        raise malformed
    if not columns:
        if len(ends) != len(data):
            raise malformed
        return [], len(ends)
    starts = np.concatenate([delimiters[:0], [0], delimiters[:-1] + 1]).reshape(lines)
    texts = [_column(data, starts[:, i], ends[:, i]) for i in range(width)]
    nulls = sum(len(text) - int(np.count_nonzero(text.valid)) for text in texts)
    if nulls < int(np.count_nonzero(data == _BACKSLASH)):
        texts = [
            _unescaped(text, f"{table}.{column.name}" if table else column.name)
            for text, column in zip(texts, columns, strict=True)
        ]
    return texts, len(ends)


def _column(data: Bytes, starts: Positions, ends: Positions) -> TextColumn:
    r"""The values of a column; `\N` alone is NULL."""
    starts, ends = np.ascontiguousarray(starts), np.ascontiguousarray(ends)
    null = (ends - starts == 2) & (data[starts] == _BACKSLASH)
    if null.any():
        null[null] = data[starts[null] + 1] == ord("N")
        starts = np.where(null, ends, starts)
    return TextColumn(data, starts, ends, ~null)


def _unescaped(text: TextColumn, where: str) -> TextColumn:
    """The values with escapes resolved.

    Of a run of backslashes every other one escapes what follows it. A value that ended within an
    escape would swallow a delimiter, so none does, and runs of different values never count as one.
    """
    bounds, data = contents(gather(text))
    slashes = np.flatnonzero(data == _BACKSLASH)
    if len(slashes) == 0:
        return text
    run_begins = np.ones(len(slashes), dtype=np.bool_)
    run_begins[1:] = slashes[1:] != slashes[:-1] + 1
    places = np.arange(len(slashes))
    in_run = places - np.maximum.accumulate(np.where(run_begins, places, 0))
    escapes = slashes[in_run % 2 == 0]
    following = escapes + 1
    owners = np.searchsorted(bounds, escapes, side="right")
    if bool((following >= bounds[owners]).any()) or not bool(_ESCAPED[data[following]].all()):
        raise DecodeError(f"a value of column {where!r} has a malformed escape")
    plain = data.copy()
    plain[following] = _ESCAPED[data[following]]
    plain = np.delete(plain, escapes)
    moved = (bounds - np.searchsorted(escapes, bounds)).astype(np.int64)
    return TextColumn(plain, moved[:-1], moved[1:], text.valid)
