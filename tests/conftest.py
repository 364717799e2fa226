"""The PostgreSQL server that tests share, started when asked for, and a fresh database for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.postgres import Server, server_kind, test_server

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"PostgreSQL of the tests: {server_kind()}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with test_server() as server:
        yield server


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """The superuser's DSN of a new, empty database."""
    with postgres.database() as dsn:
        yield dsn


@pytest.fixture
def sql(database: str) -> Iterator[psycopg.Connection]:
    """The application's connection to the database, in autocommit."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection
