"""The one codec of values: text of a column in, Arrow array out, for the stream and for snapshots.

Expects the session's output settings: TimeZone UTC, DateStyle ISO, IntervalStyle postgres,
bytea_output hex, extra_float_digits 1, client_encoding UTF8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from adapters.pgoutput.wire import scalars, types
from adapters.pgoutput.wire.arrays import decode_arrays
from adapters.pgoutput.wire.text import MalformedValue, TextColumn, as_utf8, gather
from cdc_core.values.errors import DecodeError

if TYPE_CHECKING:
    from adapters.pgoutput.wire.types import PgType

__all__ = ["DecodedColumn", "TextColumn", "decode_column"]


class DecodedColumn(NamedTuple):
    """Values of `arrow_type(pg_type, typmod)`, and (row, exact text) of those it cannot hold."""

    values: pa.ChunkedArray
    unrepresentable: list[tuple[int, str]]


def decode_column(
    text: TextColumn, pg_type: PgType, typmod: int = -1, column: str = ""
) -> DecodedColumn:
    """Decode a column of any length; `column` names it in errors.

    Raises `DecodeError`, without the value, when a text is not one of its type.
    """
    chunks: list[pa.Array] = []
    unrepresentable: list[tuple[int, str]] = []
    first_row = 0
    for piece in text.pieces():
        values, unheld = _decode_or_raise(piece, pg_type, typmod, column)
        chunks.append(values)
        unrepresentable += [(first_row + row, odd) for row, odd in unheld]
        first_row += len(piece)
    return DecodedColumn(
        pa.chunked_array(chunks, types.arrow_type(pg_type, typmod)), unrepresentable
    )


def _decode_or_raise(
    text: TextColumn, pg_type: PgType, typmod: int, column: str
) -> tuple[pa.Array, scalars.Unheld]:
    # The error is raised outside of the handler: Arrow's own quotes the value.
    try:
        return _decode(text, pg_type, typmod)
    except MalformedValue as malformed:
        reason, cure = malformed.reason, malformed.cure
    except pa.ArrowInvalid:
        reason, cure = "does not read as one", ""
    name = types.format_type(pg_type, typmod)
    raise DecodeError(f"a value of column {column!r} of type {name} {reason}", cure)


def _decode(text: TextColumn, pg_type: PgType, typmod: int) -> tuple[pa.Array, scalars.Unheld]:
    pg_type, typmod = pg_type.resolve(typmod)
    target = types.arrow_type(pg_type, typmod)
    if pg_type.element is not None:
        return decode_arrays(text, pg_type.element), []
    if pa.types.is_string(target):
        return as_utf8(gather(text)), []
    if pa.types.is_boolean(target):
        return scalars.decode_booleans(text), []
    if pa.types.is_integer(target):
        return scalars.decode_integers(text, target), []
    if pa.types.is_floating(target):
        return scalars.decode_floats(text, target), []
    if pa.types.is_decimal(target):
        return scalars.decode_decimals(text, target.precision, target.scale)
    if pa.types.is_binary(target):
        return scalars.decode_bytea(text), []
    if pa.types.is_date(target):
        return scalars.decode_dates(text)
    return scalars.decode_timestamps(text, zoned=target.tz is not None)
