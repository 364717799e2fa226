"""Maps errors of PostgreSQL and libpq to ours, with a cure. No other place does this.

Manual: "PostgreSQL Error Codes". libpq gives no SQLSTATE for a refused connection, so these errors
are recognized by the server's words. No message here contains a password or a row's values.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from adapters.pgoutput.session.login import CREDENTIALS_KEY
from adapters.pgoutput.session.own_session import pooler_in_front
from adapters.pgoutput.session.sql_text import quote
from adapters.redaction import Redactor
from cdc_core.values.errors import (
    CdcError,
    OperatorNeeded,
    SettingsError,
    SourceUnavailable,
    WriterBusy,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_AUTHENTICATION = re.compile(
    r"password authentication failed|no password supplied"
    r"|authentication failed|role \".*\" does not exist"
    r"|is not permitted to log in"
    r"|database \".*\" does not exist|not currently accepting connections"
    r"|empty password returned|password .*expired|SASL authentication|SCRAM"
)
_TLS = re.compile(
    r"certificate|does not support SSL|SSL was required|sslmode|GSSAPI|root\.crt|private key"
)
_WRONG_VALUE = re.compile(
    r"invalid \S+ value:|invalid integer value|invalid SSL protocol version range"
    r"|could not match \d+|definition of service|could not parse network address"
)
#: A server's errors for options in the credentials.
_OPTIONS = re.compile(
    r"requires a value|invalid configuration parameter name|permission denied to set parameter"
    r"|parameter \".*\" (?:cannot be|requires)|invalid command-line argument"
    r"|unrecognized configuration parameter|invalid value for parameter"
)
_HOST_BASED = re.compile(r"no pg_hba\.conf entry|pg_hba\.conf rejects")
_CONNECTION_LIMIT = re.compile(
    r"too many connections for (role|database) \"(.*?)\"(?=$|\s|\))"
    r"|too many clients already|remaining connection slots are reserved"
)
_TARGET_SESSION = re.compile(
    r"session is (?:not )?read-only|server is (?:not )?in hot standby mode"
)
_POOLER = re.compile(r"unsupported startup parameter")
_LOCAL_SOCKET = re.compile(r"on socket ")
_SENDERS = re.compile(r"max_wal_senders|number of requested standby connections")
_REPLICATION_ROLE = re.compile(r"WAL sender|walsender|replication role|REPLICATION attribute")
_CONNECT_PRIVILEGE = re.compile(r"permission denied for database")
#: In the context of an error that occurred while a change was decoded.
DECODING = re.compile(r"associated LSN ([0-9A-F]+/[0-9A-F]+)")
_EXECUTE_PRIVILEGE = re.compile(r"permission denied for function (\S+)")

#: SQLSTATE classes whose primary message has names of objects and settings, never a row's values.
_NAMES_OBJECTS = ("08", "0A", "25", "28", "3D", "40", "42", "53", "54", "55", "57", "58", "XX")


@contextmanager
def source_errors(doing: str, cure: str = "", role: str = "<role>") -> Iterator[None]:
    """Translate the driver's errors. `doing` completes "while ...". `cure` fixes a refusal."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error, doing, cure, role) from error


def translated(error: psycopg.Error, doing: str, cure: str = "", role: str = "<role>") -> CdcError:
    """Our error for one of the driver. `role` is the connection's role, quoted for SQL."""
    state = error.sqlstate or ""
    said = described(error)
    match state[:2], state:
        case _, "42501":
            return OperatorNeeded(
                f"privilege missing while {doing}: {said}",
                _function_cure(said, role) or cure or "grant it to the role and run again",
            )
        case _, "22021" | "22P05":
            return OperatorNeeded(
                f"text that is not UTF-8, in a database of encoding SQL_ASCII, while {doing}"
                f"{_change(error)}",
                "make it UTF-8 (Latin 1 in a column x: SET x = convert_from(convert(convert_to("
                "x, 'SQL_ASCII'), 'LATIN1', 'UTF8'), 'SQL_ASCII')), then run: pgbronze snapshot",
            )
        case _, "53400" | "55000":
            return OperatorNeeded(f"PostgreSQL refuses {doing}: {said}", cure)
        case _, "55006":
            return WriterBusy(
                f"in use while {doing}: {said}", cure or "end its user, then run again"
            )
        case _, "42704":
            return OperatorNeeded(f"missing while {doing}: {said}", cure)
        case _, "55P03":
            return SourceUnavailable(
                f"timed out waiting for a lock while {doing}: {said}",
                "run again when the session that holds it has ended",
            )
        case ("28", _) | (_, "3D000"):
            return SettingsError(
                f"PostgreSQL refuses {doing}: {said}", f"correct {CREDENTIALS_KEY}"
            )
        case _, "25006":
            return OperatorNeeded(f"PostgreSQL is read-only while {doing}: {said}", cure)
        case ("53" | "58", _) | (_, "57014"):
            return SourceUnavailable(f"PostgreSQL gave up while {doing}: {said}", "run again")
        case ("08" | "57", _) | ("", _):
            return SourceUnavailable(f"PostgreSQL went away while {doing}: {said}", "run again")
        case _:
            return CdcError(f"PostgreSQL refuses {doing}: {said}", cure)


