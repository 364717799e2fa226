"""Rows gathered to pieces of bounded size, whatever size a store reads or a source sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Of what is scanned.
SCAN_ROWS = 100_000
SCAN_BYTES = 64 << 20


def gathered(pieces: Iterable[pa.Table], rows: int, size: int) -> Iterator[pa.Table]:
    """Pieces put together until they have so many rows or bytes, or cut to that; none is empty."""
    held: list[pa.Table] = []
    held_rows = held_bytes = 0
    for piece in (part for whole in pieces for part in _cut(whole, rows, size)):
        held.append(piece)
        held_rows, held_bytes = held_rows + len(piece), held_bytes + piece.nbytes
        if held_rows >= rows or held_bytes >= size:
            yield pa.concat_tables(held)
            held, held_rows, held_bytes = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def rows_within(piece: pa.Table, rows: int, size: int) -> int:
    """How many of the piece's rows are at most so many, and about so many bytes; at least one."""
    by_size: int = size * len(piece) // max(1, piece.nbytes)
    return max(1, min(rows, by_size))


def _cut(piece: pa.Table, rows: int, size: int) -> Iterator[pa.Table]:
    step = rows_within(piece, rows, size)
    for start in range(0, len(piece), step):
        yield piece.slice(start, step)
