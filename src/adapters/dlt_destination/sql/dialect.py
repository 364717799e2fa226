"""The differences between SQL dialects: quotes, escapes, type names.

Everything else is common SQL, written once in `merge_sql`. Sources: DuckDB documentation, "Data
Types" and "Keywords and Identifiers"; Databricks SQL reference, "Data types", "Identifiers".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from adapters.dlt_destination.columns import JSON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\((\d+),\s*(\d+)\)", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """`types` names the SQL type of every Arrow type but decimals and lists."""

    quote_mark: str
    #: Characters of a string literal that must be escaped, each with its escaped form.
    escapes: Mapping[str, str]
    null_safe_equal: str
    types: Mapping[pa.DataType, str]
    #: The SQL type of an array, with the element's type in the place of `{}`.
    array: str
    #: An instant, from microseconds since 1970-01-01 UTC.
    instant: str
    #: From the text of a JSON value to a value of the type for JSON, and back.
    parse_json: str = "{}"
    json_text: str = "{}"

    def quote(self, name: str) -> str:
        mark = self.quote_mark
        return f"{mark}{name.replace(mark, mark + mark)}{mark}"

    def literal(self, text: str) -> str:
        return f"'{''.join(self.escapes.get(c, c) for c in text)}'"

    def column(self, alias: str, name: str) -> str:
        return f"{alias}.{self.quote(name)}"

    def moment(self, microseconds: int) -> str:
        """Return an expression for an instant; `microseconds` count since 1970-01-01 UTC."""
        return self.instant.format(microseconds)

    def sql_type(self, arrow_type: pa.DataType) -> str:
        if pa.types.is_decimal(arrow_type):
            return f"DECIMAL({arrow_type.precision},{arrow_type.scale})"
        if pa.types.is_list(arrow_type):
            return self.array.format(self.sql_type(arrow_type.value_type))
        return self.types[arrow_type]

    def definitions(self, fields: Iterable[pa.Field]) -> str:
        """Return the columns of a table as its definition lists them."""
        return ", ".join(f"{self.quote(f.name)} {self.sql_type(f.type)}" for f in fields)

    def casts(self, fields: Iterable[pa.Field]) -> str:
        """Return expressions that cast columns of these names to these types."""
        return ", ".join(
            f"CAST({self.quote(f.name)} AS {self.sql_type(f.type)}) AS {self.quote(f.name)}"
            for f in fields
        )

    def arrow_type(self, sql_type: str) -> pa.DataType | None:
        """Return the Arrow type of a column; None for a type that this library never writes."""
        if decimal := _DECIMAL.fullmatch(sql_type):
            return pa.decimal128(int(decimal[1]), int(decimal[2]))
        before, after = self.array.split("{}")
        text = sql_type.upper()
        if text.startswith(before) and text.endswith(after):
            element = self.arrow_type(sql_type[len(before) : len(sql_type) - len(after)])
            return None if element is None else pa.list_(element)
        for arrow_type, name in self.types.items():
            if name == text:
                return arrow_type
        return None


_COMMON = {
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
}

DUCKDB = Dialect(
    quote_mark='"',
    escapes={"'": "''"},
    null_safe_equal="IS NOT DISTINCT FROM",
    array="{}[]",
    types={
        **_COMMON,
        pa.int32(): "INTEGER",
        pa.string(): "VARCHAR",
        pa.large_string(): "VARCHAR",
        JSON: "JSON",
        pa.binary(): "BLOB",
        pa.large_binary(): "BLOB",
        pa.timestamp("us"): "TIMESTAMP",
        pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
    },
    instant="make_timestamptz({})",
)

#: The expressions of merges in delta-rs. It quotes and compares like DuckDB.
DATAFUSION = replace(DUCKDB, instant="arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')")

SPARK = Dialect(
    quote_mark="`",
    escapes={"'": "\\'", "\\": "\\\\"},
    null_safe_equal="<=>",
    array="ARRAY<{}>",
    types={
        **_COMMON,
        pa.int32(): "INT",
        pa.string(): "STRING",
        pa.large_string(): "STRING",
        JSON: "VARIANT",
        pa.binary(): "BINARY",
        pa.large_binary(): "BINARY",
        pa.timestamp("us"): "TIMESTAMP_NTZ",
        pa.timestamp("us", tz="UTC"): "TIMESTAMP",
    },
    instant="timestamp_micros({})",
    parse_json="PARSE_JSON({})",
    json_text="TO_JSON({})",
)
