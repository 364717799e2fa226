"""One writer per slot: a session-level advisory lock, held for the whole run.

The lock ends with its session, so a killed run leaves none. If PostgreSQL has not noticed that the
client is gone, a run on the same machine ends the session. Manual: "Advisory Locks", `pg_locks`.
"""

from __future__ import annotations

import os
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.session.connection import application_name, application_prefix
from adapters.pgoutput.session.source_errors import source_errors
from cdc_core.values.errors import WriterBusy

if TYPE_CHECKING:
    from datetime import datetime

    from adapters.pgoutput.session.connection import Connection

#: Distinguishes our locks from the application's. Never change it: other versions use it too.
_CLASS = 0x77326C64

#: A terminated backend takes a moment to end. PostgreSQL checks for lost clients once a second.
_WAIT_SECONDS = 5.0

_HOLDER = """
SELECT l.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'local'),
  a.backend_start
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
  AND l.classid = %s::bigint::oid AND l.objid = %s::bigint::oid
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def take_writer_lock(connection: Connection, slot_name: str) -> None:
    """Take the lock in this session, or raise `WriterBusy` with the holder."""
    key = zlib.crc32(slot_name.encode())
    deadline = time.monotonic() + _WAIT_SECONDS
    with source_errors(f"taking the writer lock of slot {slot_name!r}"):
        while True:
            row: Any = connection.execute(
                "SELECT pg_try_advisory_lock(%s, %s)", [_CLASS, _signed(key)]
            ).fetchone()
            if row[0]:
                return
            holder: Any = connection.execute(_HOLDER, [_CLASS, key]).fetchone()
            if holder is None:
                if time.monotonic() > deadline:
                    raise WriterBusy(f"slot {slot_name!r} is in use by another run")
                continue
            pid, application, address, started = holder
            dead = end_if_dead(connection, pid, application, started)
            if not dead or time.monotonic() > deadline:
                raise WriterBusy(
                    f"another run holds slot {slot_name!r}: {who(pid, application, address)}",
                    f"wait for it, or end it there (SELECT pg_terminate_backend({pid}))",
                )
            time.sleep(0.05)


def give_up_writer_lock(connection: Connection) -> None:
    """Release the lock at once: PostgreSQL notices the end of a session a moment later."""
    with suppress(psycopg.Error):
        connection.execute("SELECT pg_advisory_unlock_all()")


#: The process id may belong to another process by now, and the session to another client.
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND application_name = %s AND backend_start = %s
"""


def end_if_dead(
    connection: Connection, backend_pid: int, application: str, started: datetime | None
) -> bool:
    """Terminate a backend of ours whose client process on this machine is gone. True if it did.
    `started` distinguishes it from a later backend with the same process id."""
    prefix = application_prefix()
    if not application.startswith(prefix):
        return False
    client = application.removeprefix(prefix)
    if not client.isdigit() or _lives(int(client)):
        return False
    connection.execute(_TERMINATE, [backend_pid, application, started])
    return True


def is_ours(application: str) -> bool:
    """Whether the session belongs to this process."""
    return application == application_name()


def who(backend_pid: int, application: str, address: str) -> str:
    """The holder, for messages: process, host and backend."""
    name, _, process = application.rpartition("/")
    if name.startswith("pgbronze/") and process.isdigit():
        host = name.removeprefix("pgbronze/").rpartition(".")[0]
        return f"process {process} on {host} (backend {backend_pid}, from {address})"
    return f"backend {backend_pid} of {application or 'an unnamed program'} (from {address})"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
