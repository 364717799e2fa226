"""The real command line against a real server: a database, slot and folder for each test."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import duckdb
import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from entrypoints.cli.main import main
from entrypoints.output.log import redact
from tests.support.forked import Process
from tests.support.postgres import BIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Outcome:
    code: int
    out: str
    error: str

    @property
    def line(self) -> str:
        """The last line of standard error: the error's, if it failed."""
        return self.error.splitlines()[-1] if self.error else ""


@dataclass
class Shop:
    """A source database, a folder for the lake, and the environment that names both."""

    server: EmbeddedPostgres
    database: str
    folder: Path
    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def dsn(self) -> str:
        return self.server.database_dsn(self.database)

    @property
    def lake(self) -> Path:
        return self.folder / "lake.duckdb"

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def lake_sql(self, statement: str) -> list[tuple[object, ...]]:
        with duckdb.connect(str(self.lake), read_only=True) as connection:
            return connection.execute(statement).fetchall()

    def run(self, *arguments: str, code: int | None = 0, **environ: str) -> Outcome:
        """The command in this process, with DuckDB as destination."""
        with self.monkeypatch.context() as patch:
            for name, value in {**self.environ, **environ}.items():
                patch.setenv(name, value)
            self.capture.readouterr()
            found = main(arguments)
        captured = self.capture.readouterr()
        outcome = Outcome(found, captured.out, captured.err)
        assert code is None or found == code, captured.err
        return outcome

    def spawn(self, *arguments: str, **environ: str) -> Process:
        """The command as a process of its own, which has its imports behind it."""
        environment = {**os.environ, **self.environ, **environ}
        return Process(arguments, environment, self.folder, apart=True, session=False)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """As `spawn`, but with its own interpreter and all of its imports."""
        return subprocess.Popen(
            [sys.executable, "-m", "entrypoints.cli.main", *arguments],
            # A shell's background job, which the tests may be, ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            cwd=self.folder,
            env={**os.environ, **self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN)) as running:
        yield running


@pytest.fixture
def shop(
    server: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Shop]:
    name = f"shop_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    found = Shop(server, name, tmp_path, capfd, monkeypatch)
    found.environ = {
        "SOURCES__PG_REPLICATION__CREDENTIALS": found.dsn,
        "SOURCES__PG_REPLICATION__SLOT_NAME": name,
        "PIPELINE__DESTINATION": "duckdb",
        "DESTINATION__DUCKDB__CREDENTIALS": str(found.lake),
        "DESTINATION__FILESYSTEM__BUCKET_URL": str(tmp_path / "lakehouse"),
        "DLT_PROJECT_DIR": str(tmp_path),
    }
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    redact._secrets.clear()
    redact.add(())
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(
            b"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            b" WHERE slot_name = %s AND active_pid IS NULL",
            (name,),
        )
