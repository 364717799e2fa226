"""A column of values that still lie in a buffer: positions, without a type.

`type_rules` names the decoder that turns them into Arrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.generic]
#: (row, PostgreSQL's text) of each value that does not fit the array's type; NULL in the array.
UnrepresentableTexts = list[tuple[int, str]]
Decoded = tuple[pa.Array, UnrepresentableTexts]

#: A chunk of a column has fewer bytes, so that 32-bit offsets are enough. One value more, of at
#: most 1 GiB in PostgreSQL, still fits.
CHUNK_BYTES = 1 << 29
_INT32_MAX = (1 << 31) - 1


class MalformedValue(Exception):
    """A value does not belong to its type. Gives the reason and the cure, never the value."""

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure


@dataclass(frozen=True, eq=False)
class TextColumn:
    """`n` values: bytes `starts[i]:ends[i]` of `buffer` where `valid[i]`, else NULL.

    Both positions of a NULL are the same, and within the buffer.
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

    def chunks(self) -> Iterator[TextColumn]:
        """The column in order, in chunks of less than 2 GiB."""
        total = np.cumsum(self.ends - self.starts)
        if len(self) == 0 or int(total[-1]) <= CHUNK_BYTES:
            yield self
            return
        start, before = 0, 0
        while start < len(self):
            stop = max(int(np.searchsorted(total, before + CHUNK_BYTES, side="right")), start + 1)
            yield self.slice(start, stop)
            start, before = stop, int(total[stop - 1])


def column_of_texts(values: Sequence[str | None]) -> TextColumn:
    """A column of these texts; None is NULL."""
    texts = [b"" if value is None else value.encode() for value in values]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    starts = np.concatenate([[0], ends]).astype(np.int64)[: len(texts)]
    # Decoders read whole words, which must end within the buffer.
    buffer = np.frombuffer(b"".join(texts) + bytes(8), dtype=np.uint8)
    return TextColumn(buffer, starts, ends, np.array([v is not None for v in values], np.bool_))


def gather(text: TextColumn) -> pa.Array:
    """The values in one Arrow binary array, of less than 2 GiB.

    An array over the original buffer has the values at even indexes, and the bytes between two
    values at odd ones. Taking the even ones is the only copy. Adjacent values are not copied.
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
    """The same binary or string array, with NULL where not `valid`."""
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


def table_of(schema: pa.Schema, columns: Sequence[Sequence[pa.Array]], count: int) -> pa.Table:
    """A table of `count` rows from the chunks of each column. It may have no columns."""
    if len(schema) == 0:
        return pa.table({"": pa.nulls(count)}).select([])
    arrays = [
        pa.chunked_array(chunks, field.type) for chunks, field in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)
