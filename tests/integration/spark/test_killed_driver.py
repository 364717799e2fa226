"""A full load whose driver is killed while Spark reads: the next one continues."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.lakes import LocalLake
from tests.support.oracle import assert_equal
from tests.support.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.spark import Sessions

pytestmark = pytest.mark.spark

#: The command, with small page ranges; it is killed while Spark writes the third.
PART_BY_PART = """
import os, signal, sys, threading
from adapters.pgoutput.snapshot import page_ranges
from adapters.spark import snapshot_source
from adapters.spark.jobs import RangeJobs
from cdc_core.full_load import resume
from entrypoints.cli.main import main

def write(self, scan, rows, folder, plain=RangeJobs.write):
    folders.append(folder)
    if sys.argv[1] == "killed" and len(folders) == 3:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return plain(self, scan, rows, folder)

folders = []
RangeJobs.write = write
page_ranges.RANGE_PAGES, resume.LARGE_BYTES, snapshot_source.LARGE_PAGES = 400, 1, 0
sys.exit(main(["snapshot"]))
"""


def test_it_continues(
    spark: Sessions, database: str, sql: psycopg.Connection, tmp_path: Path
) -> None:
    sql.execute("CREATE TABLE large (id int PRIMARY KEY, note text)")
    sql.execute("INSERT INTO large SELECT i, repeat('n', 1000) FROM generate_series(1, 15000) i")
    sql.execute("VACUUM ANALYZE large")
    lake = LocalLake("duckdb", tmp_path)
    pipeline = Pipeline(
        database,
        lake,
        SOURCES__PG_REPLICATION__SNAPSHOT_READER="spark",
        SPARK_REMOTE=spark.remote,
    )

    def run(how: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PART_BY_PART, how]
        return subprocess.run(
            command, env=pipeline.environment, cwd=tmp_path, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    assert run("killed").returncode == -signal.SIGKILL
    sql.execute("DELETE FROM large WHERE id = 14999")
    sql.execute("UPDATE large SET note = 'later' WHERE id % 5000 = 0")
    again = run("whole")
    assert again.returncode == 0, again.stdout
    assert "of the 2 page ranges read before are unchanged" in again.stdout
    assert "cannot" not in again.stdout
    with psycopg.connect(database) as reading:
        assert_equal(reading, lake, ["large"])
    sql.execute("UPDATE large SET note = 'last' WHERE id % 100 = 0")
    pipeline.call("cdc")
    with psycopg.connect(database) as reading:
        assert_equal(reading, lake, ["large"])
