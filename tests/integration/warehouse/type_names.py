"""Names of types: what Delta stores, what SQL prints, what Arrow holds, what Thrift announces."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from . import variants

_SQL_OF_DELTA = {
    "byte": "tinyint",
    "short": "smallint",
    "integer": "int",
    "long": "bigint",
}


def sql_type(delta_type: Any) -> str:
    """`full_data_type` of information_schema for a type of a Delta schema."""
    if isinstance(delta_type, str):
        return _SQL_OF_DELTA.get(delta_type, delta_type)
    match delta_type["type"]:
        case "array":
            return f"array<{sql_type(delta_type['elementType'])}>"
        case "map":
            if variants.is_variant(delta_type):
                return "variant"
            key, value = sql_type(delta_type["keyType"]), sql_type(delta_type["valueType"])
            return f"map<{key},{value}>"
        case _:
            inner = (f"{f['name']}:{sql_type(f['type'])}" for f in delta_type["fields"])
            return f"struct<{','.join(inner)}>"


def engine_type(delta_type: Any) -> str:
    """The SQL type that the engine stores for a type of a Delta schema."""
    return variants.ENGINE_TYPE if variants.is_variant(delta_type) else sql_type(delta_type)


_WHOLE = {"tinyint": 10, "smallint": 10, "int": 10, "bigint": 20}
_SIZES = ("tinyint", "smallint", "int", "bigint")


def widens(before: str, after: str) -> bool:
    """Whether type widening can make one SQL type the other. Databricks, "Type widening"."""
    if before in _SIZES and after in _SIZES:
        return _SIZES.index(after) > _SIZES.index(before)
    precision, scale = precision_and_scale(after) if after.startswith("decimal") else (None, None)
    if precision is not None and scale is not None:
        if before in _WHOLE:
            return precision - scale >= _WHOLE[before]
        old_precision, old_scale = precision_and_scale(before)
        return (
            before.startswith("decimal")
            and old_precision is not None
            and old_scale is not None
            and precision - old_precision >= scale - old_scale >= 0
        )
    return (before, after) in {
        ("tinyint", "double"),
        ("smallint", "double"),
        ("int", "double"),
        ("float", "double"),
        ("date", "timestamp_ntz"),
    }


def data_type(full: str) -> str:
    """`data_type` of information_schema: the name alone."""
    return re.split(r"[(<]", full)[0].upper()


def precision_and_scale(full: str) -> tuple[int | None, int | None]:
    if match := re.fullmatch(r"decimal\((\d+),(\d+)\)", full):
        return int(match[1]), int(match[2])
    sizes = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 19, "float": 24, "double": 53}
    scale = 0 if full in {"tinyint", "smallint", "int", "bigint"} else None
    return sizes.get(full), scale


def delta_type(arrow: pa.DataType) -> Any:
    """The Delta type that Spark gives a Parquet column which pyarrow reads as `arrow`.

    Returns None for what Spark refuses to read.
    """
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})" if arrow.precision <= 38 else None
    if pa.types.is_timestamp(arrow):
        if arrow.unit == "ns":
            return None
        return "timestamp_ntz" if arrow.tz is None else "timestamp"
    if pa.types.is_dictionary(arrow):
        return delta_type(arrow.value_type)
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return {"type": "array", "elementType": delta_type(arrow.value_type), "containsNull": True}
    if pa.types.is_struct(arrow):
        fields = [
            {"name": f.name, "type": delta_type(f.type), "nullable": True, "metadata": {}}
            for f in arrow
        ]
        return {"type": "struct", "fields": fields}
    if pa.types.is_map(arrow):
        key, value = delta_type(arrow.key_type), delta_type(arrow.item_type)
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
    simple: dict[pa.DataType, str] = {
        pa.bool_(): "boolean",
        pa.int8(): "byte",
        pa.int16(): "short",
        pa.int32(): "integer",
        pa.int64(): "long",
        pa.uint8(): "short",
        pa.uint16(): "integer",
        pa.uint32(): "long",
        pa.uint64(): "decimal(20,0)",
        pa.float32(): "float",
        pa.float64(): "double",
        pa.string(): "string",
        pa.large_string(): "string",
        pa.binary(): "binary",
        pa.large_binary(): "binary",
        pa.date32(): "date",
        pa.null(): "void",
    }
    return simple.get(arrow)


def spark_class(delta: Any) -> str:
    """How Spark's errors name a type: `integer` is IntegerType."""
    if not isinstance(delta, str):
        return str(delta["type"]).capitalize() + "Type"
    if delta.startswith("decimal"):
        return "DecimalType" + delta.removeprefix("decimal")
    if delta == "timestamp_ntz":
        return "TimestampNTZType"
    return delta.capitalize() + "Type"
