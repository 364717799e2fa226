"""Columns of destination tables, and which types can be widened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.values.history import CHANGE_TYPE_COLUMN, START_COLUMN
from cdc_core.values.merges import (
    DELETED_AT_COLUMN,
    DELETED_AT_FIELD,
    LSN_COLUMN,
    METADATA_FIELDS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.values.merges import Replacement, TargetTable

_WIDER = {
    pa.int16(): (pa.int32(), pa.int64()),
    pa.int32(): (pa.int64(),),
    pa.float32(): (pa.float64(),),
}

#: Digits before the decimal point that a decimal needs to hold every value of an integer type.
_WHOLE_DIGITS = {pa.int16(): 10, pa.int32(): 10, pa.int64(): 20}


#: The first column that this library adds to a table, a log and a table of versions.
_FIRST_ADDED = (LSN_COLUMN, CHANGE_TYPE_COLUMN, START_COLUMN)


class JsonText(pa.ExtensionType):  # type: ignore[misc]
    """Marks a column that is defined in the destination's own type for JSON. Its values are text
    wherever they are in memory or in a file."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "pgbronze.json")

    def __hash__(self) -> int:
        return hash(self.extension_name)

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: pa.DataType, _serialized: bytes) -> JsonText:
        return cls()


JSON = JsonText()


def row_fields(target: TargetTable) -> list[pa.Field]:
    """Return the columns of rows for the table: its own, then the metadata columns."""
    return [*target.schema, *METADATA_FIELDS]


def all_fields(target: TargetTable, *, soft_deletes: bool = False) -> list[pa.Field]:
    """Return the columns as the table defines them: its own, then the metadata columns."""
    deleted = [DELETED_AT_FIELD] if soft_deletes else []
    return [*_own_fields(target), *METADATA_FIELDS, *deleted]


def _own_fields(target: TargetTable) -> list[pa.Field]:
    return [f.with_type(JSON) if f.name in target.variants else f for f in target.schema]


def replaced_fields(replacement: Replacement) -> list[pa.Field]:
    soft_deletes = replacement.soft_deletes is not None
    return all_fields(replacement.target, soft_deletes=soft_deletes)


def history_fields(target: TargetTable, added: Sequence[pa.Field]) -> list[pa.Field]:
    """Return the columns of a history table: those of the table, which may be NULL, and `added`."""
    return [*(field.with_nullable(True) for field in _own_fields(target)), *added]


def own_columns(held: Sequence[str]) -> list[str]:
    """Return the names of the columns before those that this library adds."""
    places = [held.index(name) for name in _FIRST_ADDED if name in held]
    return list(held[: min(places, default=len(held))])


def with_columns(held: Sequence[str], added: Sequence[pa.Field]) -> list[str]:
    """Return the column names after `added` is inserted at its place."""
    own = own_columns(held)
    names = [field.name for field in added]
    behind = list(held[len(own) :])
    if DELETED_AT_COLUMN in names:
        names.remove(DELETED_AT_COLUMN)
        behind.insert(len(METADATA_FIELDS), DELETED_AT_COLUMN)
    return [*own, *names, *behind]


def fitted(held: pa.Schema, added: Sequence[pa.Field], wider: Sequence[pa.Field]) -> pa.Schema:
    """Return a table's columns after `added` is inserted and `wider` has replaced types."""
    fields = {field.name: field for field in (*held, *added, *wider)}
    return pa.schema([fields[name] for name in with_columns(held.names, added)])


def widens(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Whether every value of `narrow` is the same value in `wide`."""
    if pa.types.is_decimal(narrow) and pa.types.is_decimal(wide):
        return bool(wide.scale == narrow.scale and wide.precision > narrow.precision)
    return wide in _WIDER.get(narrow, ())


def alters(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Whether Databricks can change a column from `narrow` to `wide` and keep the rows. Source:
    Databricks documentation, "Type widening"."""
    if pa.types.is_decimal(wide):
        if pa.types.is_decimal(narrow):
            more, finer = wide.precision - narrow.precision, wide.scale - narrow.scale
            return bool(more >= finer >= 0)
        return narrow in _WHOLE_DIGITS and wide.precision - wide.scale >= _WHOLE_DIGITS[narrow]
    if wide == pa.float64() and narrow in (pa.int16(), pa.int32()):
        return True
    return widens(narrow, wide) or (narrow, wide) == (pa.date32(), pa.timestamp("us"))


def same(left: pa.DataType | None, right: pa.DataType) -> bool:
    """Whether the types are equal; string equals large_string, binary equals large_binary."""
    return left is not None and plain(left) == plain(right)


def plain(arrow_type: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(arrow_type):
        return pa.string()
    if pa.types.is_large_binary(arrow_type):
        return pa.binary()
    if pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type):
        return pa.list_(plain(arrow_type.value_type))
    return arrow_type
