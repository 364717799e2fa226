"""Masks rows in Arrow tables as `MaskedMessages` masks the same values in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from adapters.pgoutput.wire.codec import decode_column
from adapters.pgoutput.wire.text import column_of_texts
from cdc_core.values.postgres_text import postgres_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapters.pgoutput.recording.masked_values import MaskedValues
    from adapters.pgoutput.wire.types import TypeMap


class MaskedRows:
    """`columns` gives the type's OID and modifier of each column to mask; others stay."""

    def __init__(
        self, values: MaskedValues, types: TypeMap, columns: Mapping[str, tuple[int, int]]
    ) -> None:
        self._values = values
        self._types = types
        self._columns = columns

    def masked(self, rows: pa.Table) -> pa.Table:
        for place, name in enumerate(rows.column_names):
            if name in self._columns:
                field = rows.schema.field(place)
                rows = rows.set_column(place, field, self._column(rows.column(place), name))
        return rows

    def _column(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        oid, typmod = self._columns[name]
        pg_type = self._types[oid]
        element = pg_type.resolve(typmod)[0].element
        texts = [postgres_text(value) for value in column]
        if element is not None:
            # The destination holds JSON, or PostgreSQL's text of arrays that have no JSON.
            masked = [None if t is None else self._values.array_as_json(t, element) for t in texts]
            return pa.chunked_array([pa.array(masked, column.type)])
        masked = [None if t is None else self._values.masked(t, pg_type, typmod) for t in texts]
        return decode_column(column_of_texts(masked), pg_type, typmod, name).values.cast(
            column.type
        )
