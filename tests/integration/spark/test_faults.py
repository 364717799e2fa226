"""Sessions of workers and of the snapshot are lost while Spark reads."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from adapters.pgoutput.session.connection import application_name
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot import page_ranges
from adapters.spark import jobs
from adapters.spark.snapshot_source import SparkSnapshotSource
from cdc_core.values.errors import OperatorNeeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from adapters.pgoutput.catalog.catalog import PgCatalog
    from adapters.spark.snapshot_source import SparkSnapshot
    from cdc_core.values.relation import Relation
    from tests.support.spark import Sessions

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("small_is_large")]

ROWS = 60_000


@pytest.fixture
def large(sql: psycopg.Connection, catalog: PgCatalog) -> Relation:
    """Rows of a kilobyte, sixty megabytes of them."""
    sql.execute("CREATE TABLE large (id int PRIMARY KEY, note text)")
    rows = f"SELECT i, repeat('n', 1000) FROM generate_series(1, {ROWS}) i"
    sql.execute(f"INSERT INTO large {rows}".encode())
    (table,) = catalog.publish()
    return table.relation


def ids(chunks: Iterable[Any]) -> list[int]:
    return sorted(number for chunk in chunks for number in chunk.rows.column("id").to_pylist())


class Watch:
    """Counts the sessions of workers while a block runs. `strike` gets the server process and the
    client process of the first that reads rows."""

    def __init__(
        self, database: str, strike: Callable[[psycopg.Connection, int, int], Any]
    ) -> None:
        self._database, self._strike = database, strike
        self.struck = False
        self.most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        with psycopg.connect(self._database, autocommit=True) as sql:
            while not self._ended.wait(0.005):
                rows: Any = sql.execute(
                    "SELECT pid, application_name, query LIKE '%%COPY%%' FROM pg_stat_activity "
                    "WHERE datname = current_database() "
                    "AND application_name LIKE 'pgbronze/%%' AND application_name <> %s",
                    [application_name()],
                ).fetchall()
                self.most = max(self.most, len(rows))
                for pid, name, reads in rows:
                    if reads and not self.struck:
                        self.struck = True
                        self._strike(sql, pid, int(name.rpartition("/")[2]))


def nothing(sql: psycopg.Connection, server: int, client: int) -> None:
    pass


def end_session(sql: psycopg.Connection, server: int, client: int) -> None:
    sql.execute("SELECT pg_terminate_backend(%s)", [server])


def kill_worker(sql: psycopg.Connection, server: int, client: int) -> None:
    os.kill(client, signal.SIGKILL)


@pytest.fixture
def begin(
    spark: Sessions, settings: SourceSettings
) -> Callable[[int], AbstractContextManager[SparkSnapshot]]:
    return lambda connections: SparkSnapshotSource(
        settings, connections, lambda: spark.connect
    ).begin(create_slot=False)


@pytest.mark.parametrize("strike", [nothing, end_session, kill_worker])
def test_each_row_comes_once(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: Relation,
    database: str,
    sql: psycopg.Connection,
    strike: Callable[..., Any],
) -> None:
    with begin(2) as snapshot, Watch(database, strike) as watch:
        sql.execute("DELETE FROM large WHERE id % 7 = 0; UPDATE large SET note = '' WHERE id < 9")
        assert ids(snapshot.read(large)) == [*range(1, ROWS + 1)]
    assert watch.struck
    assert 1 <= watch.most <= 2


def test_more_ranges_than_connections(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: Relation,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks return before their range ends, and the next job continues there."""
    monkeypatch.setattr(jobs, "JOB_BYTES", 8 << 20)
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 900)
    with begin(2) as snapshot, Watch(database, nothing) as watch:
        snapshot.expect([(large, "0-3000"), (large, "3000-")])
        found = [ids(snapshot.read(large, part)) for part in ("0-3000", "3000-")]
        assert sorted(found[0] + found[1]) == [*range(1, ROWS + 1)]
        assert all(found)
        assert ids(snapshot.read(large, "3000-")) == found[1]
    assert 1 <= watch.most <= 2


def test_the_exporting_session_and_a_guard_are_lost(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: Relation,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "JOB_BYTES", 8 << 20)
    with begin(2) as snapshot:
        chunks = iter(snapshot.read(large))
        found = [next(chunks)]
        guard = next(iter(snapshot.guards._guards)).info.backend_pid
        sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND (backend_type = 'walsender' OR pid = %s)",
            [guard],
        )
        found += chunks
    assert ids(found) == [*range(1, ROWS + 1)]


def test_workers_that_cannot_reach_postgresql(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: Relation,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The driver reads, and a warning gives the reason."""
    elsewhere = psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port="1")
    monkeypatch.setattr(jobs, "make_conninfo", lambda **_: elsewhere)
    with begin(2) as snapshot, Watch(database, nothing) as watch:
        assert ids(snapshot.read(large)) == [*range(1, ROWS + 1)]
    (warning,) = [one for one in caplog.messages if "workers cannot read" in one]
    assert "PostgreSQL cannot be reached" in warning
    assert "Connection refused" in warning
    assert watch.most == 0


def test_spark_ends_in_the_middle(
    spark: Sessions,
    settings: SourceSettings,
    large: Relation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The driver reads the rest."""
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    monkeypatch.setattr(jobs, "JOB_BYTES", 8 << 20)
    session = ConnectSession.builder.remote(spark.remote).create()
    with SparkSnapshotSource(settings, 2, lambda: session).begin(create_slot=False) as snapshot:
        chunks = iter(snapshot.read(large))
        found = [next(chunks)]
        session.stop()
        found += chunks
    assert ids(found) == [*range(1, ROWS + 1)]
    assert any("Spark cannot go on" in one for one in caplog.messages)


def test_a_missing_privilege_is_the_error_of_any_reader(
    spark: Sessions, settings: SourceSettings, large: Relation, sql: psycopg.Connection
) -> None:
    role = f"reader_{sql.info.dbname}"
    sql.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'x'".encode())
    dsn = psycopg.conninfo.make_conninfo(settings.conninfo, user=role, password="x")
    source = SparkSnapshotSource(SourceSettings(dsn), 2, lambda: spark.connect)
    try:
        with source.begin(create_slot=False) as snapshot, pytest.raises(OperatorNeeded) as denied:
            list(snapshot.read(large))
    finally:
        sql.execute(f"DROP ROLE {role}".encode())
    assert denied.value.cure == f'run: GRANT SELECT ON "public"."large" TO "{role}"'
