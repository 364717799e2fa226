from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.monitor import PgSourceMonitor
from adapters.pgoutput.session.arrow_session import ArrowSession
from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from cdc_core.values.errors import (
    CdcError,
    ContinuityLost,
    OperatorNeeded,
    SettingsError,
    SourceUnavailable,
)
from tests.integration.pgoutput.test_catalog import major, take_snapshot
from tests.support.changes import events
from tests.support.postgres import BIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.catalog.catalog import PgCatalog

ODD_DEFAULTS = {
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-9",
    "client_encoding": "LATIN1",
    "search_path": "nowhere",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "300ms",
    "idle_in_transaction_session_timeout": "100ms",
    "lock_timeout": "1ms",
    "client_min_messages": "debug5",
    "xmlbinary": "hex",
    "quote_all_identifiers": "on",
    "synchronous_commit": "off",
    "row_security": "on",
}


@pytest.fixture
def major_version(sql: psycopg.Connection) -> int:
    return major(sql)


@pytest.fixture
def plain(
    settings: SourceSettings, sql: psycopg.Connection, database: str
) -> Iterator[SourceSettings]:
    """Settings of a role that is no superuser and may replicate."""
    role = "plain_" + database.rpartition("_")[2]
    sql.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'x'".encode())
    parts = urlsplit(database)
    netloc = f"{role}:x@{parts.hostname}:{parts.port}"
    yield replace(settings, conninfo=changed(database, netloc=netloc))
    sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_values_do_not_depend_on_the_servers_defaults(
    settings: SourceSettings, catalog: PgCatalog, sql: psycopg.Connection, database: str
) -> None:
    name = database.rpartition("/")[2]
    newer = {"transaction_timeout": "300ms"} if major(sql) >= 17 else {}
    for option, value in {**ODD_DEFAULTS, **newer}.items():
        sql.execute(f"ALTER DATABASE \"{name}\" SET {option} = '{value}'")
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, tz timestamptz, tt timetz, i interval, y bytea,"
        " f float8, r real, s text, rc regclass, d date[])"
    )
    values = (
        "'2020-02-03 04:05:06.7+00', '04:05+02', '-1 day 2 hours', '\\xff00', 0.1::float8 + 0.2,"
        " 1e-7::real / 3, 'é€😀', 'public.t', '{2020-02-03}'"
    )
    sql.execute(f"INSERT INTO t VALUES (1, {values})")
    (table,) = catalog.publish()
    with PgChangeSource(settings) as source:
        with PgSnapshotSource(settings).begin(create_slot=True) as snapshot:
            sql.execute("SELECT pg_sleep(0.3)")
            (piece,) = snapshot.read(table.relation)
        (read,) = piece.rows.to_pylist()
        sql.execute(f"INSERT INTO t VALUES (2, {values})")
        bulk = events(source.read(snapshot.lsn, source.current_lsn(), {table.relation.oid}))
        position = source.current_lsn()
        list(source.read(position, position, {table.relation.oid}))
        sql.execute(f"INSERT INTO t VALUES (3, {values})")
        streamed = events(source.read(position, source.current_lsn(), {table.relation.oid}))
    ((_, _, by_bulk),) = bulk
    ((_, _, by_stream),) = streamed
    assert str(read.pop("tz")) == "2020-02-03 04:05:06.700000+00:00"
    assert by_bulk.pop("tz") == by_stream.pop("tz")
    expected = {
        "tt": "04:05:00+02",
        "i": "-1 days +02:00:00",
        "y": b"\xff\x00",
        "f": 0.30000000000000004,
        "s": "é€😀",
        "rc": "t",
        "d": '["2020-02-03"]',
    }
    for row, key in ((read, 1), (by_bulk, 2), (by_stream, 3)):
        assert row.pop("id") == key
        assert row.pop("r") == pytest.approx(1e-7 / 3, rel=1e-7)
        assert row == expected


