"""The table of type rules: which Arrow type a PostgreSQL type becomes, and who decodes it.

To give a type special treatment, add one entry and its decoder. A built-in type is found by its
OID, which never changes. A type of an extension has another OID in each database, so it is found
by its name. A type without an entry is text, as PostgreSQL prints it. Arrays are not in the table:
`arrays` turns their text into JSON, and `json` says how an element is written there.

A domain follows the rule of its base type, but always arrives as text, because its OID is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import pyarrow as pa

from adapters.pgoutput.wire import binary, scalars, types
from adapters.pgoutput.wire.text import Decoded, Mask, Numbers, TextColumn
from cdc_core.values.table_rules import ColumnRule

if TYPE_CHECKING:
    from adapters.pgoutput.wire.types import PgType
    from cdc_core.values.relation import Column

#: Decodes a column to an array of the rule's Arrow type. Raises `MalformedValue`, or Arrow's own
#: error, for bytes that are no value of the type.
Decoder = Callable[[TextColumn, pa.DataType], Decoded]

#: Numerics with more digits may not fit 64 bits while they are decoded.
_BINARY_NUMERIC_DIGITS = 15


class FixedWidth(NamedTuple):
    """A binary format whose values all have the width of `dtype`; `decode` gets them as numbers."""

    dtype: str
    decode: Callable[[Numbers, Mask, pa.DataType], Decoded]


@dataclass(frozen=True)
class TypeRule:
    """How values of one type become Arrow.

    `binary` is None where the binary format can mean more than one thing: such values are
    requested as text. `json` is the form of the value inside a JSON array. `logical` is what the
    text means to a destination that has a type for it.
    """

    arrow: pa.DataType
    text: Decoder
    binary: Decoder | FixedWidth | None = None
    json: Literal["number", "boolean", "string"] = "string"
    logical: Literal["json"] | None = None


def _number(arrow: pa.DataType, text: Decoder, dtype: str) -> TypeRule:
    return TypeRule(arrow, text, FixedWidth(dtype, binary.plain_numbers), json="number")


def _numeric(typmod: int) -> TypeRule:
    shape = types.numeric_shape(typmod)
    if shape is None:
        return TypeRule(pa.string(), scalars.strings, json="number")
    in_binary = binary.decimals if shape[0] <= _BINARY_NUMERIC_DIGITS else None
    return TypeRule(pa.decimal128(*shape), scalars.decimals, in_binary, json="number")


def _timestamp(zone: str | None) -> TypeRule:
    arrow = pa.timestamp("us", tz=zone)
    return TypeRule(arrow, scalars.timestamps, FixedWidth(">i8", binary.timestamps))


_AS_PRINTED = TypeRule(pa.string(), scalars.strings)
#: The binary format is the text itself.
_TEXT = TypeRule(pa.string(), scalars.strings, scalars.strings)

#: Built-in types by OID. A rule that depends on the type modifier is a function of it.
_BY_OID: Mapping[int, TypeRule | Callable[[int], TypeRule]] = {
    types.BOOL: TypeRule(
        pa.bool_(), scalars.booleans, FixedWidth("u1", binary.booleans), json="boolean"
    ),
    types.INT2: _number(pa.int16(), scalars.integers, ">i2"),
    types.INT4: _number(pa.int32(), scalars.integers, ">i4"),
    types.INT8: _number(pa.int64(), scalars.integers, ">i8"),
    types.FLOAT4: _number(pa.float32(), scalars.floats, ">f4"),
    types.FLOAT8: _number(pa.float64(), scalars.floats, ">f8"),
    types.NUMERIC: _numeric,
    types.BYTEA: TypeRule(pa.binary(), scalars.bytea, binary.octets),
    types.DATE: TypeRule(pa.date32(), scalars.dates, FixedWidth(">i4", binary.dates)),
    types.TIMESTAMP: _timestamp(None),
    types.TIMESTAMPTZ: _timestamp("UTC"),
    types.TEXT: _TEXT,
    types.BPCHAR: _TEXT,
    types.VARCHAR: _TEXT,
    types.JSON: TypeRule(pa.string(), scalars.strings, scalars.strings, logical="json"),
    types.JSONB: TypeRule(pa.string(), scalars.strings, binary.jsonb, logical="json"),
}

_TEXT_TYPE = types.PgType(types.TEXT, "text")
#: The text that the output function of any type prints.
_PRINTED_TYPE = types.PgType(0, "text", "other")

#: `json` whose values a destination parses.
_JSON_VALUE = types.PgType(0, "json value")

#: `json` or `jsonb` of which a destination keeps the value alone.
_CANONICAL_JSON = types.PgType(0, "canonical json value")

#: Types of extensions by name, without their schema.
_BY_NAME: Mapping[str, TypeRule] = {
    "citext": _AS_PRINTED,
    "hstore": _AS_PRINTED,
    _JSON_VALUE.name: TypeRule(pa.string(), scalars.json_values, logical="json"),
    _CANONICAL_JSON.name: TypeRule(pa.string(), scalars.canonical_json_values, logical="json"),
}


def rule_of(pg_type: PgType, typmod: int = -1) -> TypeRule:
    """The rule for a type and modifier, or for the base type of a domain."""
    pg_type, typmod = pg_type.resolve(typmod)
    found = _BY_OID.get(pg_type.oid)
    if found is None:
        named = pg_type.name.rpartition(".")[2] if pg_type.kind == "base" else ""
        return _BY_NAME.get(named, _AS_PRINTED)
    return found if isinstance(found, TypeRule) else found(typmod)


def element_type(pg_type: PgType, typmod: int = -1) -> pa.DataType | None:
    """The Arrow type of an array's elements; None for other types and arrays of arrays."""
    array, typmod = pg_type.resolve(typmod)
    if array.element is None or array.element.resolve()[0].element is not None:
        return None
    return rule_of(array.element, typmod).arrow


def logical_type(pg_type: PgType) -> Literal["json"] | None:
    """What a type's text means to a destination that has a type for it."""
    array, _ = pg_type.resolve()
    return None if array.element is not None else rule_of(pg_type).logical


def type_read(pg_type: PgType, column: Column) -> PgType:
    """The type as which a column's values are read: `pg_type`, or another if a rule says so.

    Text can be read in binary format only where that is the text itself.
    """
    if column.rule is ColumnRule.ARRAY:
        array, typmod = pg_type.resolve(column.typmod)
        return replace(array, typmod=typmod, is_list=True)
    if column.rule is ColumnRule.CANONICAL:
        return _CANONICAL_JSON
    if column.rule is ColumnRule.VARIANT and pg_type.resolve()[0].oid == types.JSON:
        return _JSON_VALUE
    if not column.rule.reads_text:
        return pg_type
    is_text = binary_format(pg_type, column.typmod) is scalars.strings
    return _TEXT_TYPE if is_text else _PRINTED_TYPE


def arrow_type(pg_type: PgType, typmod: int = -1) -> pa.DataType:
    """The Arrow type for values of this type and modifier."""
    if pg_type.is_list:
        assert pg_type.element is not None
        return pa.list_(rule_of(pg_type.element, pg_type.typmod).arrow)
    return rule_of(pg_type, typmod).arrow


def binary_format(pg_type: PgType, typmod: int = -1) -> Decoder | FixedWidth | None:
    """The decoder for the binary format; None where values must be requested as text."""
    return None if pg_type.base is not None else rule_of(pg_type, typmod).binary


def reads_binary(pg_type: PgType, typmod: int = -1) -> bool:
    """Whether values can arrive in binary format."""
    return binary_format(pg_type, typmod) is not None
