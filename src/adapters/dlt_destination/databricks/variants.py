"""VARIANT columns, in SQL and in what is read from them.

Files contain text, and so do the sources of merges: a VARIANT cannot be compared, grouped or part
of a UNION. Sources: Databricks SQL reference, "VARIANT type", "parse_json", "to_json".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from adapters.dlt_destination.columns import JSON
from adapters.dlt_destination.sql.dialect import SPARK
from cdc_core.values.canonical_json import NotCanonical, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdc_core.values.merges import TargetTable


def comparable(staged: str, fields: Iterable[pa.Field], target: TargetTable) -> str:
    """Return the relation `staged` with JSON as the text that it reads as once it is stored."""
    if not target.variants:
        return staged
    columns = []
    for field in fields:
        name = SPARK.quote(field.name)
        if field.name in target.variants:
            name = f"{SPARK.json_text.format(SPARK.parse_json.format(name))} AS {name}"
        columns.append(name)
    return f"(SELECT {', '.join(columns)} FROM {staged} AS j)"


def as_text(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if field.type == JSON else field


def readable(field: pa.Field) -> str:
    """Return the expression that reads a column, with JSON as text."""
    name = SPARK.quote(field.name)
    return f"{SPARK.json_text.format(name)} AS {name}" if field.type == JSON else name


def parsed(fields: Iterable[pa.Field], *, strict: bool) -> str:
    """Return the columns, with JSON parsed from text. Unless `strict`, text that VARIANT cannot
    hold is NULL: rows that are kept from before the column held JSON can have any text."""
    parse = SPARK.parse_json if strict else f"TRY_{SPARK.parse_json}"
    columns = []
    for field in fields:
        name = SPARK.quote(field.name)
        columns.append(f"{parse.format(name)} AS {name}" if field.type == JSON else name)
    return ", ".join(columns)


def canonical(texts: pa.ChunkedArray) -> pa.Array:
    """Return the canonical texts of values that TO_JSON has printed."""
    values = (None if text is None else _canonical(text) for text in texts.to_pylist())
    return pa.array(values, pa.string())


def _canonical(text: str) -> str:
    """A text that is not canonical JSON stays as it is: no value of the source is equal to it."""
    try:
        return canonical_json(text, printed=True)
    except NotCanonical:
        return text
