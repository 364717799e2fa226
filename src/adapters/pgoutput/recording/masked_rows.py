"""Masks rows in Arrow tables as `MaskedMessages` masks the same values in messages."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from adapters.pgoutput.wire.codec import decode_column
from adapters.pgoutput.wire.text import column_of_texts
from cdc_core.values.postgres_text import postgres_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from adapters.pgoutput.recording.masked_values import MaskedValues
    from adapters.pgoutput.wire.types import TypeMap


class StoredAs(NamedTuple):
    """A column's type in PostgreSQL. `as_text`: a rule stores a text, whatever the type."""

    type_oid: int
    typmod: int
    as_text: bool = False


class MaskedRows:
    """Masks the columns that are in `columns`; others stay."""

    def __init__(
        self, values: MaskedValues, types: TypeMap, columns: Mapping[str, StoredAs]
    ) -> None:
        self._values = values
        self._types = types
        self._columns = columns

    def masked(self, rows: pa.Table) -> pa.Table:
        for place, name in enumerate(rows.column_names):
            if (stored := self._columns.get(name)) is not None:
                field, column = rows.schema.field(place), rows.column(place).combine_chunks()
                rows = rows.set_column(place, field, self._column(column, stored))
        return rows

    def _column(self, column: pa.Array, stored: StoredAs) -> pa.Array:
        pg_type = self._types[stored.type_oid]
        element = pg_type.resolve(stored.typmod)[0].element
        if pa.types.is_list(column.type) and element is not None:
            values = self._column(column.values, StoredAs(element.oid, -1))
            return pa.ListArray.from_arrays(column.offsets, values, mask=column.is_null())
        texts = [postgres_text(value) for value in column]
        if stored.as_text:
            return _texts(_masked(self._values.text, texts), column.type)
        if element is not None:
            # The destination holds JSON.
            mask = partial(self._values.array_as_json, element=element)
            return _texts(_masked(mask, texts), column.type)
        masked = _masked(lambda t: self._values.masked(t, pg_type, stored.typmod), texts)
        decoded = decode_column(column_of_texts(masked), pg_type, stored.typmod)
        return decoded.values.cast(column.type).combine_chunks()


def _masked(mask: Callable[[str], str], texts: Sequence[str | None]) -> list[str | None]:
    return [None if text is None else mask(text) for text in texts]


def _texts(texts: Sequence[str | None], arrow_type: pa.DataType) -> pa.Array:
    return pa.array(texts, arrow_type)
