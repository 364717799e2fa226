"""Proof that a session is a server process of our own, and not one that a connection pooler lends.

A pooler gives a server session to one client after the other, between transactions, statements or
connections. Settings would land in one session and reads come from another; a lock would stay with
whoever has the session next. Our startup packet carries a mark: only a process that was started by
it has the mark as a setting of its client. PgBouncer refuses or drops it, and reports a process id
that it made up; RDS Proxy reports none. Manual: "Message Flow", BackendKeyData.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from adapters.pgoutput.session.settings import CREDENTIALS_KEY
from cdc_core.values.errors import PoolerInFront

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: In `options`.
_SPACE = "\\ "

_NAME, _VALUE = "pgbronze.session", uuid4().hex

#: What could end the first statements, or print the server's notices to standard error, before the
#: session's settings are ours; they outrank those of role and database. A standby refuses every
#: statement of a serializable transaction. Every PostgreSQL has these, so that the version can be
#: named where it is too old.
_FIRST: Mapping[str, str] = {
    "client_min_messages": "error",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
}

#: Sets nothing. The names are qualified, as the role's search_path may be any.
PROOF = f"""
SELECT pg_catalog.pg_backend_pid()::pg_catalog.text,
  pg_catalog.current_setting('{_NAME}', true),
  (SELECT source FROM pg_catalog.pg_settings WHERE name = 'client_min_messages'),
  pg_catalog.current_setting('neon.timeline_id', true),
  pg_catalog.host(pg_catalog.inet_server_addr()),
  pg_catalog.current_setting('port')
"""


def pooler_in_front(said: str = "", at: str = "") -> PoolerInFront:
    """The refusal, with what the pooler `said`, and where PostgreSQL is, if known."""
    said = f" ({said})" if said else ""
    return PoolerInFront(
        "a connection pooler is in front of PostgreSQL: in every pool mode its server sessions go "
        f"to other clients too, with whatever was set or locked in them{said}",
        f"have {CREDENTIALS_KEY} name the host and port of PostgreSQL itself{at} (Neon: the host "
        "without -pooler; Supabase: the direct connection; RDS: the instance, not its proxy)",
    )


def startup_options(given: str) -> str:
    """libpq's `options` with the mark, behind those that were given."""
    values = {**_FIRST, _NAME: _VALUE}
    ours = " ".join(f"-c {name}={value.replace(' ', _SPACE)}" for name, value in values.items())
    # A backslash at the end of what was given escapes the first space only.
    return f"{given}  {ours}" if given else ours


def require_own_session(answer: Sequence[str | None], startup_pid: int | None) -> None:
    """Raise `PoolerInFront` unless the answer to `PROOF` shows a process of our own.

    `startup_pid` is the process id that the startup reported; None where the driver does not tell.
    """
    pid, mark, source, neon, host, port = answer
    started_by_us = mark == _VALUE and source == "client"
    # The proxy in front of each Neon server makes process ids up; it does not pool.
    same_process = startup_pid is None or pid == str(startup_pid) or neon is not None
    if not (started_by_us and same_process):
        raise pooler_in_front(at=f", which the pooler reaches at {host}:{port}" if host else "")
