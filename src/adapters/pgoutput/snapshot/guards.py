"""Sessions that keep an exported snapshot alive and lock no table while they are idle.

Any session that imported a snapshot can export it again, so the snapshot lives as long as one
session in it does. The one that created the slot is the first; the guards follow, and a lost guard
is replaced from any that is left. Short statements run in a guard after a savepoint: rolling back
to it releases their locks. Manual: "Snapshot Synchronization Functions"; "Explicit Locking".
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
from cdc_core.values.errors import CdcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings

GUARDS = 2
#: How often the guards are checked.
CHECK_SECONDS = 5.0
#: How long a request to cancel may take.
_CANCEL_SECONDS = 5.0

#: What PostgreSQL says of a snapshot whose session has ended, by version and moment.
_GONE = (
    psycopg.DataError,
    psycopg.errors.UndefinedObject,
    psycopg.errors.ObjectNotInPrerequisiteState,
)

SAVEPOINT = "SAVEPOINT reading"
#: Ends the locks that statements took after the savepoint.
RELEASE = ("ROLLBACK TO SAVEPOINT reading", "RELEASE SAVEPOINT reading")


class SnapshotGuards:
    """`name` is the snapshot's as its first session exported it. For several threads."""

    def __init__(self, settings: SourceSettings, name: str) -> None:
        self._settings = settings
        self._first = name
        #: The role of every session.
        self.user = ""
        #: Each with its own name of the snapshot.
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

        Raises `CdcError` where no session holds the snapshot any more.
        """
        with self._lock:
            names = [*self._guards.values(), self._first]
        for name in names:
            execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                execute(f"SET TRANSACTION SNAPSHOT {literal(name)}")
            except _GONE:
                execute("ROLLBACK")
            else:
                return
        raise CdcError("the snapshot is gone, with the sessions that held it", "run again")

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A session in the snapshot, for short statements; their locks end with the block."""
        with self._lock:
            guard = self._begun()
            try:
                yield guard
            finally:
                with suppress(psycopg.Error):  # a lost guard is replaced at the next use
                    guard.execute("; ".join(RELEASE).encode())

    @property
    def name(self) -> str:
        """The name of the snapshot at a guard that is alive."""
        with self.session() as guard:
            return self._guards[guard]

    def keep(self) -> None:
        """Replace lost guards; checks them every `CHECK_SECONDS`."""
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        with self._lock:
            self._checked = time.monotonic()
            for guard in [*self._guards]:
                if not _is_alive(guard):
                    self._forget(guard)
            # There may be no room for another session now; the next check tries again.
            with suppress(CdcError):
                self._complete()

    def cancel(self) -> None:
        """End the statement that runs in a guard, from another thread."""
        for guard in [*self._guards]:
            # Not `cancel`: it goes without TLS, and waits for ever where that is not understood.
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
