"""`spark.read.format("pgbronze")`: a table of PostgreSQL at one LSN, as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pytest

from adapters.spark import PostgresSnapshot, open_snapshot
from tests.support.oracle import Source, differences
from tests.support.type_matrix import SETUP, available, wide_tables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from tests.support.spark import Sessions

pytestmark = pytest.mark.spark


@pytest.fixture
def session(session: SparkSession) -> SparkSession:
    session.dataSource.register(PostgresSnapshot)
    return session


def load(session: SparkSession, database: str, table: str, **options: str) -> DataFrame:
    given = {"credentials": database, "table": table} | options
    return session.read.format("pgbronze").options(**given).load()


def arrow(frame: DataFrame) -> pa.Table:
    """A DataFrame in Arrow; without the names of the session's time zone."""
    table = frame.toArrow()
    fields = [
        pa.field(f.name, pa.timestamp("us", "UTC"))
        if pa.types.is_timestamp(f.type) and f.type.tz
        else f
        for f in table.schema
    ]
    return table.cast(pa.schema(fields))


def test_every_type_is_as_postgresql_prints_it(
    session: SparkSession, database: str, sql: psycopg.Connection
) -> None:
    sql.execute(SETUP)
    cases = available(sql)
    major = sql.info.server_version // 10_000
    for wide in wide_tables(cases, major):
        sql.execute(wide.create().encode())
        wide.insert(sql, major, 1)
        with psycopg.connect(database) as reader:
            expected = Source(reader).read(f"public.{wide.name}")
        frame = load(session, database, f"public.{wide.name}", unrepresentable="column")
        found = arrow(frame)
        texts = found.column("_unrepresentable").to_pylist()
        found = found.drop_columns(["_unrepresentable"])
        assert [*differences(expected, found)] == []
        recorded = sorted((name, text) for row in texts for name, text in row or ())
        odd = sorted(
            (column.name, text)
            for row in expected.rows
            for column, text in zip(expected.columns, row, strict=True)
            if type(column.type.expected(text)).__name__ == "Odd"
        )
        assert recorded == odd
        assert odd or wide.name == "arrays"


def test_a_snapshot_is_one_moment_for_all_tables_and_partitions(
    session: SparkSession, database: str, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE a (id int PRIMARY KEY, note text)")
    sql.execute("CREATE TABLE b (id int, note text) PARTITION BY RANGE (id)")
    for n in range(3):
        sql.execute(
            f"CREATE TABLE b_{n} PARTITION OF b FOR VALUES FROM ({n * 100}) TO ({n * 100 + 100})"
        )
    for table in ("a", "b"):
        rows = "SELECT i, repeat('n', 900) FROM generate_series(0, 299) i"
        sql.execute(f"INSERT INTO {table} {rows}".encode())
    sql.execute("ANALYZE")
    with open_snapshot(database) as snapshot:
        for table in ("a", "b"):
            sql.execute(f"UPDATE {table} SET note = 'later' WHERE id % 2 = 0".encode())
            sql.execute(f"DELETE FROM {table} WHERE id % 3 = 0".encode())
        for table in ("a", "b"):
            frame = load(
                session, database, table, **snapshot.options, rowsPerPartition="20",
                maxConnections="3",
            )  # fmt: skip
            found = frame.toArrow()
            assert sorted(found.column("id").to_pylist()) == [*range(300)]
            assert {*found.column("note").to_pylist()} == {"n" * 900}
            assert partitions(frame) == 3
        assert snapshot.lsn > 0
    assert "snapshot" not in repr(snapshot)


def partitions(frame: DataFrame) -> int:
    return frame.selectExpr("spark_partition_id() AS number").distinct().count()


def test_without_a_snapshot_one_worker_reads_the_table_as_it_is_now(
    session: SparkSession, database: str, sql: psycopg.Connection
) -> None:
    sql.execute('CREATE SCHEMA "Odd Schema"; CREATE TABLE "Odd Schema"."T" (id int, "a;b" text)')
    sql.execute('INSERT INTO "Odd Schema"."T" VALUES (1, NULL), (2, \'x\')')
    frame = load(session, database, '"Odd Schema"."T"')
    assert frame.toArrow().to_pylist() == [{"id": 1, "a;b": None}, {"id": 2, "a;b": "x"}]
    sql.execute('DELETE FROM "Odd Schema"."T"')
    assert frame.count() == 0


def test_generated_columns_are_read(
    session: SparkSession, database: str, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE g (id int, twice int GENERATED ALWAYS AS (2 * id) STORED)")
    sql.execute("INSERT INTO g VALUES (4)")
    assert load(session, database, "g").toArrow().to_pylist() == [{"id": 4, "twice": 8}]


def test_a_value_that_does_not_fit_is_an_error_unless_asked_otherwise(
    session: SparkSession, database: str, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE d (id int, day date); INSERT INTO d VALUES (1, 'infinity')")
    with pytest.raises(Exception, match="value in column day that Spark's type cannot hold"):
        load(session, database, "d").toArrow()
    found = load(session, database, "d", unrepresentable="null").toArrow()
    assert found.to_pylist() == [{"id": 1, "day": None}]


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("nothing", {}, "nothing is no ordinary or partitioned table"),
        ("pg_tables", {}, "pg_tables is no ordinary or partitioned table"),
        ("", {}, "option 'table' is missing"),
        ("t", {"maxConnections": "0"}, "option 'maxConnections' is '0'"),
        ("t", {"unrepresentable": "x"}, "option 'unrepresentable' is 'x'"),
        ("t", {"speed": "9"}, "unknown option 'speed'"),
        ("t", {"snapshot": "00000003-00000002-1"}, "the snapshot is gone"),
    ],
)
def test_a_wrong_option_is_named(
    spark: Sessions, database: str, table: str, options: dict[str, str], message: str
) -> None:
    spark.connect.dataSource.register(PostgresSnapshot)
    with pytest.raises(Exception, match=message):
        load(spark.connect, database, table, **options).toArrow()


def test_the_credentials_show_nowhere(
    session: SparkSession, database: str, sql: psycopg.Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    sql.execute("CREATE TABLE t (id int)")
    role = f"reader_{sql.info.dbname}"
    sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'very-secret-9'".encode())
    dsn = psycopg.conninfo.make_conninfo(database, user=role, password="very-secret-9")
    try:
        frame = load(session, dsn, "t")
        for mode in ("simple", "extended", "formatted", "cost"):
            frame.explain(mode)
        with pytest.raises(Exception, match="GRANT SELECT ON") as denied:
            frame.toArrow()
        wrong = psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port="1")
        with pytest.raises(Exception, match="cannot be reached") as gone:
            load(session, wrong, "t").toArrow()
    finally:
        sql.execute(f"DROP ROLE {role}".encode())
    printed = capfd.readouterr()
    for text in (printed.out, printed.err, str(denied.value), str(gone.value), repr(frame)):
        assert "very-secret-9" not in text
