"""Sessions that keep an exported snapshot alive and lock no table while they are idle.

Any session that imported a snapshot can export it again. So the snapshot lives as long as one of
its sessions. The first is the one that created the slot. The guards follow, and a lost guard is
replaced from one that is left. Short statements run in a guard after a savepoint; rolling back to
it releases their locks. Manual: "Snapshot Synchronization Functions"; "Explicit Locking".
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.session.sql_text import literal
from cdc_core.values.errors import CdcError, SnapshotGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings

GUARDS = 2
#: How often the guards are checked.
CHECK_SECONDS = 5.0
#: How long a request to cancel may take.
_CANCEL_SECONDS = 5.0

#: Errors for a snapshot whose session has ended; they differ by version and moment.
_GONE = (
    psycopg.DataError,
    psycopg.errors.UndefinedObject,
    psycopg.errors.ObjectNotInPrerequisiteState,
)

SAVEPOINT = "SAVEPOINT reading"
#: Releases the locks that were taken after the savepoint.
RELEASE = ("ROLLBACK TO SAVEPOINT reading", "RELEASE SAVEPOINT reading")


def adopt_snapshot(names: Iterable[str], execute: Callable[[str], object]) -> None:
    """Begin a transaction in a snapshot that was exported under several names.

    `execute` runs a statement in the session. One session that exported it must be left. Raises
    `SnapshotGone` if there is none.
    """
    for name in names:
        execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            execute(f"SET TRANSACTION SNAPSHOT {literal(name)}")
        except _GONE:
            execute("ROLLBACK")
        else:
            return
    raise SnapshotGone


class SnapshotGuards:
    """`name` is the name under which the first session exported the snapshot. Thread-safe."""

    def __init__(self, settings: SourceSettings, name: str) -> None:
        self._settings = settings
        self._first = name
        #: The role of all sessions.
        self.user = ""
        #: Each guard with its own name for the snapshot.
        self._guards: dict[Connection, str] = {}
        self._lock = threading.RLock()
        self._checked = time.monotonic()
        try:
            self._complete()
        except BaseException:
            self.close()
            raise

    def adopt(self, execute: Callable[[str], object]) -> None:
        """Begin a transaction of another session in the snapshot.

        Raises `SnapshotGone` if no session holds the snapshot any more.
        """
        adopt_snapshot(self.names, execute)

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A session in the snapshot, for short statements. Their locks end with the block."""
        with self._lock:
            guard = self._begun()
            try:
                yield guard
            finally:
                with suppress(psycopg.Error):  # a lost guard is replaced at the next use
                    guard.execute("; ".join(RELEASE).encode())

    @property
    def name(self) -> str:
        """A name under which the snapshot can be adopted now."""
        with self.session() as guard:
            return self._guards[guard]

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which the snapshot was exported by a session that may still be there."""
        with self._lock:
            return (*self._guards.values(), self._first)

    def keep(self) -> None:
        """Replace lost guards. Checks them every `CHECK_SECONDS`."""
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        with self._lock:
            self._checked = time.monotonic()
            for guard in [*self._guards]:
                if not _is_alive(guard):
                    self._forget(guard)
            # The server may be out of connections now; the next check tries again.
            with suppress(CdcError):
                self._complete()

    def cancel(self) -> None:
        """Cancel the statement that runs in a guard, from another thread."""
        for guard in [*self._guards]:
            # `cancel` would not use TLS, and could wait forever on a server that requires it.
            with suppress(psycopg.Error):
                guard.cancel_safe(timeout=_CANCEL_SECONDS)

    def close(self) -> None:
        for guard in self._guards:
            guard.close()
        self._guards.clear()

    def _begun(self) -> Connection:
        """A guard with a savepoint."""
        for guard in [*self._guards]:
            try:
                guard.execute(SAVEPOINT.encode())
            except psycopg.Error:
                self._forget(guard)
            else:
                return guard
        self._complete()
        guard = next(iter(self._guards))
        with source_errors("reading in the snapshot"):
            guard.execute(SAVEPOINT.encode())
        return guard

    def _complete(self) -> None:
        while len(self._guards) < GUARDS:
            guard = connect(self._settings)
            try:
                with source_errors("adopting the snapshot"):
                    self.adopt(partial(_execute, guard))
                    row: Any = guard.execute("SELECT pg_export_snapshot()").fetchone()
            except BaseException:
                guard.close()
                raise
            self._guards[guard] = str(row[0])
            self.user = guard.info.user

    def _forget(self, guard: Connection) -> None:
        del self._guards[guard]
        guard.close()


def _execute(guard: Connection, statement: str) -> None:
    guard.execute(statement.encode())


def _is_alive(guard: Connection) -> bool:
    try:
        guard.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True
