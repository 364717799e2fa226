"""The cluster behind a connection: which WAL it writes, and how far.

Manual: "System Administration Functions", "IDENTIFY_SYSTEM".
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.session.connection import Connection, connect
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.session.sql_text import quote
from cdc_core.check.source_rules import decodes
from cdc_core.values.checkpoint import SourceIdentity
from cdc_core.values.errors import OperatorNeeded, SourceUnavailable
from cdc_core.values.lsn import Lsn

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from adapters.pgoutput.session.settings import SourceSettings

_FLUSH_SECONDS = 30.0
#: `LOG_SNAPSHOT_INTERVAL_MS` of the background writer, the ten seconds that it may sleep in when
#: nothing is to be done, and a little more.
_NOTE_SECONDS = 26.0

#: The source's clock, microseconds since 1970-01-01 UTC; in a transaction, its beginning.
NOW = "SELECT (extract(epoch FROM now()) * 1000000)::bigint"

#: Every transaction that is numbered lower has ended.
HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"

#: As the names of WAL files have it, in hexadecimal; a standby writes none of its own.
_TIMELINE = """
CASE WHEN pg_is_in_recovery() THEN (SELECT to_hex(timeline_id) FROM pg_control_checkpoint())
ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END
"""

WAL_LEVEL_CURE = (
    "run: ALTER SYSTEM SET wal_level = logical, then restart PostgreSQL (RDS, Aurora: "
    "rds.logical_replication = 1; Cloud SQL: cloudsql.logical_decoding = on; Azure: wal_level = "
    "logical under server parameters; Neon: enable logical replication in the project's settings)"
)


def source_identity(connection: Connection, slot_name: str) -> SourceIdentity:
    """Which WAL the LSNs of this source belong to."""
    role = quote(connection.info.user)
    cure = f"run: GRANT EXECUTE ON FUNCTION pg_control_system() TO {role}"
    with source_errors("reading the system identifier", cure, role):
        row: Any = connection.execute(
            f"SELECT system_identifier::text, current_database()::text, {_TIMELINE} "
            "FROM pg_control_system()"
        ).fetchone()
    return SourceIdentity(row[0], row[1], slot_name, int(row[2], 16))


def left_timeline(settings: SourceSettings, timeline: int) -> Lsn | None:
    """Where the server's history left a timeline; None if that is not behind it.

    Only a walsender tells. Manual: "TIMELINE_HISTORY".
    """
    with (
        connect(settings, replication=True) as connection,
        source_errors("reading the timeline's history"),
    ):
        now = _told(connection, "IDENTIFY_SYSTEM").get_value(0, 1) or b""
        if int(now) <= timeline:
            return None
        history = _told(connection, f"TIMELINE_HISTORY {int(now)}").get_value(0, 1) or b""
    for line in history.decode().splitlines():
        number, _, rest = line.partition("\t")
        if number.strip() == str(timeline):
            return Lsn.parse(rest.partition("\t")[0])
    return None


def _told(connection: Connection, command: str) -> PGresult:
    """A command of the replication protocol, which knows no parameters."""
    result = connection.pgconn.exec_(command.encode())
    if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
        raise psycopg.errors.error_from_result(result)
    return result


def require_logical_wal(connection: Connection) -> None:
    """Raise `OperatorNeeded` unless the WAL holds what logical decoding needs."""
    with source_errors("reading wal_level"):
        row: Any = connection.execute(
            "SELECT current_setting('wal_level'), current_setting('effective_wal_level', true), "
            "pg_is_in_recovery()"
        ).fetchone()
    level, effective, standby = row
    if not decodes(connection.info.server_version, level, effective, standby=standby):
        raise OperatorNeeded(
            f"wal_level is {level}, logical decoding needs logical", WAL_LEVEL_CURE
        )


def is_standby(connection: Connection) -> bool:
    row: Any = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return bool(row[0])


def readable_lsn(connection: Connection) -> Lsn:
    """The position up to which logical decoding reads now."""
    row: Any = connection.execute(
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
        "ELSE pg_current_wal_flush_lsn() END::text"
    ).fetchone()
    return Lsn.parse(row[0])


def current_lsn(connection: Connection) -> Lsn:
    """A readable position at or past every commit that returned before the call.

    A commit with `synchronous_commit = off` returns before its record is flushed, so what counts is
    the insert position; what is written up to there gets flushed by a commit of our own.
    """
    with source_errors("reading the WAL position"):
        if is_standby(connection):
            return readable_lsn(connection)
        row: Any = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        lsn = Lsn.parse(row[0])
        wait_until_readable(connection, lsn)
        return lsn


def wait_until_readable(connection: Connection, lsn: Lsn) -> None:
    """Return once logical decoding can read up to `lsn`; on a primary, flush up to there."""
    with source_errors("waiting for the WAL to be flushed"):
        if readable_lsn(connection) >= lsn:
            return
        if not is_standby(connection):
            _commit_something(connection)
        deadline = time.monotonic() + _FLUSH_SECONDS
        while readable_lsn(connection) < lsn:
            if time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"the WAL up to {lsn} is not to be read within {_FLUSH_SECONDS:.0f} s",
                    "check that the server still writes (or replays) WAL, then run again",
                )
            time.sleep(0.02)


def note_transactions(connection: Connection) -> None:
    """Log which transactions run, as the server's background writer does every 15 seconds."""
    with source_errors("noting which transactions run"):
        try:
            # Of PostgreSQL 16 and newer; for superusers, unless granted.
            connection.execute("SELECT pg_log_standby_snapshot()")
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InsufficientPrivilege):
            # It is logged only if something else was since.
            _commit_something(connection)
            time.sleep(_NOTE_SECONDS)


def _commit_something(connection: Connection) -> None:
    """A commit flushes all WAL before it; a transactional message is the least to commit."""
    try:
        connection.execute("SELECT pg_logical_emit_message(true, 'pgbronze', '')")
    except psycopg.errors.InsufficientPrivilege:
        return  # then the WAL writer flushes in its own time, within a second
