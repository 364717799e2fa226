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


def test_what_was_loaded_is_equal_and_what_was_damaged_is_named_and_mended(
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
