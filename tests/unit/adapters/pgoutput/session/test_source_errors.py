from __future__ import annotations

import psycopg
import pytest

from adapters.pgoutput.session.connection import application_name
from adapters.pgoutput.session.own_session import _VALUE, require_own_session
from adapters.pgoutput.session.source_errors import connection_refused, source_errors
from adapters.pgoutput.slot.writer_lock import is_ours, who
from cdc_core.values.errors import (
    CdcError,
    OperatorNeeded,
    PoolerInFront,
    SettingsError,
    SourceUnavailable,
    WriterBusy,
)

HEAD = 'connection to server at "db", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('FATAL:  password authentication failed for user "u"', SettingsError),
        ("fe_sendauth: no password supplied", SettingsError),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "u"', SettingsError),
        ('FATAL:  role "u" does not exist', SettingsError),
        ('FATAL:  database "d" does not exist', SettingsError),
        ('FATAL:  role "u" is not permitted to log in', SettingsError),
        ("server does not support SSL, but SSL was required", SettingsError),
        ("SSL error: certificate verify failed", SettingsError),
        ('invalid channel_binding value: "bogus"', SettingsError),
        ('invalid "ssl_min_protocol_version" value: "TLSv9"', SettingsError),
        ("invalid SSL protocol version range", SettingsError),
        ('invalid integer value "abc" for connection option "keepalives"', SettingsError),
        ('definition of service "none" not found', SettingsError),
        ('could not parse network address "nope": Name or service not known', SettingsError),
        ("could not match 3 port numbers to 2 hosts", SettingsError),
        ("could not match 2 host names with 1 hostaddr values", SettingsError),
        ('FATAL:  invalid value for parameter "client_encoding": "bogus"', SettingsError),
        ('FATAL:  unrecognized configuration parameter "nosuch"', SettingsError),
        ("FATAL:  invalid command-line argument for server process: garbage", SettingsError),
        ("FATAL:  -c search_path requires a value", SettingsError),
        ('FATAL:  invalid configuration parameter name "1x.y"', SettingsError),
        ('FATAL:  permission denied to set parameter "log_statement"', SettingsError),
        ('FATAL:  parameter "wal_level" cannot be changed now', SettingsError),
        ("FATAL:  unsupported startup parameter: options", PoolerInFront),
        ("FATAL:  unsupported startup parameter in options: statement_timeout", PoolerInFront),
        ('FATAL:  too many connections for role "u"', SourceUnavailable),
        ("session is read-only", SourceUnavailable),
        ("FATAL:  the database system is starting up", SourceUnavailable),
        ("FATAL:  sorry, too many clients already", SourceUnavailable),
        ("Connection refused", SourceUnavailable),
        ("timeout expired", SourceUnavailable),
        ("SSL SYSCALL error: EOF detected", SourceUnavailable),
        ("FATAL:  must be superuser or replication role to start walsender", OperatorNeeded),
        ("FATAL:  permission denied to start WAL sender", OperatorNeeded),
        ("FATAL:  number of requested standby connections exceeds max_wal_senders", OperatorNeeded),
        ('FATAL:  permission denied for database "d"', OperatorNeeded),
    ],
)
def test_a_refused_connection(said: str, kind: type[CdcError]) -> None:
    error = connection_refused(psycopg.OperationalError(HEAD + said), ("hunter2",), "connecting")
    assert type(error) is kind
    assert error.cure


def test_a_password_in_the_drivers_text_is_hidden() -> None:
    error = connection_refused(psycopg.OperationalError("bad: hunter2\nmore"), ("hunter2",), "x")
    assert "hunter2" not in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("password", "said", "told"),
    [
        ("a", 'FATAL:  password authentication failed for user "u"', "authentication failed"),
        ("e", 'FATAL:  password authentication failed for user "u"', "authentication failed"),
        ("auth", 'FATAL:  password authentication failed for user "u"', "***entication failed"),
        ("authentication failed", "FATAL:  password authentication failed", "password ***"),
        ("database", 'FATAL:  database "d" does not exist', '*** "d" does not exist'),
    ],
)
def test_a_password_that_is_a_word_of_the_error_changes_nothing(
    password: str, said: str, told: str
) -> None:
    error = connection_refused(psycopg.OperationalError(HEAD + said), (password,), "connecting")
    assert type(error) is SettingsError
    assert told in str(error)


def test_a_secret_within_another_leaves_no_rest() -> None:
    refused = psycopg.OperationalError("connection to long-secret failed")
    assert "connection to *** failed" in str(
        connection_refused(refused, ("secret", "long-secret"), "connecting")
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.InsufficientPrivilege, OperatorNeeded),
        (psycopg.errors.ConfigurationLimitExceeded, OperatorNeeded),
        (psycopg.errors.ObjectNotInPrerequisiteState, OperatorNeeded),
        (psycopg.errors.UndefinedObject, OperatorNeeded),
        (psycopg.errors.ObjectInUse, WriterBusy),
        (psycopg.errors.LockNotAvailable, SourceUnavailable),
        (psycopg.errors.AdminShutdown, SourceUnavailable),
        (psycopg.errors.DiskFull, SourceUnavailable),
        (psycopg.errors.QueryCanceled, SourceUnavailable),
        (psycopg.OperationalError, SourceUnavailable),
        (psycopg.errors.InvalidPassword, SettingsError),
        (psycopg.errors.UndefinedTable, CdcError),
        (psycopg.errors.DivisionByZero, CdcError),
    ],
)
def test_an_error_of_a_statement(error: type[psycopg.Error], kind: type[CdcError]) -> None:
    with pytest.raises(CdcError) as told, source_errors("reading"):
        raise error
    assert type(told.value) is kind
    assert "reading" in str(told.value)


def test_a_session_knows_its_holder() -> None:
    name = application_name()
    assert name.startswith("pgbronze/")
    assert len(name.encode()) <= 63
    assert is_ours(name)
    assert who(7, "pgbronze/box.1a2b3c4d/42", "10.0.0.1") == (
        "process 42 on box (backend 7, from 10.0.0.1)"
    )
    assert who(7, "", "local") == "backend 7 of an unnamed program (from local)"


PROVEN = {"pid": "7", "mark": _VALUE, "source": "client", "neon": None, "host": None, "port": "1"}


@pytest.mark.parametrize(
    "changed",
    [
        {"pid": "8"},
        {"mark": None},
        {"mark": ""},
        {"mark": "another process's"},
        # A pooler that gives each of its sessions the options of the client that has it.
        {"source": "session"},
        {"source": "default"},
        {"neon": "a timeline", "mark": None},
    ],
)
def test_a_session_that_is_not_proven_to_be_ours(changed: dict[str, str | None]) -> None:
    with pytest.raises(PoolerInFront):
        require_own_session([*{**PROVEN, **changed}.values()], 7)


def test_a_session_of_our_own() -> None:
    require_own_session([*PROVEN.values()], 7)
    # A driver that does not tell the process id; a proxy that makes it up and does not pool.
    require_own_session([*PROVEN.values()], None)
    require_own_session([*{**PROVEN, "neon": "a timeline"}.values()], 9)
