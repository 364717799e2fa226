"""Rows of a query to an Arrow table of the relation's types, by the one codec.

`COPY` and `record_send` pack the columns of a row into one value. A column is in binary format if
its type has a `binary_format`, else in PostgreSQL's text, as in the stream. Manual: "COPY", "File
Formats"; source: `src/backend/utils/adt/rowtypes.c`, `record_send`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adapters.pgoutput.wire.codec import decode_binary, decode_column
from adapters.pgoutput.wire.messages import sliding
from adapters.pgoutput.wire.text import TextColumn, table_of
from adapters.pgoutput.wire.type_rules import FixedWidth, binary_format, type_read
from cdc_core.values.changes import Unrepresentable
from cdc_core.values.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.pgoutput.wire.text import Bytes, Numbers, Positions
    from adapters.pgoutput.wire.types import TypeMap
    from cdc_core.values.relation import Column


@dataclass(frozen=True, eq=False)
class ReadRows:
    """`rows` has the requested columns. Values that do not fit their type are NULL and listed."""

    rows: pa.Table
    unrepresentable: tuple[Unrepresentable, ...] = ()


#: Columns with fixed-width values are read together, up to this many bytes of a row.
_SPAN_BYTES = 256
#: A buffer continues for this many bytes after its last row.
PADDING = _SPAN_BYTES


@dataclass(frozen=True)
class Packing:
    """The layout of a row: the count of columns, then a head and the value for each column.

    A head ends with the value's length in four bytes, -1 for NULL. The fields are the sizes of the
    count and of a head in bytes.
    """

    count: int
    head: int


COPY = Packing(2, 4)
#: The head begins with the type's OID.
RECORD = Packing(4, 8)


@dataclass(frozen=True, eq=False)
class PackedRows:
    """n rows at `starts` to `ends` of the buffer, which has `PADDING` more bytes at its end."""

    buffer: Bytes
    starts: Positions
    ends: Positions
    packing: Packing

    @classmethod
    def of_records(cls, values: pa.Array) -> PackedRows:
        """From values of `record_send` in an Arrow binary array without NULL."""
        _, offsets, data = values.buffers()
        bounds = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset)
        first, last = int(bounds[0]), int(bounds[-1])
        buffer = np.empty(last - first + PADDING, np.uint8)
        if data is not None:
            buffer[: last - first] = np.frombuffer(data, np.uint8)[first:last]
        buffer[last - first :] = 0
        places = bounds.astype(np.int64) - first
        return cls(buffer, places[:-1], places[1:], RECORD)

    def __len__(self) -> int:
        return len(self.starts)

    def after(self, count: int) -> PackedRows:
        """The rows after the first `count`."""
        return PackedRows(self.buffer, self.starts[count:], self.ends[count:], self.packing)

    def columns(self, dtypes: Sequence[str | None], table: str) -> list[TextColumn | Numbers]:
        """The values of each column: numbers if all have the width of the dtype and none is NULL,
        else their positions.

        Raises `DecodeError` for rows of another shape.
        """
        count, head = self.packing.count, self.packing.head
        if len(self) and int((self.ends - self.starts).min()) < count:
            raise DecodeError(f"a row of {table} is cut off")
        if bool((sliding(self.buffer, f">i{count}")[self.starts] != len(dtypes)).any()):
            raise DecodeError(f"a query of {table} gave other than {len(dtypes)} columns")
        here = self.starts + count
        columns: list[TextColumn | Numbers] = []
        while len(columns) < len(dtypes):
            # Visit each row once for all columns of known width and the head of the next.
            widths = _leading_widths(dtypes[len(columns) :], head)
            span = _Span(self.buffer, here, sum(widths) + head * (len(widths) + 1))
            at = head
            for width in (*widths, 0):
                if len(columns) == len(dtypes):
                    here = here + (at - head)
                    break
                lengths = span.numbers(at - 4, ">i4").astype(np.int64)
                if width and bool((lengths == width).all()):
                    columns.append(span.numbers(at, dtypes[len(columns)] or ""))
                    at += width + head
                    continue
                valid = lengths >= 0
                first = here + at
                here = first + (lengths if valid.all() else np.maximum(lengths, 0))
                columns.append(TextColumn(self.buffer, first, here, valid))
                break
            if bool((here > self.ends).any()):
                raise DecodeError(f"a row of {table} is cut off")
        if bool((here != self.ends).any()):
            raise DecodeError(f"a row of {table} is not {len(dtypes)} columns long")
        return columns


def _leading_widths(dtypes: Sequence[str | None], head: int) -> list[int]:
    """Widths of the columns before the first without one, as far as a span reaches."""
    widths: list[int] = []
    for dtype in dtypes:
        width = np.dtype(dtype).itemsize if dtype else 0
        if not width or sum(widths) + width + head * (len(widths) + 2) > _SPAN_BYTES:
            break
        widths.append(width)
    return widths


class _Span:
    """`size` bytes of each row, from that row's position in `at`, side by side."""

    def __init__(self, buffer: Bytes, at: Positions, size: int) -> None:
        self._count, self._size = len(at), size
        self._bytes = sliding(buffer, f"V{size}")[at]

    def numbers(self, offset: int, dtype: str) -> Numbers:
        """Numbers at an offset, in the machine's byte order."""
        if not self._count:
            return np.empty(0, np.dtype(dtype).newbyteorder("="))
        found: Numbers = np.ndarray((self._count,), dtype, self._bytes, offset, (self._size,))
        return found.astype(np.dtype(dtype).newbyteorder("="))


def decode_rows(
    rows: PackedRows, columns: Sequence[Column], types: TypeMap, table: str = ""
) -> ReadRows:
    """Decode rows that have a value for each of `columns`, in the format of `type_read`.

    Raises `DecodeError` for a value that does not belong to its type. Errors name `table`.
    """
    decoded_columns: list[list[pa.Array]] = []
    unrepresentable: list[Unrepresentable] = []
    read = [type_read(types[column.type_oid], column) for column in columns]
    formats = [binary_format(one, column.typmod) for one, column in zip(read, columns, strict=True)]
    dtypes = [one.dtype if isinstance(one, FixedWidth) else None for one in formats]
    for column, pg_type, format_, values in zip(
        columns, read, formats, rows.columns(dtypes, table), strict=True
    ):
        where = f"{table}.{column.name}" if table else column.name
        if isinstance(values, TextColumn) and format_ is None:
            decoded = decode_column(values, pg_type, column.typmod, where)
        else:
            decoded = decode_binary(values, pg_type, column.typmod, where)
        decoded_columns.append(decoded.values.chunks)
        unrepresentable += [
            Unrepresentable(column.name, row, text) for row, text in decoded.unrepresentable
        ]
    schema = pa.schema([(column.name, column.arrow_type) for column in columns])
    return ReadRows(table_of(schema, decoded_columns, len(rows)), tuple(unrepresentable))
