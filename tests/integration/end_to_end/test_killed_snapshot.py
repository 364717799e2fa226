"""A snapshot whose process is killed: the next run keeps the tables that were done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg

from tests.support.lakes import LocalLake
from tests.support.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Server

#: The command, loading each table by itself, as large ones are; it never gets past the third.
TABLE_BY_TABLE = """
import sys, time
from adapters.pgoutput.snapshot_source import CopySnapshot
from cdc_core.use_cases import read_tables
from entrypoints.cli import main

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


def test_a_killed_snapshot_goes_on(postgres: Server, tmp_path: Path) -> None:
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
        command = [sys.executable, "-c", TABLE_BY_TABLE]
        process = subprocess.Popen(
            command, env=pipeline.environment, cwd=tmp_path, start_new_session=True
        )
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
