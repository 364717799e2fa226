"""Spark and COPY read the same rows, whatever their types are and while they change."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.pgoutput.snapshot import page_ranges
from adapters.pgoutput.snapshot.snapshot_source import CopySnapshot
from adapters.spark.snapshot_source import SparkSnapshotSource
from cdc_core.tables.catalog_with_rules import CatalogWithRules
from cdc_core.tables.table_rules import RuleSet
from cdc_core.values.masks import Hasher
from cdc_core.values.table_rules import ColumnRule, Rule
from tests.integration.spark.conftest import Folders, cells, laid_out
from tests.support.beside import Beside
from tests.support.lakes import LocalLake
from tests.support.oracle import assert_equal
from tests.support.pipeline import InProcess
from tests.support.type_matrix import SETUP, available, wide_tables

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.pgoutput.session.settings import SourceSettings
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


class Writer(Beside):
    """Changes rows of the tables until the block ends."""

    def __init__(self, database: str, tables: list[str]) -> None:
        super().__init__()
        self._database, self._tables = database, tables
        self.rounds = 0

    def run(self) -> None:
        with psycopg.connect(self._database, autocommit=True) as sql:
            while not self.ended.wait(0.1):
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
    folders: Folders,
) -> None:
    found = catalog.publish()
    assert sorted(one.relation.table.name for one in found) == sorted(tables)
    source = SparkSnapshotSource(settings, 2, lambda: session)
    with (
        source.begin(create_slot=False) as snapshot,
        closing(CopySnapshot(settings, snapshot.guards, snapshot.exported)) as by_copy,
        Writer(database, tables) as writer,
    ):
        assert by_copy.lsn == snapshot.lsn
        for table in found:
            written = folders.write(snapshot, table)
            assert written is not None
            rows = laid_out(snapshot, table)
            read = [rows.laid_out(chunk) for chunk in by_copy.read(table.relation)]
            for mine, others in zip(written, zip(*read, strict=True), strict=True):
                assert cells(mine) == cells(pa.concat_tables(others))
            assert len(written[1]) or table.relation.table.name == "arrays"
    assert writer.rounds


def test_files_have_neither_int96_nor_local_time(
    session: SparkSession,
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    folders: Folders,
) -> None:
    """Whatever the session is set to. A Julian calendar would move the first date."""
    columns = "d date, t timestamp, z timestamptz"
    sql.execute(f"CREATE TABLE r (id int PRIMARY KEY, {columns})".encode())
    sql.execute("INSERT INTO r VALUES (1, '0099-03-01', '0099-03-01', '0099-03-01Z')")
    (table,) = catalog.publish()
    session.conf.set("spark.sql.session.timeZone", "America/New_York")
    session.conf.set("spark.sql.parquet.datetimeRebaseModeInWrite", "LEGACY")
    try:
        with SparkSnapshotSource(settings, 2, lambda: session).begin(create_slot=False) as snapshot:
            written = folders.write(snapshot, table)
    finally:
        session.conf.set("spark.sql.session.timeZone", "UTC")
        session.conf.unset("spark.sql.parquet.datetimeRebaseModeInWrite")
    assert written is not None
    day = dt.datetime(99, 3, 1, tzinfo=dt.UTC)
    (row,) = written[0].select(["d", "t", "z"]).to_pylist()
    assert list(row.values()) == [day.date(), day.replace(tzinfo=None), day]
    for file in folders.path.glob("*/rows/*.parquet"):
        schema = pq.ParquetFile(file).schema
        types = {schema.column(n).physical_type for n in range(1, len(row) + 1)}
        assert types == {"INT64"}


SECRETS = ("Secret-name-4711", "secret-note-0815", "1999-12-31", "infinity")


def test_masked_and_excluded_values_never_leave_a_worker(
    session: SparkSession,
    settings: SourceSettings,
    sql: psycopg.Connection,
    folders: Folders,
    catalog: PgCatalog,
) -> None:
    sql.execute("CREATE TABLE r (id text PRIMARY KEY, name text, iban text, born date, note text)")
    sql.execute(
        "INSERT INTO r VALUES ('k', 'Secret-name-4711', 'DE99', 'infinity', 'secret-note-0815'), "
        "('l', 'Secret-name-4711', 'DE99123', '1999-12-31', NULL)"
    )
    mask = {"id": "hash", "name": "hash", "iban": "last4", "born": "null"}
    rule = Rule(("*",), mask=mask, exclude_columns=("note",))
    hasher = Hasher(b"a key")
    (table,) = CatalogWithRules(catalog, RuleSet([rule], hasher)).publish()
    with SparkSnapshotSource(settings, 2, lambda: session).begin(create_slot=False) as snapshot:
        written = folders.write(snapshot, table)
    assert written is not None
    rows, unfit = written
    hashed = hasher(pa.chunked_array([["k", "l", "Secret-name-4711"]])).to_pylist()
    found = sorted(rows.select(["iban", "id", "name", "born"]).to_pylist(), key=itemgetter("iban"))
    assert [[*row.values()] for row in found] == [
        ["****", hashed[0], hashed[2], None],
        ["***9123", hashed[1], hashed[2], None],
    ]
    assert "note" not in rows.column_names
    assert len(unfit) == 0
    files = [path for path in folders.path.rglob("*") if path.is_file()]
    assert len(files) > 2
    for path in files:
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += repr(pq.ParquetFile(path).read().to_pylist()).encode()
        assert not [secret for secret in SECRETS if secret.encode() in data]


def test_workers_write_canonical_json(
    spark: Sessions,
    settings: SourceSettings,
    catalog: PgCatalog,
    sql: psycopg.Connection,
    folders: Folders,
) -> None:
    sql.execute("CREATE TABLE r (id int PRIMARY KEY, doc json)")
    sql.execute("""INSERT INTO r VALUES (1, '{"b": 1.50, "a": null}'), (2, '{"a": 1, "a": 2}')""")
    (table,) = catalog.publish()
    table = replace(table, relation=table.relation.under({"doc": ColumnRule.CANONICAL}))
    source = SparkSnapshotSource(settings, 2, lambda: spark.connect)
    with source.begin(create_slot=False) as snapshot:
        written = folders.write(snapshot, table)
    assert written is not None
    assert written[0].column("doc").to_pylist() == ['{"a":null,"b":1.5}', None]
    assert written[1].column("value_text").to_pylist() == ['{"a": 1, "a": 2}']


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
