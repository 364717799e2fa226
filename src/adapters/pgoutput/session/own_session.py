"""Proves that a session is a server process of our own, and not lent by a connection pooler.

A pooler gives a server session to one client after another, between transactions, statements or
connections. Settings could be applied to one session and reads use another, and a lock would stay
with the next client. Our startup packet contains a mark. Only a process started by this packet has
it as a setting of its client. PgBouncer rejects or drops it, and reports an invented process id;
RDS Proxy reports none. Manual: "Message Flow", BackendKeyData.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from adapters.pgoutput.session.login import CREDENTIALS_KEY
from cdc_core.values.errors import PoolerInFront

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A space in `options`.
_SPACE = "\\ "

_NAME, _VALUE = "pgbronze.session", uuid4().hex

#: Settings for the first statements: without them, limits could end them, or notices be printed to
#: standard error. They override settings of role and database. A standby refuses all statements of
#: a serializable transaction. All versions of PostgreSQL have these settings, so that the error for
#: an old version can name it.
_FIRST: Mapping[str, str] = {
    "client_min_messages": "error",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
}

#: Changes nothing. Names are qualified, because the role may have any search_path. The settings are
#: read one by one: the view `pg_settings` puts all of them into a temporary file where `work_mem`
#: is small, which `temp_file_limit` may refuse.
PROOF = f"""
SELECT pg_catalog.pg_backend_pid()::pg_catalog.text,
  pg_catalog.current_setting('{_NAME}', true),
  (SELECT (setting).source
   FROM (SELECT pg_catalog.pg_show_all_settings() AS setting OFFSET 0) AS settings
   WHERE (setting).name = 'client_min_messages'),
  pg_catalog.current_setting('neon.timeline_id', true),
  pg_catalog.host(pg_catalog.inet_server_addr()),
  pg_catalog.current_setting('port')
"""


def pooler_in_front(said: str = "", at: str = "") -> PoolerInFront:
    """The error, with the pooler's message, and where PostgreSQL is, if known."""
    said = f" ({said})" if said else ""
    return PoolerInFront(
        "a connection pooler is in front of PostgreSQL: in every pool mode, other clients use its "
        f"server sessions too, including what was set or locked in them{said}",
        f"set {CREDENTIALS_KEY} to the host and port of PostgreSQL itself{at} (Neon: the host "
        "without -pooler; Supabase: the direct connection; RDS: the instance, not its proxy)",
    )


def startup_options(given: str) -> str:
    """libpq's `options`: the given ones, then ours with the mark."""
    values = {**_FIRST, _NAME: _VALUE}
    ours = " ".join(f"-c {name}={value.replace(' ', _SPACE)}" for name, value in values.items())
    # Two spaces: a backslash at the end of the given options escapes only the first.
    return f"{given}  {ours}" if given else ours


def require_own_session(answer: Sequence[str | None], startup_pid: int | None) -> None:
    """Raise `PoolerInFront` unless the answer to `PROOF` shows a process of our own.

    `startup_pid` is the process id reported at startup; None if the driver does not provide it.
    """
    pid, mark, source, neon, host, port = answer
    started_by_us = mark == _VALUE and source == "client"
    # The proxy in front of each Neon server invents process ids, but does not pool.
    same_process = startup_pid is None or pid == str(startup_pid) or neon is not None
    if not (started_by_us and same_process):
        raise pooler_in_front(at=f", which the pooler reaches at {host}:{port}" if host else "")
