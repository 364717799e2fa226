"""The connections that play a script, through errors, cuts and restarts of the server."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg

from tests.soak.script import SESSIONS, End, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    Connection = psycopg.Connection[tuple[object, ...]]

#: Which of the steps that must commit have done so; it is replicated as any other table is.
PROGRESS = "soak_progress"
_TRIES = 200


class Play:
    """Plays a script: a thread a session, in about `seconds`. Errors of statements that only try
    are counted."""

    def __init__(self, dsn: str, number: int, script: Sequence[Step], seconds: float) -> None:
        self._dsn, self._round = dsn, number
        self._pause = seconds * SESSIONS / len(script)
        self._done = {step.number: threading.Event() for step in script if step.must}
        self._threads = [
            threading.Thread(target=self._run, args=([s for s in script if s.session == i],))
            for i in range(SESSIONS)
        ]
        self.committed = self.failed = 0
        self.broken: BaseException | None = None

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self.broken is not None:
            raise self.broken

    def _run(self, steps: Sequence[Step]) -> None:
        session = _Session(self._dsn)
        try:
            for step in steps:
                if step.after in self._done:
                    self._done[step.after].wait()
                if self.broken is not None:
                    return
                time.sleep(self._pause)
                if step.must:
                    session.must(step, self._round)
                    self._done[step.number].set()
                    self.committed += 1
                elif session.attempt(step, f"soak_{self._round}_{step.number}"):
                    self.committed += 1
                else:
                    self.failed += 1
        except BaseException as error:  # noqa: BLE001 - told by `join`
            self.broken = self.broken or error
        finally:
            for event in self._done.values() if self.broken else ():
                event.set()
            session.close()


class _Session:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def attempt(self, step: Step, name: str) -> bool:
        try:
            self._play(step, name)
        except psycopg.Error:
            self._rollback()
            return False
        return True

    def must(self, step: Step, number: int) -> None:
        """Play until committed; what a lost connection left open is asked of the server."""
        for _ in range(_TRIES):
            try:
                found = self._now.execute(
                    f"SELECT FROM {PROGRESS} WHERE round = %s AND step = %s".encode(),
                    [number, step.number],
                )
                if found.rowcount:
                    return
                mark = f"INSERT INTO {PROGRESS} VALUES ({number}, {step.number})"
                self._play(
                    Step(step.number, step.session, step.after, (mark, *step.statements), step.end),
                    "",
                )
            except (psycopg.OperationalError, psycopg.errors.LockNotAvailable):
                self._rollback()
                time.sleep(0.05)
            except psycopg.Error as error:
                self._rollback()
                if not _may_pass(error):
                    raise RuntimeError(
                        f"the soak's own statements fail: {error}\n{step}"
                    ) from error
            else:
                return
        raise RuntimeError(f"a step of the soak never commits\n{step}")

    @property
    def _now(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=10)
            self._connection.execute("SET lock_timeout = '5s'")
        return self._connection

    def _play(self, step: Step, name: str) -> None:
        connection = self._now
        connection.execute(f"SET synchronous_commit = {'on' if step.durable else 'off'}".encode())
        if step.end is End.EACH:
            for statement in step.statements:
                try:
                    connection.execute(statement.encode())
                except psycopg.errors.IntegrityError:
                    continue
            return
        connection.execute("BEGIN")
        for statement in step.statements:
            connection.execute(statement.encode())
        if step.end is not End.PREPARED:
            connection.execute(step.end.value.encode())
            return
        connection.execute(f"PREPARE TRANSACTION '{name}'".encode())
        time.sleep(0.1)
        for _ in range(_TRIES):
            try:
                self._now.execute(f"COMMIT PREPARED '{name}'".encode())
            except psycopg.errors.UndefinedObject:
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return

    def _rollback(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self._connection.close()


def _may_pass(error: psycopg.Error) -> bool:
    """Whether another attempt may succeed: what other sessions wrote or held was in the way."""
    return isinstance(error, (psycopg.errors.IntegrityError, psycopg.errors.DataError)) or (
        error.sqlstate or ""
    ).startswith(("40", "55", "57"))
