"""What all tests share: the PostgreSQL server, started when asked for, and a database for each;
properties without limits of time, which would tell of the machine and not of the code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from tests.support import chromium, container_engine, memory_folder, pgbouncer
from tests.support import spark as spark_support
from tests.support.postgres import Server, server_kind, test_server
from tests.support.spark_engine import ENGINE

if TYPE_CHECKING:
    from collections.abc import Iterator

# Before anything asks for a temporary folder.
memory_folder.use()

# Without bytecode files every command that a test starts would compile all modules again, for three
# seconds each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Java lives for a minute here: its second compiler would cost more than it saves.
for _name in ("SPARK_SUBMIT_OPTS", "SPARK_LAUNCHER_OPTS"):
    os.environ.setdefault(_name, "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

# The same examples each time; others by `--hypothesis-profile=search`.
settings.register_profile(
    "project", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("search", settings.get_profile("project"), derandomize=False)
settings.load_profile("project")


#: Enough for each kind of statement; the proof takes 10,000 of them.
HISTORY_TRANSACTIONS = 80


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--history-transactions",
        type=int,
        default=HISTORY_TRANSACTIONS,
        help="random transactions of the test of history against triggers",
    )


class OneWorkerForSpark(LoadFileScheduling):
    """A file goes to one worker. So do all files of Spark, whose tests share one Java process."""

    def _split_scope(self, nodeid: str) -> str:
        spark = "tests/integration/spark/"
        return spark if nodeid.startswith(spark) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneWorkerForSpark | None:
    return OneWorkerForSpark(config, log) if config.option.dist == "loadfile" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"PostgreSQL of the tests: {server_kind()}")
    terminalreporter.write_line(f"Temporary files of the tests: {memory_folder.kind()}")
    terminalreporter.write_line(f"PgBouncer of the tests: {pgbouncer.kind()}")
    terminalreporter.write_line(f"Container engine of the tests: {container_engine.kind()}")
    terminalreporter.write_line(f"Chromium of the tests: {chromium.kind()}")
    java = spark_support.kind() or "no Java: tests with the mark `spark` are SKIPPED"
    terminalreporter.write_line(f"Java of the tests: {java}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--history-transactions") != HISTORY_TRANSACTIONS:
        for item in items:
            item.add_marker(pytest.mark.timeout(0))  # a proof takes as long as it takes
    for item in items:
        if ENGINE == "spark" and (mark := item.get_closest_marker("needs_warehouse")):
            item.add_marker(pytest.mark.skip(reason=f"the engine Spark differs: {mark.args[0]}"))
    marked = [item for item in items if item.get_closest_marker("spark")]
    if marked and not spark_support.kind():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="Spark needs Java, which is missing"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with test_server() as server:
        yield server


@pytest.fixture(scope="session")
def spark() -> Iterator[spark_support.Sessions]:
    """One Spark for all tests of this process; they need the mark `spark`."""
    with spark_support.running_spark() as sessions:
        yield sessions


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
