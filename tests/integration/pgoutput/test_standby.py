"""Reading from a standby: what the primary commits comes from the standby's slot."""

from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from cdc_core.values.errors import OperatorNeeded
from tests.integration.pgoutput.test_catalog import major
from tests.support import oracle
from tests.support.changes import events
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess, Service
from tests.support.postgres import BIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def primary() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN)) as server:
        yield server


@pytest.fixture
def standby(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A copy of the stopped primary that goes on as its standby."""
    server = EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings={"hot_standby_feedback": "on"})
    with server:
        server.halt()
        with psycopg.connect(primary.dsn, autocommit=True) as connection:
            if major(connection) < 16:
                pytest.skip("logical decoding on a standby needs PostgreSQL 16")
            connection.execute("SELECT pg_create_physical_replication_slot('standby', true)")
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
            connection.execute("INSERT INTO t VALUES (1, 'a')")
        primary.halt()
        configuration = (server.data_dir / "postgresql.conf").read_text()
        shutil.rmtree(server.data_dir)
        _copy_as_owned(primary.data_dir, server.data_dir)
        primary.start()
        conninfo = f"host=127.0.0.1 port={primary.port} user=postgres password={primary.password}"
        conninfo += " dbname=postgres"
        (server.data_dir / "postgresql.conf").write_text(
            f"{configuration}\nprimary_conninfo = '{conninfo}'\nprimary_slot_name = 'standby'\n"
        )
        (server.data_dir / "standby.signal").touch()
        server.password = primary.password
        server.start()
        yield server


def _copy_as_owned(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=shutil.copy2, ignore=_passing)
    for path in [target, *target.rglob("*")]:
        owner = (source / path.relative_to(target)).stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _passing(_folder: str, names: list[str]) -> set[str]:
    return {"postmaster.pid", "postmaster.opts"} & set(names)


def test_snapshot_and_changes(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    settings = SourceSettings(standby.dsn)
    catalog = PgCatalog(settings)
    with psycopg.connect(primary.dsn, autocommit=True) as sql:
        with pytest.raises(OperatorNeeded, match="CREATE PUBLICATION") as told:
            catalog.publish()
        sql.execute(told.value.cure.partition(": ")[2].encode())
        _replayed(sql, standby)
        (table,) = catalog.publish()
        catalog.close()
        assert table.published
        done = threading.Event()
        # A standby's slot is created once the primary has told which transactions run.
        help_it = threading.Thread(target=_tell_running_transactions, args=(primary.dsn, done))
        help_it.start()
        try:
            with PgChangeSource(settings) as source:
                with PgSnapshotSource(settings).begin(create_slot=True) as snapshot:
                    rows = [p.rows.to_pylist() for p in snapshot.read(table.relation)]
                assert rows == [[{"id": 1, "v": "a"}]]
                position = snapshot.lsn
                for i in range(2, 5):
                    sql.execute("INSERT INTO t VALUES (%s)", [i])
                    _replayed(sql, standby)
                    batches = list(
                        source.read(position, source.current_lsn(), {table.relation.oid})
                    )
                    assert [row["id"] for _, _, row in events(batches)] == [i]
                    position = batches[-1].end_lsn
                    source.confirm(position)
                source.drop_slot()
        finally:
            done.set()
            help_it.join()


def test_what_only_the_primary_can_do_is_said_once(
    primary: EmbeddedPostgres, standby: EmbeddedPostgres, tmp_path: Path
) -> None:
    lake = LocalLake("duckdb", tmp_path)
    pipeline = InProcess(standby.dsn, lake)
    with psycopg.connect(primary.dsn, autocommit=True) as sql:
        # Every statement on a standby fails by this, unless a session has its own.
        sql.execute("ALTER DATABASE postgres SET default_transaction_isolation = serializable")
        sql.execute("CREATE ROLE apart; CREATE TABLE u (id int PRIMARY KEY)")
        sql.execute("ALTER TABLE u OWNER TO apart")
        _replayed(sql, standby)
        lines = [" ".join(line.split()) for line in pipeline.run("check", code=3).splitlines()]
        told = " ".join(lines)
        statement = (
            'CREATE PUBLICATION "dlt_cdc_pub" FOR TABLE ONLY "public"."t", ONLY "public"."u"'
        )
        assert [line.split(":")[0] for line in lines if line.startswith("fail")] == [
            "fail publication dlt_cdc_pub"
        ]
        assert f"run on the primary, as the tables' owner: {statement}" in told
        refused = " ".join(pipeline.run("snapshot", code=3).split())
        assert f"run on the primary, as the tables' owner: {statement}" in refused
        sql.execute(refused.partition("owner: ")[2].encode())
        sql.execute("CREATE TABLE late (id int PRIMARY KEY)")
        _replayed(sql, standby)
        told = " ".join(pipeline.run("check").split())
        assert "a standby cannot add tables to it" in told
        assert "(the owner of both may, on the primary)" in told


def _replayed(sql: psycopg.Connection, standby: EmbeddedPostgres) -> None:
    position = sql.execute("SELECT pg_current_wal_lsn()").fetchone()
    assert position is not None
    options = "-c default_transaction_isolation=repeatable\\ read"
    with psycopg.connect(standby.dsn, autocommit=True, options=options) as connection:
        for _ in range(500):
            query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn, pg_sleep(0.02)"
            row = connection.execute(query, position).fetchone()
            assert row is not None
            if row[0]:
                return
    raise AssertionError("the standby does not follow")


def _tell_running_transactions(dsn: str, done: threading.Event) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not done.wait(0.2):
            connection.execute("SELECT pg_log_standby_snapshot()")


def test_a_promoted_standby_continues_with_the_synchronized_slot(
    primary: EmbeddedPostgres, standby: EmbeddedPostgres, tmp_path: Path
) -> None:
    """`failover = true`: the slot is on the standby, and it had all that was loaded."""
    lake = LocalLake("duckdb", tmp_path)
    failover = {"SOURCES__PG_REPLICATION__FAILOVER": "true"}
    with psycopg.connect(primary.dsn, autocommit=True) as sql:
        if major(sql) < 17:
            pytest.skip("slots are synchronised by PostgreSQL 17 and newer")
        Service(primary.dsn, lake, settings=failover).run("snapshot")
        sql.execute("INSERT INTO t VALUES (2, 'b')")
        with psycopg.connect(standby.dsn, autocommit=True) as other:
            other.execute("ALTER SYSTEM SET sync_replication_slots = on")
            other.execute("SELECT pg_reload_conf()")
            for _ in range(20):
                # The standby keeps the slot once it has moved past what is needed there.
                sql.execute("SELECT pg_log_standby_snapshot()")
                Service(primary.dsn, lake).run("cdc")
                other.execute("SELECT pg_sleep(0.5)")
                found = other.execute(
                    "SELECT FROM pg_replication_slots WHERE synced AND NOT temporary"
                )
                if found.rowcount:
                    break
        sql.execute("INSERT INTO t VALUES (3, 'c')")
        _replayed(sql, standby)
    primary.halt("immediate")
    with psycopg.connect(standby.dsn, autocommit=True) as sql:
        sql.execute("SELECT pg_promote()")
        sql.execute("INSERT INTO t VALUES (4, 'd')")
        Service(standby.dsn, lake).run("cdc")
        oracle.assert_equal(sql, lake, ["t"])
