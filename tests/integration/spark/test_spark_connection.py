"""A Spark session in the place of the connector, in classic Spark and in Spark Connect."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from databricks.sql.exc import ServerOperationError
from pyspark.errors import PySparkException

from adapters.dlt_destination.databricks.spark_connection import SparkConnection
from adapters.dlt_destination.dlt.databricks_client import DatabricksCursorImpl

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

THEN = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=dt.UTC)


@pytest.fixture
def connection(session: SparkSession) -> SparkConnection:
    return SparkConnection(session, {"spark.sql.session.timeZone": "UTC"})


def test_serverless_compute_may_refuse_a_setting_that_is_its_default() -> None:
    """But none that differs from its default."""

    class Conf:
        def set(self, name: str, value: str) -> None:
            if name in {"spark.sql.storeAssignmentPolicy", "spark.other"}:
                raise PySparkException(f"[CONFIG_NOT_AVAILABLE] Configuration {name}.")

    SparkConnection(SimpleNamespace(conf=Conf()), {"spark.sql.session.timeZone": "UTC"})
    with pytest.raises(ServerOperationError, match="CONFIG_NOT_AVAILABLE"):
        SparkConnection(SimpleNamespace(conf=Conf()), {"spark.other": "1"})


def test_rows_and_parameters(connection: SparkConnection) -> None:
    cursor = connection.cursor()
    given = (7, "it's \\ 100%", None, Decimal("1.50"))
    cursor.execute("SELECT %s AS a, %s AS b, %s AS c, CAST(%s AS DECIMAL(9,2)) AS d", given)
    assert [column[0] for column in cursor.description or ()] == ["a", "b", "c", "d"]
    assert cursor.fetchall() == [given]
    cursor.execute("SELECT TIMESTAMP '2024-05-06 07:08:09.123456' AS t, '%d {x}' AS f")
    assert cursor.fetchone() == (THEN, "%d {x}")
    cursor.execute("SELECT 1 AS a WHERE false")
    assert (cursor.description is None, cursor.fetchall()) == (False, [])


def test_many_rows_come_in_chunks(connection: SparkConnection) -> None:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT id, repeat('x', 100) AS note, CAST('NaN' AS DOUBLE) AS f FROM range(50000)"
    )
    chunks = list(DatabricksCursorImpl(cursor).iter_arrow(2048))  # type: ignore[abstract, arg-type]
    assert len(chunks) > 1
    found = pa.concat_tables(chunks)
    assert sorted(found.column("id").to_pylist()) == [*range(50000)]
    assert found.schema.types == [pa.int64(), pa.string(), pa.float64()]


def test_statements_without_rows_are_done_at_once(
    connection: SparkConnection, session: SparkSession
) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE TEMPORARY VIEW done AS SELECT 1 AS a")
    assert cursor.description is None
    assert session.table("done").count() == 1


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT * FROM nowhere.nothing", r"\[TABLE_OR_VIEW_NOT_FOUND\].*SQLSTATE: 42P01"),
        ("SELEKT 1", r"\[PARSE_SYNTAX_ERROR\].*SQLSTATE: 42601"),
        # Not NULL in silence.
        ("SELECT CAST('x' AS INT) AS a", r"\[CAST_INVALID_INPUT\].*SQLSTATE: 22018"),
    ],
)
def test_errors_have_their_class_and_state(
    connection: SparkConnection, statement: str, told: str
) -> None:
    with pytest.raises(ServerOperationError, match=f"(?s){told}"):
        connection.cursor().execute(statement).fetchall()