def described(error: psycopg.Error) -> str:
    """The server's message if it only names objects and settings; else only the SQLSTATE."""
    state = error.sqlstate
    if state is None:
        return _one_line(str(error)) or type(error).__name__
    # An error from ADBC has the primary message as its text.
    message = error.diag.message_primary or str(error)
    if message and state.startswith(_NAMES_OBJECTS):
        return f"{message} (SQLSTATE {state})"
    return f"SQLSTATE {state}"


def login_rejected(error: psycopg.Error) -> bool:
    """Whether PostgreSQL rejected the credentials of a connection."""
    return _AUTHENTICATION.search(_one_line(str(error))) is not None


def connection_refused(
    error: psycopg.Error,
    secrets: tuple[str, ...],
    doing: str,
    password_key: str = CREDENTIALS_KEY,
) -> CdcError:
    """Our error for a connection that could not be opened. `password_key` is the setting that
    gives the password."""
    # Match the whole text: redaction could remove a word that is also the password.
    text = _one_line(str(error))
    said = Redactor(secrets)(text)
    if _SENDERS.search(text):
        return OperatorNeeded(
            f"no WAL sender is free: {said}",
            "end an unused replication connection, or raise max_wal_senders and restart PostgreSQL",
        )
    if _REPLICATION_ROLE.search(text):
        cure = replication_cure(_attempted(error, "user"))
        return OperatorNeeded(f"privilege missing while {doing}: {said}", cure)
    if _CONNECT_PRIVILEGE.search(text):
        database, role = _attempted(error, "db"), _attempted(error, "user")
        return OperatorNeeded(
            f"privilege missing while {doing}: {said}",
            f"run: GRANT CONNECT ON DATABASE {database} TO {role}",
        )
    if _POOLER.search(text):
        return pooler_in_front(said)
    if limited := _CONNECTION_LIMIT.search(text):
        return SourceUnavailable(f"no connection is free: {said}", _connection_cure(limited))
    if _HOST_BASED.search(text):
        return SettingsError(
            f"pg_hba.conf does not allow this connection: {said}",
            f"add a line for this role, database and address to the server's pg_hba.conf, or "
            f"correct {CREDENTIALS_KEY} (sslmode=require if it only allows encrypted ones)",
        )
    if _OPTIONS.search(text):
        return SettingsError(
            f"PostgreSQL refuses an option of the connection: {said}",
            f"correct options in {CREDENTIALS_KEY} (or PGOPTIONS): options='-c name=value', in a "
            "URL options=-c%20name%3Dvalue",
        )
    if _AUTHENTICATION.search(text):
        keys = " or ".join(dict.fromkeys([password_key, CREDENTIALS_KEY]))
        return SettingsError(f"PostgreSQL refuses the connection: {said}", f"correct {keys}")
    if _TLS.search(text) or _WRONG_VALUE.search(text):
        return SettingsError(
            f"PostgreSQL refuses the connection: {said}", f"correct {CREDENTIALS_KEY}"
        )
    if _TARGET_SESSION.search(text):
        return SourceUnavailable(
            f"no reachable server matches target_session_attrs: {said}",
            f"run again when one has been promoted, or correct {CREDENTIALS_KEY}",
        )
    if _LOCAL_SOCKET.search(text):
        return SourceUnavailable(
            f"PostgreSQL cannot be reached: {said}",
            f"check that it runs here, or set host in {CREDENTIALS_KEY}: without it, a local "
            "socket is used; then run again",
        )
    return SourceUnavailable(
        f"PostgreSQL cannot be reached: {said}",
        f"check that it runs and that {CREDENTIALS_KEY} names it, then run again",
    )


def _connection_cure(limited: re.Match[str]) -> str:
    """The cure for a connection limit of a role, a database or the server."""
    if limited[1] is None:
        return "end sessions that are not needed, or raise max_connections and restart PostgreSQL"
    name = limited[2].replace('"', '""')
    return (
        f"end sessions of the {limited[1]} that are not needed, or raise the limit: "
        f'ALTER {limited[1].upper()} "{name}" CONNECTION LIMIT <number>'
    )


def replication_cure(role: str) -> str:
    """The cure that lets a role, quoted for SQL, use replication slots."""
    return f"run: ALTER ROLE {role} REPLICATION (RDS and Aurora: GRANT rds_replication TO {role})"


def _attempted(error: psycopg.Error, part: str) -> str:
    """The role or database of a connection attempt, quoted."""
    value: bytes = getattr(error.pgconn, part, b"")
    return quote(value.decode(errors="replace")) if value else f"<{part}>"


def _change(error: psycopg.Error) -> str:
    """The LSN of the change that the server was decoding, if any."""
    # An error from ADBC has the LSN in its text.
    found = DECODING.search(error.diag.context or str(error))
    return f", at LSN {found[1]}" if found else ""


def _function_cure(said: str, role: str) -> str:
    """The cure if the role may not call a function; a privilege on a table would not help."""
    found = _EXECUTE_PRIVILEGE.search(said)
    return f"run: GRANT EXECUTE ON FUNCTION {found[1]} TO {role}" if found else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