@pytest.mark.parametrize(
    "options",
    ["-csearch_path", "garbage", "--x", "-c no_such=1", "-c 1x.y=1", "-c statement_timeout=soon",
     "-c wal_level=logical", "-c log_statement=all", "-z"],
)  # fmt: skip
def test_options_that_the_server_refuses(
    plain: SourceSettings, options: str, major_version: int
) -> None:
    given = replace(plain, conninfo=f"{plain.conninfo}?options={quote(options)}")
    for open_session in (
        lambda: connect(given),
        lambda: connect(given, replication=True),
        lambda: ArrowSession(given, major_version),
    ):
        with pytest.raises(SettingsError, match=r"correct options in sources\.pg_replication"):
            open_session()


def test_options_that_are_given_hold_beside_ours(settings: SourceSettings) -> None:
    options = "-c work_mem=5MB -c DateStyle=German -c search_path=a\\"
    given = replace(settings, conninfo=f"{settings.conninfo}?options={quote(options)}")
    with connect(given) as connection:
        query = "SELECT current_setting('work_mem'), current_setting('DateStyle')"
        assert connection.execute(query).fetchone() == ("5MB", "ISO, YMD")


def test_options_of_the_environment_hold_too(
    settings: SourceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB")
    monkeypatch.setenv("PGTZ", "Asia/Kolkata")
    with connect(settings) as connection:
        query = "SELECT current_setting('work_mem'), current_setting('TimeZone')"
        assert connection.execute(query).fetchone() == ("5MB", "UTC")


def test_messages_of_the_server_do_not_reach_standard_error(
    plain: SourceSettings,
    sql: psycopg.Connection,
    major_version: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    role = urlsplit(plain.conninfo).username
    for level in ("debug5", "log", "notice"):
        sql.execute(f"ALTER ROLE {role} SET client_min_messages = {level}".encode())
        with connect(plain) as connection:
            connection.execute("DO $$BEGIN RAISE NOTICE 'a note'; RAISE LOG 'a line'; END$$")
        session = ArrowSession(plain, major_version)
        session.execute("DO $$BEGIN RAISE NOTICE 'a note'; RAISE WARNING 'a warning'; END$$")
        session.close()
        connect(plain, replication=True).close()
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def test_a_connection_limit_has_words_of_its_own(
    plain: SourceSettings, sql: psycopg.Connection, major_version: int
) -> None:
    role, database = urlsplit(plain.conninfo).username, sql.info.dbname
    limits = [
        f'ALTER ROLE "{role}" CONNECTION LIMIT',
        f'ALTER DATABASE "{database}" CONNECTION LIMIT',
    ]
    with connect(plain):
        for limit in limits:
            sql.execute(f"{limit} 1".encode())
            for open_session in (
                lambda: connect(plain),
                lambda: ArrowSession(plain, major_version),
            ):
                with pytest.raises(SourceUnavailable, match="no connection is free") as told:
                    open_session()
                assert limit in told.value.cure
            sql.execute(f"{limit} -1".encode())


def test_pg_hba_has_words_of_its_own() -> None:
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN)) as server:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("CREATE ROLE rejected LOGIN PASSWORD 'x'")
            admin.execute("CREATE ROLE unknown LOGIN PASSWORD 'x'")
            (server.data_dir / "pg_hba.conf").write_text(
                "host all rejected all reject\nhost all postgres all scram-sha-256\n"
            )
            admin.execute("SELECT pg_reload_conf()")
            admin.execute("SELECT pg_sleep(0.5)")
        for role in ("rejected", "unknown"):
            dsn = server.database_dsn("postgres", role, "x")
            with pytest.raises(SettingsError, match="does not allow this connection") as told:
                connect(SourceSettings(dsn))
            assert "a line for this role" in told.value.cure
        with pytest.raises(SettingsError, match="password authentication failed") as told:
            connect(SourceSettings(server.database_dsn("postgres", "postgres", "wrong")))
        assert "pg_hba" not in str(told.value)


