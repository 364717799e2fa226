"""Verify and repair on a real server and real tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.integration.verify.conftest import line
from tests.support.workload import TABLES, Workload, assert_equal

if TYPE_CHECKING:
    import psycopg

    from tests.integration.verify.conftest import Pipeline

ODD_VALUES = """
INSERT INTO plain (id, label, price, weight, small, day, seen_at) VALUES
  (1000, '', 'NaN', 'NaN', 'infinity', 'infinity', '-infinity'),
  (1001, E'a\\tb', 1.50, '-0.0', '-0.0', '4000-01-01 BC', NULL),
  (1002, NULL, -1.50, 5e-324, 1e-45, '9999-12-31', '0001-01-01 00:00:00+00');
INSERT INTO heap VALUES (9, 'twin', 'NaN'), (9, 'twin', 'NaN'), (NULL, NULL, NULL);
"""


def test_loaded_rows_are_equal_and_damaged_rows_are_named_and_repaired(
    pipeline: Pipeline, sql: psycopg.Connection
) -> None:
    sql.execute(TABLES)
    workload = Workload(sql, 7)
    workload.run(60)
    sql.execute("DELETE FROM plain WHERE id IN (4, 5)")
    sql.execute("INSERT INTO plain (id, n, label) VALUES (4, 1, 'four'), (5, 1, 'five')")
    sql.execute(ODD_VALUES)
    pipeline.snapshot()
    assert pipeline.verify().equal

    workload.run(40)
    sql.execute("INSERT INTO plain (id, n, day) VALUES (2000, 1, 'infinity')")
    sql.execute("INSERT INTO plain (id, n) VALUES (2001, 1), (2002, 1) ")
    sql.execute("INSERT INTO heap VALUES (8, 'twin', 1.5), (8, 'twin', 1.5)")
    pipeline.cdc()
    report = pipeline.verify()
    assert report.equal, report

    pipeline.lake_sql("plain", "id = 2001")
    pipeline.copy_rows("plain", "id = 2002")
    pipeline.lake_sql("heap", "kind = 8")
    sql.execute("DELETE FROM plain WHERE id = 2000")
    sql.execute("INSERT INTO plain (id, day) VALUES (2003, '-infinity')")
    report = pipeline.verify()
    named = {(key.kind, json.loads(key.key)["id"]) for key in line(report, "plain").keys}
    wanted = {("missing", "2001"), ("different", "2002"), ("extra", "2000"), ("missing", "2003")}
    assert named == wanted
    assert line(report, "heap").missing == 2
    assert line(report, "toasted").equal
    assert not report.equal

    report = pipeline.verify(repair=True)
    assert report.equal
    assert {found.table for found in report.tables if found.repaired} == {
        "public.plain",
        "public.heap",
    }
    assert pipeline.verify().equal
    workload.run(40)
    pipeline.cdc()
    assert pipeline.verify().equal
    # By the tests' own reading too, where Python can hold the values.
    sql.execute("DELETE FROM plain WHERE id >= 1000")
    pipeline.cdc()
    assert_equal(sql, pipeline.lake)


def test_rows_of_a_table_without_columns_are_counted(
    pipeline: Pipeline, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE bare ()")
    sql.execute("ALTER TABLE bare REPLICA IDENTITY FULL")
    for _ in range(3):
        sql.execute("INSERT INTO bare DEFAULT VALUES")
    pipeline.snapshot()
    sql.execute("INSERT INTO bare DEFAULT VALUES")
    pipeline.cdc()
    found = line(pipeline.verify(), "bare")
    assert (found.source_rows, found.target_rows) == (4, 4)
    assert found.equal

    pipeline.copy_rows("bare", "true")
    found = line(pipeline.verify(repair=True), "bare")
    assert (found.extra, found.repaired) == (4, True)
    assert pipeline.verify().equal


def test_values_that_no_column_holds_follow_names(
    pipeline: Pipeline, sql: psycopg.Connection
) -> None:
    sql.execute(
        "CREATE TABLE prices (id int PRIMARY KEY, price numeric(5, 2));"
        "CREATE TABLE days (day date); ALTER TABLE days REPLICA IDENTITY FULL;"
        "INSERT INTO prices VALUES (1, 'NaN'); INSERT INTO days VALUES ('infinity')"
    )
    pipeline.snapshot()
    sql.execute(
        "ALTER TABLE prices RENAME TO rates; ALTER TABLE rates RENAME price TO rate;"
        "ALTER TABLE rates RENAME id TO key; ALTER TABLE days RENAME TO dates"
    )
    pipeline.cdc()
    report = pipeline.verify()
    assert {found.table for found in report.tables} == {"public.rates", "public.dates"}
    assert report.equal, report


KEY_TYPES = (
    "boolean", "smallint", "bigint", "real", "double precision", "numeric(30,10)", "text", "bytea",
    "date", "timestamp", "timestamptz",
)  # fmt: skip
KEYS = r"""
VALUES (
  false, -1, 9007199254740993, 0.1::real, 0.1::float, 0.0000000001, 'é "\', ''::bytea,
  '2024-02-29'::date, '2024-02-29 12:00:00.5'::timestamp, '2024-02-29 12:00:00.000001Z'::timestamptz
), (
  true, 1, -1, 1e6, 1e15, -12345678901234567890.5, '', '\x00ff',
  '0001-01-01', '0999-12-31', '9999-12-31 23:59:59Z'
), (true, 2, 0, 123456, 123456789012345, 100, 'x', '\x61', '9999-12-31', '1970-01-01', 'epoch'),
   (true, 3, 0, 1.17549435e-38, 5e-324, 0, 'y', '\x61', '2000-01-01', '2000-01-01 1:2', 'epoch'),
   (true, 4, 0, 0.0001, 0.00001, 0, 'y', '\x61', '2000-01-01', '2000-01-01', 'epoch'),
   (true, 5, 0, 'NaN', '-Infinity', 0, 'y', '\x61', '2000-01-01', '2000-01-01', 'epoch')
