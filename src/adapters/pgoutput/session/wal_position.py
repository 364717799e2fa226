"""The WAL of the cluster: its identity and its position.

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
#: `LOG_SNAPSHOT_INTERVAL_MS` of the background writer, plus the ten seconds that it sleeps when
#: idle, and a little more.
_NOTE_SECONDS = 26.0

#: The source's clock in microseconds since 1970-01-01 UTC. In a transaction: when it began.
NOW = "SELECT (extract(epoch FROM now()) * 1000000)::bigint"

#: All transactions with a lower number have ended.
HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"

#: In hexadecimal, as in the names of WAL files. A standby writes no WAL files of its own.
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
    """The identity of the WAL that the LSNs of this source belong to."""
    role = quote(connection.info.user)
    cure = f"run: GRANT EXECUTE ON FUNCTION pg_control_system() TO {role}"
    with source_errors("reading the system identifier", cure, role):
        row: Any = connection.execute(
            f"SELECT system_identifier::text, current_database()::text, {_TIMELINE} "
            "FROM pg_control_system()"
        ).fetchone()
    return SourceIdentity(row[0], row[1], slot_name, int(row[2], 16))


def left_timeline(settings: SourceSettings, timeline: int) -> Lsn | None:
    """The LSN where the server's history left a timeline; None if it has not.

    Only a walsender provides this. Manual: "TIMELINE_HISTORY".
    """
    with (
        connect(settings, replication=True) as connection,
        source_errors("reading the timeline's history"),
    ):
        now = _replication_command(connection, "IDENTIFY_SYSTEM").get_value(0, 1) or b""
        if int(now) <= timeline:
            return None
        history = (
            _replication_command(connection, f"TIMELINE_HISTORY {int(now)}").get_value(0, 1) or b""
        )
    for line in history.decode().splitlines():
        number, _, rest = line.partition("\t")
        if number.strip() == str(timeline):
            return Lsn.parse(rest.partition("\t")[0])
    return None


def _replication_command(connection: Connection, command: str) -> PGresult:
    """Run a command of the replication protocol, which has no parameters."""
    result = connection.pgconn.exec_(command.encode())
    if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
        raise psycopg.errors.error_from_result(result)
    return result


def require_logical_wal(connection: Connection) -> None:
    """Raise `OperatorNeeded` unless the WAL is sufficient for logical decoding."""
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
    """The LSN up to which logical decoding can read now."""
    row: Any = connection.execute(
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
        "ELSE pg_current_wal_flush_lsn() END::text"
    ).fetchone()
    return Lsn.parse(row[0])


def current_lsn(connection: Connection) -> Lsn:
    """A readable LSN at or after all commits that returned before the call.

    A commit with `synchronous_commit = off` returns before its record is flushed. So this uses the
    insert position, and a commit of our own flushes the WAL up to there.
    """
    with source_errors("reading the WAL position"):
        if is_standby(connection):
            return readable_lsn(connection)
        row: Any = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        lsn = Lsn.parse(row[0])
        wait_until_readable(connection, lsn)
        return lsn


def wait_until_readable(connection: Connection, lsn: Lsn) -> None:
    """Wait until logical decoding can read up to `lsn`. On a primary, flush up to there."""
    with source_errors("waiting for the WAL to be flushed"):
        if readable_lsn(connection) >= lsn:
            return
        if not is_standby(connection):
            _commit_something(connection)
        deadline = time.monotonic() + _FLUSH_SECONDS
        while readable_lsn(connection) < lsn:
            if time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"the WAL up to {lsn} did not become readable within {_FLUSH_SECONDS:.0f} s",
                    "check that the server still writes (or replays) WAL, then run again",
                )
            time.sleep(0.02)


def note_transactions(connection: Connection) -> None:
    """Log the running transactions to the WAL, as the background writer does every 15 seconds."""
    with source_errors("logging the running transactions"):
        try:
            # In PostgreSQL 16 and newer, for superusers and roles with the privilege.
            connection.execute("SELECT pg_log_standby_snapshot()")
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InsufficientPrivilege):
            # The background writer logs them only if there was other WAL.
            _commit_something(connection)
            time.sleep(_NOTE_SECONDS)


def _commit_something(connection: Connection) -> None:
    """Commit a transactional message, the smallest change, which flushes all WAL before it."""
    try:
        connection.execute("SELECT pg_logical_emit_message(true, 'pgbronze', '')")
    except psycopg.errors.InsufficientPrivilege:
        return  # then the WAL writer flushes within a second