@pytest.mark.parametrize("level", ["NOTICE", "WARNING", "LOG"])
def test_a_login_trigger_that_talks(
    plain: SourceSettings,
    sql: psycopg.Connection,
    major_version: int,
    capfd: pytest.CaptureFixture[str],
    level: str,
) -> None:
    if major_version < 17:
        pytest.skip("login triggers came with PostgreSQL 17")
    sql.execute(
        "CREATE FUNCTION greet() RETURNS event_trigger LANGUAGE plpgsql AS"
        f" $$BEGIN RAISE {level} 'welcome'; END$$; ALTER FUNCTION greet() OWNER TO CURRENT_USER;"
        "CREATE EVENT TRIGGER greet ON login EXECUTE FUNCTION greet();"
        "ALTER EVENT TRIGGER greet ENABLE ALWAYS".encode()
    )
    connect(plain).close()
    ArrowSession(plain, major_version).close()
    sql.execute("DROP EVENT TRIGGER greet")
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def test_hosts_to_choose_from(settings: SourceSettings, major_version: int) -> None:
    parts = urlsplit(settings.conninfo)
    account = parts.netloc.rpartition("@")[0]
    several = f"{account}@127.0.0.1:1,127.0.0.1:{parts.port}"
    given = replace(settings, conninfo=changed(settings.conninfo, netloc=several))
    primary = replace(given, conninfo=f"{given.conninfo}?target_session_attrs=primary")
    for found in (given, primary):
        with connect(found) as connection:
            assert connection.info.port == parts.port
        ArrowSession(found, major_version).close()
    standby = replace(given, conninfo=f"{given.conninfo}?target_session_attrs=standby")
    for open_session in (lambda: connect(standby), lambda: ArrowSession(standby, major_version)):
        with pytest.raises(SourceUnavailable, match="target_session_attrs"):
            open_session()


def changed(dsn: str, *, netloc: str = "", path: str = "") -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=netloc or parts.netloc, path=path or parts.path))


@pytest.mark.parametrize("replication", [False, True])
def test_refused_connections(
    settings: SourceSettings, database: str, sql: psycopg.Connection, replication: bool
) -> None:
    parts = urlsplit(database)
    where = f"{parts.hostname}:{parts.port}"
    secret = "p@ss/w%rd"
    cases: list[tuple[str, type[CdcError]]] = [
        (
            changed(database, netloc=f"{parts.username}:{quote(secret, safe='')}@{where}"),
            SettingsError,
        ),
        (changed(database, netloc=f"nobody_here:{quote(secret, safe='')}@{where}"), SettingsError),
        (changed(database, path="/no_such_database"), SettingsError),
        (changed(database, netloc=f"u:{quote(secret, safe='')}@127.0.0.1:1"), SourceUnavailable),
        (f"postgresql://u:{secret}@[::1", SettingsError),
        (f"host=127.0.0.1 password={secret} nonsense", SettingsError),
        (database + "?sslmode=verify-full&sslrootcert=/nowhere", SettingsError),
    ]
    for dsn, kind in cases:
        with pytest.raises(kind) as told:
            connect(replace(settings, conninfo=dsn), replication=replication)
        error: BaseException | None = told.value
        assert "\n" not in str(error)
        while error is not None:
            for password in (secret, quote(secret, safe=""), str(parts.password)):
                assert password not in str(error)
            error = error.__cause__


def test_a_role_without_replication_gets_an_error(
    settings: SourceSettings, sql: psycopg.Connection, database: str
) -> None:
    role = "plain_" + database.rpartition("_")[2]
    sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    parts = urlsplit(database)
    plain = replace(
        settings, conninfo=changed(database, netloc=f"{role}:x@{parts.hostname}:{parts.port}")
    )
    with pytest.raises(OperatorNeeded, match="ALTER ROLE"):
        take_snapshot(plain, create_slot=True)
    with PgChangeSource(plain) as source, pytest.raises(OperatorNeeded, match="ALTER ROLE"):
        source.create_slot()
    sql.execute(f'REVOKE CONNECT ON DATABASE "{database.rpartition("/")[2]}" FROM PUBLIC')
    with pytest.raises(OperatorNeeded, match="GRANT CONNECT"):
        connect(plain)
    sql.execute(f"DROP ROLE {role}")


