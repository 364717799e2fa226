"""A snapshot whose process is killed: the next run keeps the tables that were done, and the parts
of a large one."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import psycopg
import pytest

from adapters.dlt_destination.databricks.volume_staging import VOLUME
from tests.support.forked import Process
from tests.support.lakes import LocalLake, WarehouseLake, lake_of
from tests.support.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.lakes import Lake
    from tests.support.postgres import Server

#: The command, loading each table by itself, as large ones are; it never gets past the third.
TABLE_BY_TABLE = """
import sys, time
from adapters.pgoutput.snapshot.snapshot_source import CopySnapshot
from cdc_core.full_load import read_tables
from entrypoints.cli.main import main

def read(self, relation, part, plain=CopySnapshot.read):
    for piece in plain(self, relation, part):
        if relation.table.name == "c":
            time.sleep(600)
        yield piece

CopySnapshot.read = read
read_tables.GROUP_TABLES = 1
sys.exit(main(["snapshot"]))
"""
#: Of two tables: each is loaded, and then counted as read.
LOADS = 4


def test_a_killed_snapshot_continues(postgres: Server, tmp_path: Path) -> None:
    lake = LocalLake("delta", tmp_path)
    loads = tmp_path / "lakehouse" / "bronze" / "_dlt_loads"
    with postgres.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for name in "abc":
            connection.execute(
                f"CREATE TABLE {name} AS SELECT i AS id, 'first' AS note "
                "FROM generate_series(1, 1000) i".encode()
            )
            connection.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)".encode())
        pipeline = Pipeline(dsn, lake)
        process = Process([], pipeline.environment, tmp_path, script=TABLE_BY_TABLE, inherit=True)
        give_up = time.monotonic() + 60
        while len(list(loads.glob("*.jsonl"))) < LOADS and time.monotonic() < give_up:
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name in "abc":
            connection.execute(f"UPDATE {name} SET note = 'later' WHERE id % 2 = 0".encode())
            connection.execute(f"DELETE FROM {name} WHERE id > 990".encode())
        output = pipeline.run("snapshot")
        assert "2 of 3 tables are done" in output
        assert "3 tables (2 of them read by an earlier run), 990 rows" in output
        for name in "abc":
            rows = connection.execute(f"SELECT id, note FROM {name}".encode()).fetchall()
            assert sorted(lake.rows(name, "id", "note")) == sorted(rows)
        assert "going on" not in pipeline.run("snapshot")


#: The command, reading the table in small parts; it is killed within the fourth.
PART_BY_PART = """
import os, signal, sys
from adapters.dlt_destination.destination import DltDestination
from adapters.pgoutput.snapshot import page_ranges
from cdc_core.full_load import resume
from entrypoints.cli.main import main

def write(self, name, target, rows, plain=DltDestination.write):
    def killed():
        for chunk in rows:
            yield chunk
            if len(self.written_names) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
    count = plain(self, name, target, killed())
    self.written_names.append(name)
    return count

DltDestination.write = write
DltDestination.written_names = []
page_ranges.RANGE_PAGES, resume.LARGE_BYTES = 8, 1
sys.exit(main(["snapshot"]))
"""
LARGE = """
CREATE TABLE large (id int PRIMARY KEY, note text, odd numeric(12,2));
ALTER TABLE large ALTER note SET STORAGE EXTERNAL;
INSERT INTO large
SELECT i, repeat('n', CASE i % 50 WHEN 0 THEN 4000 ELSE 800 END),
  CASE i % 100 WHEN 0 THEN 'NaN'::numeric ELSE i END
FROM generate_series(1, 600) i;
VACUUM ANALYZE large;
"""


@pytest.mark.parametrize("kind", ["duckdb", "delta", "databricks"])
def test_a_killed_snapshot_continues_within_a_table(
    postgres: Server, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """With the parts whose rows are the same; the others are read again, and `cdc` follows."""
    lake = lake_of(kind, tmp_path, request)
    with postgres.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for statement in LARGE.split(";"):
            connection.execute(statement.encode())
        pipeline = Pipeline(dsn, lake)
        killed = Process([], pipeline.environment, tmp_path, script=PART_BY_PART, inherit=True)
        assert killed.wait(120) == -signal.SIGKILL
        # A key in a part that is kept, of a row whose long value does not change; a row of another
        # such part; values of rows that nobody has read.
        connection.execute("UPDATE large SET id = id + 10000 WHERE id = 50")
        connection.execute("DELETE FROM large WHERE id = 95")
        connection.execute("UPDATE large SET odd = 5 WHERE id BETWEEN 500 AND 550")
        output = pipeline.run("snapshot")
        assert "1 of the 3 page ranges read before are unchanged" in output
        assert_large_is_equal(connection, lake)
        connection.execute("UPDATE large SET odd = 6 WHERE id % 3 = 0")
        pipeline.run("cdc")
        assert_large_is_equal(connection, lake)
        assert left_files(lake) == []
        assert "going on" not in pipeline.run("snapshot")


def assert_large_is_equal(connection: psycopg.Connection, lake: Lake) -> None:
    rows = connection.execute("SELECT id, note, nullif(odd, 'NaN') FROM large").fetchall()
    assert Counter(lake.rows("large", "id", "note", "odd")) == Counter(rows)
    recorded = lake.rows("_cdc_unrepresentable", "column_name", "value_text")
    assert {*recorded} == {("odd", "NaN")}


def left_files(lake: LocalLake | WarehouseLake) -> list[str]:
    """What was kept of a table and is no longer of use."""
    folder = lake.path
    if isinstance(lake, WarehouseLake):
        folder = lake.warehouse.volume_path("bronze", VOLUME)
        assert folder.is_dir()
    return [str(path) for path in folder.rglob("*kept*")]
