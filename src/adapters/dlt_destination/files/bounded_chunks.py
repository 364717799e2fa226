"""Combine and cut chunks of rows so that their size is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Limits of a chunk that a scan returns.
SCAN_ROWS = 100_000
SCAN_BYTES = 64 << 20


def gathered(chunks: Iterable[pa.Table], rows: int, size: int) -> Iterator[pa.Table]:
    """Combine or cut chunks to about `rows` rows or `size` bytes. No chunk is empty."""
    held: list[pa.Table] = []
    held_rows = held_bytes = 0
    for chunk in (part for whole in chunks for part in cut(whole, rows, size)):
        held.append(chunk)
        held_rows, held_bytes = held_rows + len(chunk), held_bytes + chunk.nbytes
        if held_rows >= rows or held_bytes >= size:
            yield pa.concat_tables(held)
            held, held_rows, held_bytes = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def cut(chunk: pa.Table, rows: int, size: int) -> Iterator[pa.Table]:
    """Halve a chunk until each part has up to `rows` rows and `size` bytes, or one row. No part is
    empty."""
    if len(chunk) > 1 and (len(chunk) > rows or chunk.nbytes > size):
        half = (len(chunk) + 1) // 2
        yield from cut(chunk.slice(0, half), rows, size)
        yield from cut(chunk.slice(half), rows, size)
    elif len(chunk):
        yield chunk