def test_a_data_error_contains_no_value(sql: psycopg.Connection) -> None:
    with pytest.raises(CdcError) as told, source_errors("testing"):
        sql.execute("SELECT 'a secret value'::int")
    assert "secret" not in str(told.value)
    assert "22P02" in str(told.value)


def test_the_monitor_takes_no_lock(settings: SourceSettings) -> None:
    with PgSourceMonitor(settings) as monitor, PgChangeSource(settings) as source:
        assert monitor.slot() is None
        start = source.create_slot()
        slot = monitor.slot()
        assert slot is not None
        assert slot.confirmed_flush_lsn == start
        assert not slot.lost
        assert monitor.identity() == source.identity()
        assert monitor.current_lsn() >= start
        assert monitor.now() > 1_600_000_000_000_000


def test_a_server_that_lacks_something() -> None:
    """What needs a server of its own: WAL level, free slots, a slot whose WAL is gone."""
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings={"wal_level": "replica"}) as server:
        settings = SourceSettings(server.dsn)
        low = pytest.raises(OperatorNeeded, match=r"wal_level is replica.*ALTER SYSTEM SET")
        with PgChangeSource(settings) as source, low:
            source.create_slot()
        with pytest.raises(OperatorNeeded, match="wal_level"):
            take_snapshot(settings, create_slot=True)
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM RESET ALL")
            admin.execute("ALTER SYSTEM SET wal_level = logical")
            admin.execute("ALTER SYSTEM SET max_replication_slots = 1")
            admin.execute("ALTER SYSTEM SET max_wal_size = '32MB'")
            admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        server.restart()
        with PgChangeSource(settings) as source:
            start = source.create_slot()
            with pytest.raises(OperatorNeeded, match="exists already"):
                source.create_slot()
            with pytest.raises(OperatorNeeded, match="max_replication_slots"):
                take_snapshot(settings)
            with psycopg.connect(server.dsn, autocommit=True) as admin:
                admin.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
                for _ in range(6):
                    admin.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i")
                    admin.execute("TRUNCATE t; SELECT pg_switch_wal()")
                admin.execute("CHECKPOINT")
            slot = source.slot()
            assert slot is not None
            assert slot.lost
            with pytest.raises(ContinuityLost, match=r"is lost.*max_slot_wal_keep_size"):
                list(source.read(start, source.current_lsn(), set()))
        server.restart("immediate")
        server.kill()
        with pytest.raises(SourceUnavailable, match="cannot be reached"):
            connect(settings)
        server.start()
        connect(settings).close()
        assert str(server.port) in server.dsn
    assert not server.data_dir.exists()


def test_a_slot_with_two_phase_is_not_read(
    settings: SourceSettings, sql: psycopg.Connection
) -> None:
    sql.execute(
        "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, true)",
        [settings.slot_name],
    )
    with PgChangeSource(settings) as source:
        now = source.current_lsn()
        with pytest.raises(OperatorNeeded, match="has two_phase"):
            list(source.read(now, now, set()))
        source.drop_slot()


def test_slots_of_standby_sync(settings: SourceSettings, sql: psycopg.Connection) -> None:
    failover = replace(settings, failover=True)
    with PgChangeSource(failover) as source:
        source.create_slot()
        if major(sql) >= 17:
            query = "SELECT failover FROM pg_replication_slots WHERE slot_name = %s"
            assert sql.execute(query, [settings.slot_name]).fetchone() == (True,)
        source.drop_slot()
        with PgSnapshotSource(failover).begin(create_slot=True):
            if major(sql) >= 17:
                assert sql.execute(query, [settings.slot_name]).fetchone() == (True,)
