"""Spark and COPY read the same rows, whatever their types are and while they change."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from adapters.pgoutput.snapshot import page_ranges
from adapters.pgoutput.snapshot.snapshot_source import CopySnapshot
from adapters.spark.snapshot_source import SparkSnapshotSource
from cdc_core.values.table_rules import ColumnRule
from tests.support.lakes import LocalLake
from tests.support.oracle import assert_equal
from tests.support.pipeline import InProcess
from tests.support.type_matrix import SETUP, available, wide_tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.wire.query_rows import ReadRows
    from tests.support.spark import Sessions

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("small_is_large")]


@pytest.fixture
def tables(sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every type, a domain over each, an array of each; each table several statements long."""
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 4)
    sql.execute(SETUP)
    cases = available(sql)
    major = sql.info.server_version // 10_000
    wides = wide_tables(cases, major)
    for wide in wides:
        sql.execute(wide.create().encode())
        for first in (1, 101):
            wide.insert(sql, major, first)
    return [wide.name for wide in wides]


def cells(chunks: Iterator[ReadRows]) -> tuple[list[str], list[tuple[int, str, str]]]:
    """All rows as text, floats bit by bit; and what did not fit, by the row's id."""
    rows, unfit = [], []
    for chunk in chunks:
        numbers = chunk.rows.column("id").to_pylist()
        lists = [column.to_pylist() for column in chunk.rows.columns]
        rows += [
            repr([v.hex() if isinstance(v, float) else v for v in row])
            for row in zip(*lists, strict=True)
        ]
        unfit += [(numbers[one.row], one.column, one.text) for one in chunk.unrepresentable]
    return sorted(rows), sorted(unfit)


class Writer(threading.Thread):
    """Changes rows of the tables until the block ends."""

    def __init__(self, database: str, tables: list[str]) -> None:
        super().__init__(daemon=True)
        self._database, self._tables = database, tables
        self._ended = threading.Event()
        self.rounds = 0

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        with psycopg.connect(self._database, autocommit=True) as sql:
            while not self._ended.wait(0.1):
                for table in self._tables:
                    sql.execute(f"UPDATE {table} SET n = n + 1 WHERE id % 3 = 0".encode())
                    sql.execute(f"UPDATE {table} SET id = -id WHERE id % 7 = 1".encode())
                    sql.execute(f"DELETE FROM {table} WHERE id = {self.rounds}".encode())
                self.rounds += 1


def test_the_same_snapshot_by_both_readers(
    session: SparkSession,
    settings: SourceSettings,
    catalog: PgCatalog,
    database: str,
    tables: list[str],
) -> None:
    relations = [table.relation for table in catalog.publish()]
    assert sorted(one.table.name for one in relations) == sorted(tables)
    source = SparkSnapshotSource(settings, 2, lambda: session)
    with (
        source.begin(create_slot=False) as snapshot,
        closing(CopySnapshot(settings, snapshot.guards, snapshot.exported)) as by_copy,
        Writer(database, tables) as writer,
    ):
        for relation in relations:
            found = cells(snapshot.read(relation))
            assert found == cells(by_copy.read(relation))
            assert found[1] or relation.table.name == "arrays"
        assert snapshot._jobs is not None
        assert by_copy.lsn == snapshot.lsn
    assert writer.rounds


@pytest.mark.parametrize("rule", [ColumnRule.EXCLUDE, ColumnRule.HASH])
def test_column_rules(
    spark: Sessions,
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    rule: ColumnRule,
) -> None:
    """Workers do not read a column that is left out, nor any of a table with a mask."""
    sql.execute("CREATE TABLE r (id int PRIMARY KEY, born date, paid numeric(9,2))")
    sql.execute("INSERT INTO r VALUES (1, 'infinity', 1.50)")
    (table,) = catalog.publish()
    relation = table.relation.under({"born": rule})
    source = SparkSnapshotSource(settings, 2, lambda: spark.connect)
    with source.begin(create_slot=False) as snapshot:
        (chunk,) = snapshot.read(relation)
        by_workers = snapshot._jobs is not None
    found = {name: str(value) for name, value in chunk.rows.to_pylist()[0].items()}
    if rule is ColumnRule.EXCLUDE:
        assert (found, by_workers) == ({"id": "1", "paid": "1.50"}, True)
    else:
        assert (found, by_workers) == ({"id": "1", "born": "infinity", "paid": "1.50"}, False)
    assert chunk.unrepresentable == ()


def test_workers_read_canonical_json(
    spark: Sessions, settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE r (id int PRIMARY KEY, doc json)")
    sql.execute("""INSERT INTO r VALUES (1, '{"b": 1.50, "a": null}'), (2, '{"a": 1, "a": 2}')""")
    (table,) = catalog.publish()
    relation = table.relation.under({"doc": ColumnRule.CANONICAL})
    source = SparkSnapshotSource(settings, 2, lambda: spark.connect)
    with source.begin(create_slot=False) as snapshot:
        (chunk,) = snapshot.read(relation)
        assert snapshot._jobs is not None
    assert chunk.rows.column("doc").to_pylist() == ['{"a":null,"b":1.5}', None]
    assert [cell.text for cell in chunk.unrepresentable] == ['{"a": 1, "a": 2}']


def test_a_full_load_by_spark_and_the_stream_after_it(
    spark: Sessions, database: str, tables: list[str], tmp_path: Path
) -> None:
    """In the session at hand, as a job on Databricks has one."""
    lake = LocalLake("duckdb", tmp_path)
    reader = {"SOURCES__PG_REPLICATION__SNAPSHOT_READER": "spark", "LOG_LEVEL": "WARNING"}
    pipeline = InProcess(database, lake, **reader)
    with Writer(database, tables):
        printed = pipeline.run("snapshot")
    pipeline.run("cdc")
    with psycopg.connect(database) as reading:
        assert_equal(reading, lake, tables)
    assert "cannot read" not in printed
    assert "cannot go on" not in printed
