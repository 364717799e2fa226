"""Values as PostgreSQL prints them: where each lies in a buffer, before its type is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Positions = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

#: Text of one piece of a column stays below this, so that offsets of 32 bits reach. A value of
#: PostgreSQL is at most 1 GiB, which may come on top.
PIECE_BYTES = 1 << 29
_INT32_MAX = (1 << 31) - 1


class MalformedValue(Exception):
    """A text is not one of its type. Says why and what mends it, never the text."""

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure


@dataclass(frozen=True, eq=False)
class TextColumn:
    """`n` values: bytes `starts[i]:ends[i]` of `buffer` where `valid[i]`, else NULL.

    The positions of a NULL lie within the buffer too, and are equal.
    """

    buffer: Bytes
    starts: Positions
    ends: Positions
    valid: Mask

    def __len__(self) -> int:
        return len(self.starts)

    def slice(self, start: int, stop: int) -> TextColumn:
        rows = slice(start, stop)
        return TextColumn(self.buffer, self.starts[rows], self.ends[rows], self.valid[rows])

    def take(self, rows: Positions) -> TextColumn:
        return TextColumn(self.buffer, self.starts[rows], self.ends[rows], self.valid[rows])

    def pieces(self) -> Iterator[TextColumn]:
        """The column in order, cut so that the text of each piece is less than 2 GiB."""
        total = np.cumsum(self.ends - self.starts)
        if len(self) == 0 or int(total[-1]) <= PIECE_BYTES:
            yield self
            return
        start, before = 0, 0
        while start < len(self):
            stop = max(int(np.searchsorted(total, before + PIECE_BYTES, side="right")), start + 1)
            yield self.slice(start, stop)
            start, before = stop, int(total[stop - 1])


def gather(text: TextColumn) -> pa.Array:
    """The values side by side in one Arrow binary array; less than 2 GiB of them.

    The array over the original buffer has every value at an even index, and what lies between two
    values at the odd ones; taking the even ones is the only copy. Where nothing lies between,
    nothing is copied.
    """
    count = len(text)
    if not text.valid.any():
        return pa.nulls(count, pa.binary())
    if bool((text.starts[1:] == text.ends[:-1]).all()):
        return _adjacent(text)
    base = int(text.starts.min())
    stop = int(text.ends.max())
    wide = stop - base > _INT32_MAX
    offsets = np.empty(2 * count, dtype=np.int64 if wide else np.int32)
    np.subtract(text.starts, base, out=offsets[0::2], casting="unsafe")
    np.subtract(text.ends, base, out=offsets[1::2], casting="unsafe")
    scattered = pa.Array.from_buffers(
        pa.large_binary() if wide else pa.binary(),
        2 * count - 1,
        [None, pa.py_buffer(offsets), pa.py_buffer(text.buffer[base:stop])],
    )
    values = scattered.take(pa.array(np.arange(0, 2 * count, 2, dtype=np.int64)))
    if wide:
        values = values.cast(pa.binary())
    return with_validity(values, text.valid)


def _adjacent(text: TextColumn) -> pa.Array:
    base, stop = int(text.starts[0]), int(text.ends[-1])
    offsets = np.empty(len(text) + 1, dtype=np.int32)
    np.subtract(text.starts, base, out=offsets[:-1], casting="unsafe")
    offsets[-1] = stop - base
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text.buffer[base:stop])]
    return with_validity(pa.Array.from_buffers(pa.binary(), len(text), buffers), text.valid)


def with_validity(values: pa.Array, valid: Mask) -> pa.Array:
    """The same binary or string array with NULL where not `valid`."""
    if valid.all():
        return values
    bits = pa.py_buffer(np.packbits(valid, bitorder="little"))
    _, offsets, data = values.buffers()
    return pa.Array.from_buffers(values.type, len(values), [bits, offsets, data])


def contents(values: pa.Array) -> tuple[npt.NDArray[np.int32], Bytes]:
    """Offsets (n + 1) and bytes of a binary or string array that `gather` made."""
    _, offsets, data = values.buffers()
    if offsets is None or data is None or len(values) == 0:
        return np.zeros(len(values) + 1, dtype=np.int32), np.empty(0, dtype=np.uint8)
    bounds = np.frombuffer(offsets, dtype=np.int32, count=len(values) + 1)
    return bounds, np.frombuffer(data, dtype=np.uint8, count=int(bounds[-1]))


def as_ascii(values: pa.Array) -> pa.Array:
    """A binary array as strings; `MalformedValue` if a byte is not ASCII."""
    _, data = contents(values)
    if len(data) and int(data.max()) > 0x7F:
        raise MalformedValue("is not plain ASCII")
    return _relabelled(values)


def as_utf8(values: pa.Array) -> pa.Array:
    """A binary array as strings; `MalformedValue` if a value is not UTF-8."""
    _, data = contents(values)
    if len(data) == 0 or int(data.max()) <= 0x7F:
        return _relabelled(values)
    valid = True
    try:
        strings = values.cast(pa.string())
    except pa.ArrowInvalid:
        valid = False
    if not valid:
        raise MalformedValue(
            "is not UTF-8",
            "a database of encoding SQL_ASCII takes any bytes: repair it or exclude the table",
        )
    return strings


def _relabelled(values: pa.Array) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(values), values.buffers())


def table_of(schema: pa.Schema, chunks: Sequence[Sequence[pa.Array]], count: int) -> pa.Table:
    """A table of `count` rows from the pieces of each column; it may have no columns at all."""
    if len(schema) == 0:
        return pa.table({"": pa.nulls(count)}).select([])
    columns = [
        pa.chunked_array(pieces, field.type) for pieces, field in zip(chunks, schema, strict=True)
    ]
    return pa.table(columns, schema=schema)
