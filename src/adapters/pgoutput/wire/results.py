"""Rows of a query, as Arrow has them, to an Arrow table of the relation's types, by the one codec.

Most columns come as PostgreSQL's text, and are read as those of the stream are. Where Arrow's own
reading of a binary value can be no other, the column comes as it is: see `comes_as_it_is`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adapters.pgoutput.wire.codec import decode_column
from adapters.pgoutput.wire.text import TextColumn, table_of
from cdc_core.changes import Unrepresentable
from cdc_core.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.pgoutput.wire.types import TypeMap
    from cdc_core.relation import Column

#: boolean, bytea; bigint, smallint, integer; real, double precision.
_SAME_IN_ARROW = frozenset({16, 17, 20, 21, 23, 700, 701})
#: text, character, character varying: their binary form is their text.
_SAME_AS_TEXT = frozenset({25, 1042, 1043})


@dataclass(frozen=True, eq=False)
class ReadRows:
    """`rows` has the columns asked for; values that their type cannot hold are null and listed."""

    rows: pa.Table
    unrepresentable: tuple[Unrepresentable, ...] = ()


def comes_as_it_is(type_oid: int) -> bool:
    """Whether a query names the column itself; else it must ask for the output function's text."""
    return type_oid in _SAME_IN_ARROW or type_oid in _SAME_AS_TEXT


def decode_result(
    batch: pa.RecordBatch, columns: Sequence[Column], types: TypeMap, table: str = ""
) -> ReadRows:
    """Decode a batch that has one column for each of `columns`; or one more column than none.

    Raises `DecodeError` when a value does not read; `table` names it in errors.
    """
    chunks: list[list[pa.Array]] = []
    unrepresentable: list[Unrepresentable] = []
    for column, values in zip(columns, batch.columns, strict=False):
        if column.type_oid in _SAME_IN_ARROW:
            chunks.append([values.cast(column.arrow_type)])
            continue
        where = f"{table}.{column.name}" if table else column.name
        decoded = decode_column(_text_of(values), types[column.type_oid], column.typmod, where)
        chunks.append(decoded.values.chunks)
        unrepresentable += [
            Unrepresentable(column.name, row, odd) for row, odd in decoded.unrepresentable
        ]
    if len(chunks) != len(columns):
        raise DecodeError(f"a query of {table} gave other than {len(columns)} columns")
    schema = pa.schema([(column.name, column.arrow_type) for column in columns])
    return ReadRows(table_of(schema, chunks, len(batch)), tuple(unrepresentable))


def _text_of(values: pa.Array) -> TextColumn:
    """The values where they lie in an Arrow string or binary array."""
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset).astype(np.int64)
    buffer = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    starts, ends = bounds[:-1], bounds[1:]
    if values.null_count == 0:
        return TextColumn(buffer, starts, ends, np.ones(len(values), np.bool_))
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    return TextColumn(buffer, starts, np.where(valid, ends, starts), valid)