"""


def test_keys_are_named_in_postgresqls_own_text(
    pipeline: Pipeline, sql: psycopg.Connection
) -> None:
    """Whichever side they are on, and as `_cdc_unrepresentable` names them."""
    names = [f"k{number}" for number in range(len(KEY_TYPES))]
    columns = ", ".join(f"{n} {t}" for n, t in zip(names, KEY_TYPES, strict=True))
    sql.execute(f"CREATE TABLE keyed ({columns}, odd date, PRIMARY KEY ({', '.join(names)}))")
    insert = f"INSERT INTO keyed SELECT *, 'infinity' FROM ({KEYS}) AS keys".encode()
    sql.execute(insert)
    pairs = ", ".join(f"'{name}', format('%s', {name})" for name in names)
    sql.execute("SET TimeZone = 'UTC'; SET bytea_output = 'hex'")
    found = sql.execute(f"SELECT json_build_object({pairs})::text FROM keyed".encode()).fetchall()
    wanted = sorted((json.loads(text) for (text,) in found), key=str)
    pipeline.snapshot()
    assert pipeline.verify().equal
    recorded = pipeline.lake.read("_cdc_unrepresentable").column("key").to_pylist()
    assert sorted(map(json.loads, recorded), key=str) == wanted

    def named(kind: str) -> list[object]:
        keys = line(pipeline.verify(), "keyed").keys
        assert {key.kind for key in keys} == {kind}
        return sorted((json.loads(key.key) for key in keys), key=str)

    sql.execute("DELETE FROM keyed")
    assert named("extra") == wanted
    pipeline.cdc()
    sql.execute(insert)
    assert named("missing") == wanted


SMALL = """
CREATE TABLE items (id int PRIMARY KEY, note text);
CREATE TABLE emptied (id int PRIMARY KEY, note text);
CREATE TABLE log (note text);
ALTER TABLE log REPLICA IDENTITY FULL;
INSERT INTO items SELECT i, 'own' FROM generate_series(1, 6) AS i;
INSERT INTO emptied VALUES (1, 'own');
INSERT INTO log VALUES ('a'), ('b');
"""


def test_rows_that_somebody_else_wrote_are_older_than_any_change(
    pipeline: Pipeline, sql: psycopg.Connection
) -> None:
    sql.execute(SMALL)
    pipeline.snapshot()
    pipeline.copy_rows("items", "id = 3")
    pipeline.change_rows("items", "id IN (1, 2, 3)", note="'by hand'", _cdc_lsn="NULL")
    pipeline.change_rows("items", "id = 6", id="9", _cdc_lsn="NULL")
    pipeline.change_rows("emptied", "id = 1", _cdc_lsn="NULL")
    pipeline.change_rows("log", "note = 'a'", _cdc_lsn="NULL")
    sql.execute("UPDATE items SET note = 'new' WHERE id = 1")
    sql.execute("DELETE FROM items WHERE id IN (2, 3, 6)")
    sql.execute("INSERT INTO items VALUES (9, 'new')")
    sql.execute("TRUNCATE emptied")
    sql.execute("DELETE FROM log WHERE note = 'a'")
    pipeline.cdc()
    report = pipeline.verify()
    assert report.equal, report

    pipeline.copy_rows("items", "id = 4")
    pipeline.change_rows("items", "id IN (1, 4)", note="'by hand'", _cdc_lsn="NULL")
    pipeline.change_rows("items", "id = 9", id="10", _cdc_lsn="NULL")
    pipeline.change_rows("log", "note = 'b'", note="'by hand'", _cdc_lsn="NULL")
    assert not pipeline.verify().equal
    report = pipeline.verify(repair=True)
    assert report.equal, report
    assert pipeline.verify().equal
