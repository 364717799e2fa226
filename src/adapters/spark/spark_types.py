"""Spark's type for each Arrow type of our codec, and the exact Arrow schema that Spark expects.

Documentation: PySpark, "Apache Arrow in PySpark", "Supported SQL Types".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import types as spark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PLAIN: Mapping[pa.DataType, Callable[[], spark.DataType]] = {
    pa.bool_(): spark.BooleanType,
    pa.int16(): spark.ShortType,
    pa.int32(): spark.IntegerType,
    pa.int64(): spark.LongType,
    pa.float32(): spark.FloatType,
    pa.float64(): spark.DoubleType,
    pa.string(): spark.StringType,
    pa.binary(): spark.BinaryType,
    pa.date32(): spark.DateType,
    pa.timestamp("us"): spark.TimestampNTZType,
    pa.timestamp("us", "UTC"): spark.TimestampType,
}

#: Column and text of each value of a row that its type cannot hold.
UNREPRESENTABLE = "_unrepresentable"
UNREPRESENTABLE_TYPE = pa.map_(pa.string(), pa.string())


def spark_type(arrow: pa.DataType) -> spark.DataType:
    if pa.types.is_decimal128(arrow):
        return spark.DecimalType(arrow.precision, arrow.scale)
    if pa.types.is_list(arrow):
        return spark.ArrayType(spark_type(arrow.value_type))
    if pa.types.is_struct(arrow):
        return spark_schema(pa.schema(arrow))
    if pa.types.is_map(arrow):
        return spark.MapType(spark_type(arrow.key_type), spark_type(arrow.item_type))
    return _PLAIN[arrow]()


def spark_schema(schema: pa.Schema) -> spark.StructType:
    return spark.StructType(
        [spark.StructField(field.name, spark_type(field.type), True) for field in schema]
    )
