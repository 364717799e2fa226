"""Sessions of workers and of the snapshot are lost while Spark reads."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.session.connection import application_name
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot import page_ranges
from adapters.spark import jobs
from adapters.spark.snapshot_source import SparkSnapshotSource
from cdc_core.values.errors import (
    OperatorNeeded,
    SettingsError,
    SnapshotGone,
    SourceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from adapters.spark.snapshot_source import SparkSnapshot
    from cdc_core.ports.catalog import SourceTable
    from tests.integration.spark.conftest import Folders
    from tests.support.spark import Sessions

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("small_is_large")]

ROWS = 60_000


def fill(sql: psycopg.Connection) -> None:
    """Rows of a kilobyte, sixty megabytes of them."""
    sql.execute("CREATE TABLE large (id int PRIMARY KEY, note text)")
    rows = f"SELECT i, repeat('n', 1000) FROM generate_series(1, {ROWS}) i"
    sql.execute(f"INSERT INTO large {rows}".encode())


@pytest.fixture
def large(sql: psycopg.Connection, catalog: PgCatalog) -> SourceTable:
    fill(sql)
    (table,) = catalog.publish()
    return table


def ids(written: tuple[pa.Table, pa.Table] | None) -> list[int]:
    assert written is not None
    return sorted(written[0].column("id").to_pylist())


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
        # The server may be restarted.
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(self._database, autocommit=True) as sql,
        ):
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
    large: SourceTable,
    database: str,
    sql: psycopg.Connection,
    folders: Folders,
    strike: Callable[..., Any],
) -> None:
    """And many rows were written already by the task that Spark runs again."""
    with begin(2) as snapshot, Watch(database, strike) as watch:
        sql.execute("DELETE FROM large WHERE id % 7 = 0; UPDATE large SET note = '' WHERE id < 9")
        assert ids(folders.write(snapshot, large)) == [*range(1, ROWS + 1)]
    assert watch.struck
    assert 1 <= watch.most <= 2


def test_more_ranges_than_connections(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: SourceTable,
    database: str,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_ranges, "STATEMENT_PAGES", 300)
    with begin(2) as snapshot, Watch(database, nothing) as watch:
        found = [ids(folders.write(snapshot, large, part)) for part in ("0-3000", "3000-")]
    assert sorted(found[0] + found[1]) == [*range(1, ROWS + 1)]
    assert all(found)
    assert 1 <= watch.most <= 2


def test_a_task_may_run_twice_with_speculation(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: SourceTable,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So half as many tasks have as many sessions."""
    monkeypatch.setattr(jobs, "_speculates", lambda _: True)
    with begin(3) as snapshot:
        assert ids(folders.write(snapshot, large)) == [*range(1, ROWS + 1)]
        assert snapshot._jobs is not None
        assert snapshot._jobs.tasks == 1
    with begin(1) as snapshot, pytest.raises(SettingsError, match="may need two sessions"):
        folders.write(snapshot, large)


def test_the_exporting_session_and_a_guard_are_lost(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: SourceTable,
    database: str,
    folders: Folders,
) -> None:
    with begin(2) as snapshot:
        guard = next(iter(snapshot.guards._guards)).info.backend_pid

        def strike(sql: psycopg.Connection, server: int, client: int) -> None:
            os.kill(client, signal.SIGKILL)
            sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND (backend_type = 'walsender' OR pid = %s)",
                [guard],
            )

        with Watch(database, strike) as watch:
            assert ids(folders.write(snapshot, large)) == [*range(1, ROWS + 1)]
        assert watch.struck
        assert watch.most <= 2


def test_all_sessions_that_held_the_snapshot_are_lost(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: SourceTable,
    folders: Folders,
    database: str,
) -> None:
    """Neither Spark's attempts nor the driver's own reading can help."""

    def strike(sql: psycopg.Connection, server: int, client: int) -> None:
        sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    with begin(2) as snapshot, Watch(database, strike) as watch, pytest.raises(SnapshotGone):
        folders.write(snapshot, large)
    assert watch.struck


def test_workers_that_cannot_reach_postgresql(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: SourceTable,
    database: str,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The driver reads, and a warning gives the reason."""
    elsewhere = psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port="1")
    monkeypatch.setattr(jobs, "make_conninfo", lambda **_: elsewhere)
    with begin(2) as snapshot, Watch(database, nothing) as watch:
        assert folders.write(snapshot, large) is None
        assert folders.write(snapshot, large) is None
    (warning,) = [one for one in caplog.messages if "workers cannot read" in one]
    assert "PostgreSQL cannot be reached" in warning
    assert "Connection refused" in warning
    assert watch.most == 0


def test_workers_that_do_not_share_a_folder(
    begin: Callable[[int], AbstractContextManager[SparkSnapshot]],
    large: SourceTable,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As on another machine: what they wrote is not there."""
    monkeypatch.setattr(jobs, "Path", lambda place: Path("/elsewhere") / place[1:])
    with begin(2) as snapshot:
        assert folders.write(snapshot, large) is None
    (warning,) = [one for one in caplog.messages if "workers cannot read" in one]
    assert "do not share a folder" in warning


def test_spark_ends_in_the_middle(
    spark: Sessions,
    settings: SourceSettings,
    large: SourceTable,
    database: str,
    folders: Folders,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The driver reads the page range."""
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    session = ConnectSession.builder.remote(spark.remote).create()
    source = SparkSnapshotSource(settings, 2, lambda: session)
    with (
        source.begin(create_slot=False) as snapshot,
        Watch(database, lambda *_: session.stop()) as watch,
    ):
        assert folders.write(snapshot, large) is None
    assert watch.struck
    assert any("Spark cannot go on" in one for one in caplog.messages)


def test_a_missing_privilege_is_the_error_of_any_reader(
    spark: Sessions,
    settings: SourceSettings,
    large: SourceTable,
    sql: psycopg.Connection,
    folders: Folders,
) -> None:
    role = f"reader_{sql.info.dbname}"
    sql.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'x'".encode())
    dsn = psycopg.conninfo.make_conninfo(settings.conninfo, user=role, password="x")
    source = SparkSnapshotSource(SourceSettings(dsn), 2, lambda: spark.connect)
    try:
        with source.begin(create_slot=False) as snapshot, pytest.raises(OperatorNeeded) as denied:
            folders.write(snapshot, large)
    finally:
        sql.execute(f"DROP ROLE {role}".encode())
    assert denied.value.cure == f'run: GRANT SELECT ON "public"."large" TO "{role}"'


def test_postgresql_restarts_in_the_middle(spark: Sessions, folders: Folders) -> None:
    """The snapshot is gone, which the next run is told; no worker waits for it."""
    with EmbeddedPostgres() as server:
        settings = SourceSettings(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as sql:
            fill(sql)
        with closing(PgCatalog(settings)) as catalog:
            (table,) = catalog.publish()
        source = SparkSnapshotSource(settings, 2, lambda: spark.connect)
        with (
            pytest.raises(SourceUnavailable),
            source.begin(create_slot=False) as snapshot,
            Watch(server.dsn, lambda *_: server.restart("immediate")) as watch,
        ):
            folders.write(snapshot, table)
        assert watch.struck
        with source.begin(create_slot=False) as snapshot:
            assert ids(folders.write(snapshot, table)) == [*range(1, ROWS + 1)]
