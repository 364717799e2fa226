"""Connections to PostgreSQL whose output does not depend on the server's defaults.

Manual: "Client Connection Defaults", "Streaming Replication Protocol", "Logical Replication
Connection". Knows nothing of slots or tables.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psycopg

from adapters.pgoutput.session.login import CREDENTIALS_KEY, secrets_in
from adapters.pgoutput.session.own_session import PROOF, require_own_session, startup_options
from adapters.pgoutput.session.password_command import PASSWORD_COMMAND_KEY
from adapters.pgoutput.session.source_errors import (
    connection_refused,
    login_rejected,
    source_errors,
)
from cdc_core.values.errors import OperatorNeeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from psycopg.pq.abc import PGresult

    from adapters.pgoutput.session.settings import SourceSettings

T = TypeVar("T")

Connection = psycopg.Connection[tuple[object, ...]]

OLDEST_SUPPORTED = 14

#: Settings that a value's text depends on, and limits that could end a long read.
_SESSION: Mapping[str, str] = {
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "xmlbinary": "base64",
    # For names in a regclass, regproc or regtype.
    "quote_all_identifiers": "off",
    "search_path": "pg_catalog, public",
    "standard_conforming_strings": "on",
    # Fail instead of silently omitting rows that a policy hides from this role.
    "row_security": "off",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    # We only wait for our own tiny commits, which must not wait for a standby.
    "synchronous_commit": "local",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # A lost client must not hold its locks and its slot for long.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

#: Memory for decoding, in kB: an eighth of effective_cache_size, up to 1 GB. A larger transaction
#: is spilled to the server's disk, which takes 1.5 times as long.
_DECODING_MEMORY = """
set_config('logical_decoding_work_mem', (least(1 << 20, greatest(
  pg_size_bytes(current_setting('effective_cache_size')) / 8192,
  pg_size_bytes(current_setting('logical_decoding_work_mem')) / 1024)))::text, false)
"""

#: Servers on some platforms cannot check their clients, and refuse this.
WATCH_CLIENTS = "set_config('client_connection_check_interval', '1000', false)"

_LIBPQ: Mapping[str, str] = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    # There are no keepalives while sent data is not acknowledged.
    "tcp_user_timeout": "60000",
}

_NAME_BYTES = 63


def connect(settings: SourceSettings, *, replication: bool = False) -> Connection:
    """Open a connection in autocommit. With `replication`, a walsender of this database.

    Raises `SettingsError` (credentials rejected, connection string invalid), `OperatorNeeded`
    (privilege or WAL sender missing, server too old) or `SourceUnavailable`; and `PoolerInFront`
    before it sets anything.
    """

    def opened(parameters: Mapping[str, object]) -> Connection:
        mode = {"replication": "database"} if replication else {}
        return psycopg.connect(autocommit=True, prepare_threshold=None, **parameters, **mode)  # type: ignore[arg-type]

    doing = "opening a replication connection" if replication else "connecting"
    connection = logged_in(settings, opened, doing)
    try:
        with source_errors("checking the session"):
            answer = _run(connection, PROOF)
        values = [answer.get_value(0, column) for column in range(answer.nfields)]
        row = [None if value is None else value.decode() for value in values]
        require_own_session(row, connection.info.backend_pid)
        _prepare_session(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def server_major(connection: Connection) -> int:
    return connection.info.server_version // 10_000


def application_name() -> str:
    """`pgbronze/<host>/<pid>`: lets another run name the process, and check that it is alive."""
    return f"{application_prefix()}{os.getpid()}"


def application_prefix() -> str:
    # Containers may share a host name but have separate process ids, so the name includes the
    # process id space.
    mark = hashlib.sha256(_pid_space().encode()).hexdigest()[:8]
    host = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in _host())
    room = _NAME_BYTES - len(f"pgbronze/.{mark}/") - 10
    return f"pgbronze/{host[:room]}.{mark}/"


def _host() -> str:
    return socket.gethostname() or "localhost"


def _pid_space() -> str:
    """An identifier of the machine or container that the process ids belong to."""
    parts = []
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        parts.append(_host())
    return "|".join(parts)


def logged_in(
    settings: SourceSettings, opened: Callable[[Mapping[str, object]], T], doing: str
) -> T:
    """The session that `opened` opens with libpq's connection parameters, including secrets.

    If PostgreSQL rejects the credentials, asks for them once more. `doing` completes "while ...".
    """
    first = True
    while True:
        given = settings.login.parameters()
        try:
            return opened(_parameters(settings, given))
        except psycopg.Error as error:
            if not (first and login_rejected(error) and settings.login.renewed(given)):
                key = PASSWORD_COMMAND_KEY if settings.password_command else CREDENTIALS_KEY
                # Do not chain the driver's error: its text may contain a secret.
                raise connection_refused(error, secrets_in(given), doing, key) from None
        first = False


def _parameters(settings: SourceSettings, given: Mapping[str, str]) -> dict[str, object]:
    """libpq's connection parameters: the given ones, and ours."""
    parameters: dict[str, object] = {**_LIBPQ, **given}
    parameters.setdefault("connect_timeout", settings.connect_timeout_seconds)
    parameters["application_name"] = application_name()
    options = given.get("options") or os.environ.get("PGOPTIONS", "")
    parameters["options"] = startup_options(options)
    return parameters


def session_statement(server_major: int) -> str:
    """The query that applies our settings to a session."""
    values = dict(_SESSION)
    if server_major >= 17:
        values["transaction_timeout"] = "0"
    calls = [f"set_config('{name}', '{value}', false)" for name, value in values.items()]
    return f"SELECT {', '.join(calls)}, {_DECODING_MEMORY}"


def _prepare_session(connection: Connection) -> None:
    major = server_major(connection)
    if major < OLDEST_SUPPORTED:
        raise OperatorNeeded(
            f"PostgreSQL {major} is not supported", f"upgrade it to {OLDEST_SUPPORTED} or newer"
        )
    with source_errors("preparing the session"):
        _run(connection, session_statement(major))
        try:
            _run(connection, f"SELECT {WATCH_CLIENTS}")
        except psycopg.Error:
            if connection.closed:
                raise  # else: the server's platform cannot check its clients


def _run(connection: Connection, statement: str) -> PGresult:
    """Run statements with the simple protocol, which walsenders understand too."""
    result = connection.pgconn.exec_(statement.encode())
    if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result)
    return result


class Session:
    """A connection for short statements. Opens at first use, and again after it was lost."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        if self._connection is None or self._connection.closed or self._connection.broken:
            self.close()
            self._connection = connect(self._settings)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        self.close()
