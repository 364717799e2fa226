"""Staged files in a temporary folder whose name reads like a partition's."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import oracle
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["duckdb", "delta"])
def test_a_folder_is_no_partition(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "v=other"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    lake = LocalLake(kind, tmp_path)
    pipeline = InProcess(database, lake)
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
        sql.execute("CREATE TABLE heap (v text); ALTER TABLE heap REPLICA IDENTITY FULL")
        pipeline.run("snapshot")
        sql.execute("INSERT INTO t VALUES (2, 'b'); INSERT INTO heap VALUES ('c')")
        pipeline.run("cdc")
        oracle.assert_equal(sql, lake, ["t", "heap"])
