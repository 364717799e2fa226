"""Which columns the destination holds differently from the source, and how.

No value changes in silence; this is about types that have no equal and values that do not fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.values.merges import UNREPRESENTABLE_TABLE
from cdc_core.values.table_rules import ColumnRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdc_core.values.relation import Column

#: Types whose text names other objects as they are called now. Manual: "Object Identifier Types".
_NAMES_OF_OTHERS = frozenset({
    "aclitem", "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper",
    "regoperator", "regproc", "regprocedure", "regrole", "regtype",
})  # fmt: skip

#: Types that are text at the source too.
_TEXTS = ("text", "character varying", "character", "bpchar", "name", '"char"', "citext")

_KEPT = f"become NULL, with the text kept in {UNREPRESENTABLE_TABLE}"


def losses(column: Column) -> Iterator[str]:
    """Yield what the destination's column does not show, in sentences without the column's name."""
    arrow, source = column.arrow_type, column.pg_type
    if column.rule.reads_text or column.rule is ColumnRule.NULL:
        yield f"masked: {column.rule.value}"
    elif column.rule is ColumnRule.CANONICAL:
        yield "the JSON is kept, its text is not (spaces, order of keys, zeros of numbers)"
        yield f"values with a key twice, or a number beyond DECIMAL(38) and DOUBLE, {_KEPT}"
    elif column.rule is ColumnRule.VARIANT:
        yield "the JSON is kept, its text is not (spaces, order of keys)"
    elif pa.types.is_list(arrow):
        yield f"arrays of several dimensions, or with another lower bound than 1, {_KEPT}"
    elif arrow == pa.string():
        if source.endswith("[]"):
            yield "an array becomes its JSON text"
        elif is_wide_numeric(column):
            yield "a number becomes its text, because no DECIMAL holds every digit"
        elif not source.startswith(_TEXTS):
            yield "a value becomes its text, as PostgreSQL prints it"
        if names_other_objects(column):
            yield "its text changes without an event if an object that it names is renamed"
    elif pa.types.is_decimal(arrow):
        yield f"NaN and infinities {_KEPT}"
    elif pa.types.is_date(arrow) or pa.types.is_timestamp(arrow):
        yield f"infinities and years outside 1 to 9999 {_KEPT}"


def is_wide_numeric(column: Column) -> bool:
    """Whether the column is a numeric that no DECIMAL holds with every digit."""
    return (
        column.pg_type.startswith("numeric")
        and column.arrow_type == pa.string()
        and column.rule is ColumnRule.KEEP
        and not column.pg_type.endswith("[]")
    )


def names_other_objects(column: Column) -> bool:
    """Whether the column's text names other objects, such as tables, as they are called now."""
    return column.pg_type.removesuffix("[]") in _NAMES_OF_OTHERS
