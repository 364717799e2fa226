"""The one codec of values: a column in, an Arrow array out, for the stream and for snapshots.

Text must come from a session with these output settings: TimeZone UTC, DateStyle ISO,
IntervalStyle postgres, bytea_output hex, extra_float_digits 1, client_encoding UTF8.
`type_rules` names the decoder of each type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from adapters.pgoutput.wire import types
from adapters.pgoutput.wire.arrays import decode_arrays
from adapters.pgoutput.wire.binary import numbers_of
from adapters.pgoutput.wire.native_arrays import decode_native_arrays
from adapters.pgoutput.wire.text import MalformedValue, TextColumn
from adapters.pgoutput.wire.type_rules import FixedWidth, arrow_type, binary_format, rule_of
from cdc_core.values.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.pgoutput.wire.text import Decoded, Numbers, UnrepresentableTexts
    from adapters.pgoutput.wire.types import PgType

__all__ = ["DecodedColumn", "TextColumn", "decode_binary", "decode_column"]


_Values = TypeVar("_Values")


class DecodedColumn(NamedTuple):
    """Values of `arrow_type(pg_type, typmod)`, and (row, exact text) of those that do not fit."""

    values: pa.ChunkedArray
    unrepresentable: UnrepresentableTexts


def decode_column(
    text: TextColumn, pg_type: PgType, typmod: int = -1, column: str = ""
) -> DecodedColumn:
    """Decode a column of texts, of any length. Errors name `column`.

    Raises `DecodeError`, without the value, for a text that does not belong to the type.
    """
    chunks: list[pa.Array] = []
    unrepresentable: UnrepresentableTexts = []
    first_row = 0
    for chunk in text.chunks():
        values, texts = _decode_or_raise(chunk, pg_type, typmod, column, _decode_text)
        chunks.append(values)
        unrepresentable += [(first_row + row, one) for row, one in texts]
        first_row += len(chunk)
    return DecodedColumn(pa.chunked_array(chunks, arrow_type(pg_type, typmod)), unrepresentable)


def decode_binary(
    values: TextColumn | Numbers, pg_type: PgType, typmod: int = -1, column: str = ""
) -> DecodedColumn:
    """Decode a column in binary format, or its numbers, of a type with a `binary_format`.

    Errors name `column`. Raises `DecodeError`, without the value, for bytes that do not belong to
    the type.
    """
    array, unrepresentable = _decode_or_raise(values, pg_type, typmod, column, _decode_binary)
    return DecodedColumn(pa.chunked_array([array]), unrepresentable)


def _decode_or_raise(
    values: _Values,
    pg_type: PgType,
    typmod: int,
    column: str,
    decode: Callable[[_Values, PgType, int], Decoded],
) -> Decoded:
    # Raised outside of the handler, because Arrow's own error quotes the value.
    try:
        return decode(values, pg_type, typmod)
    except MalformedValue as malformed:
        reason, cure = malformed.reason, malformed.cure
    except pa.ArrowInvalid:
        reason, cure = "does not read as one", ""
    name = types.format_type(pg_type, typmod)
    raise DecodeError(f"a value of column {column!r} of type {name} {reason}", cure)


def _decode_text(text: TextColumn, pg_type: PgType, typmod: int) -> Decoded:
    resolved, _ = pg_type.resolve(typmod)
    if pg_type.is_list:
        assert resolved.element is not None
        return decode_native_arrays(text, resolved.element, pg_type.typmod)
    if resolved.element is not None:
        return decode_arrays(text, resolved.element), []
    rule = rule_of(pg_type, typmod)
    return rule.text(text, rule.arrow)


def _decode_binary(values: TextColumn | Numbers, pg_type: PgType, typmod: int) -> Decoded:
    decoder, arrow = binary_format(pg_type, typmod), arrow_type(pg_type, typmod)
    if isinstance(decoder, FixedWidth):
        if isinstance(values, TextColumn):
            return decoder.decode(numbers_of(values, decoder.dtype), values.valid, arrow)
        return decoder.decode(values, np.ones(len(values), np.bool_), arrow)
    assert decoder is not None
    assert isinstance(values, TextColumn)
    return decoder(values, arrow)
