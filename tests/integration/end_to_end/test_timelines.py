"""A server restored from a copy, or promoted: followed where it has all that was loaded."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from cdc_core.values.errors import ContinuityLost
from tests.support import oracle
from tests.support.lakes import LocalLake
from tests.support.pipeline import Service
from tests.support.postgres import BIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN)) as running:
        yield running


def copy_data(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    for path in [target, *target.rglob("*")]:
        owner = (source / path.relative_to(target)).stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def promote(server: EmbeddedPostgres) -> None:
    """Have the stopped server end its recovery on a new timeline."""
    signal = server.data_dir / "recovery.signal"
    signal.touch()
    owner = server.data_dir.stat()
    os.chown(signal, owner.st_uid, owner.st_gid)
    with (server.data_dir / "postgresql.auto.conf").open("a") as conf:
        conf.write("restore_command = 'false'\nhot_standby = off\n")
    server.start()


def write(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_restored_copies_and_promoted_servers(server: EmbeddedPostgres, tmp_path: Path) -> None:
    lake = LocalLake("duckdb", tmp_path)
    service = Service(server.dsn, lake)
    insert = "INSERT INTO t SELECT max(id) + 1 FROM t"
    write(server, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    service.run("snapshot")
    copy = tmp_path / "copy"
    server.halt()
    copy_data(server.data_dir, copy)
    server.start()
    write(server, f"{insert}; INSERT INTO t SELECT generate_series(100, 2000)")
    service.run("cdc")

    server.halt()
    later = tmp_path / "later"
    copy_data(server.data_dir, later)
    copy_data(copy, server.data_dir)
    server.start()
    with pytest.raises(ContinuityLost, match=r"WAL ends at .* restored from a backup"):
        service.run("cdc")

    server.halt()
    copy_data(copy, server.data_dir)
    promote(server)
    write(server, f"{insert}; INSERT INTO t SELECT generate_series(3000, 9000)")
    with pytest.raises(ContinuityLost, match=r"timeline 1, the source is on 2 and left it at"):
        service.run("cdc")

    server.halt()
    copy_data(later, server.data_dir)
    promote(server)
    for _ in range(2):
        write(server, insert)
        service.run("cdc")
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            oracle.assert_equal(connection, lake, ["t"])
