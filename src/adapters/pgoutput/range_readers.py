"""Tables read by several sessions, each its ranges, several tables side by side, within bounds.

Ranges are done in the order of the tables; pieces of the table that is wanted now always find room.
A session that is lost is opened again and goes on where its range was: what was read counts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from cdc_core.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from adapters.pgoutput.row_sessions import RowSession
    from adapters.pgoutput.wire.results import PackedRows, ReadRows
    from cdc_core.errors import CdcError

#: So much is read before it is wanted.
AHEAD_BYTES = 48 << 20
#: So often a range is begun again without a row of it having come in between.
ATTEMPTS = 6
_FIRST_WAIT_SECONDS = 0.2
#: So often a wait looks whether a signal has come in.
_LOOK_SECONDS = 0.5
#: A thread that waits for no server ends within this.
_SOON_SECONDS = 0.1

#: Connection exceptions, too many connections, cancelled, shut down.
_PASSING = ("08", "53", "57")


@dataclass(eq=False)
class Range:
    """Part of a table: what follows the columns in its SELECT. So many of its rows are read."""

    source: str
    rows: int = 0
    failures: int = 0


@dataclass(frozen=True, eq=False)
class TableQuery:
    """How a table is read: columns, ranges, what becomes of packed rows, what of an error."""

    columns: Sequence[str]
    sources: Sequence[str]
    decode: Callable[[PackedRows], ReadRows]
    translate: Callable[[psycopg.Error], CdcError]


@dataclass(eq=False)
class _Table:
    plan: Callable[[], TableQuery]
    query: TableQuery | None = None
    waiting: deque[Range] = field(default_factory=deque)
    #: Ranges that are begun and not ended.
    open: int = 0
    pieces: deque[ReadRows] = field(default_factory=deque)
    held: int = 0
    error: BaseException | None = None

    @property
    def ended(self) -> bool:
        return self.error is not None or (
            self.query is not None and not self.waiting and not self.open
        )


class RangeReaders:
    """`open_session` gives one in the snapshot; `readers` of them at most are open.

    Tables are named by any key. `expect` and `read` are for one thread.
    """

    def __init__(self, open_session: Callable[[], RowSession], readers: int) -> None:
        self._open_session = open_session
        self._changed = threading.Condition()
        #: One at a time asks the catalog.
        self._planning = threading.Lock()
        self._tables: dict[object, _Table] = {}
        self._sessions: list[RowSession] = []
        self._readers = readers
        self._threads: list[threading.Thread] = []
        self._held = 0
        self._closing = False

    def expect(self, key: object, plan: Callable[[], TableQuery]) -> None:
        """The table will be read after those expected before; its reading may begin."""
        with self._changed:
            self._tables[key] = _Table(plan)
            self._changed.notify_all()
            if len(self._threads) < self._readers:
                self._threads.append(
                    threading.Thread(target=self._work, name="wal2delta-reader", daemon=True)
                )
                self._threads[-1].start()

    @property
    def next(self) -> object:
        """The key that is to be read next; None for none."""
        return next(iter(self._tables), None)

    def read(self) -> Iterator[ReadRows]:
        """All pieces of the next table."""
        key, table = next(iter(self._tables.items()))
        while True:
            with self._changed:
                while not table.pieces and not table.ended:
                    self._changed.wait(_LOOK_SECONDS)
                if table.error is not None:
                    raise table.error
                if not table.pieces:
                    del self._tables[key]
                    self._changed.notify_all()
                    return
                piece = table.pieces.popleft()
                table.held -= piece.rows.nbytes
                self._held -= piece.rows.nbytes
                self._changed.notify_all()
            yield piece
            del piece

    def close(self, cancel_plan: Callable[[], None] = lambda: None) -> None:
        """End the threads and their sessions; what was read and not taken is dropped.

        `cancel_plan` ends what a plan waits for, if anything.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            # One that waits for work ends at once; asking the server costs a connection.
            thread.join(_SOON_SECONDS)
            while thread.is_alive():
                cancel_plan()
                for session in list(self._sessions):
                    session.cancel()
                thread.join(_LOOK_SECONDS)
        self._tables.clear()

    # In the threads.

    def _work(self) -> None:
        session: RowSession | None = None
        try:
            while (found := self._next_range()) is not None:
                table, part = found
                try:
                    if session is None:
                        session = self._open_session()
                        self._sessions.append(session)
                    self._read_range(session, table, part)
                    self._put_back(table, None)
                except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                    if session is not None:
                        self._drop(session)
                    opened, session = session is not None, None
                    if not self._goes_on(table, part, error, opened=opened):
                        return
        finally:
            if session is not None:
                self._drop(session)

    def _next_range(self) -> tuple[_Table, Range] | None:
        """The first range that nobody has; waits for one; None at the end."""
        while True:
            with self._changed:
                table = next((t for t in self._tables.values() if t.waiting), None)
                if self._closing:
                    return None
                if table is not None:
                    table.open += 1
                    return table, table.waiting.popleft()
            if not self._plan_one():
                with self._changed:
                    if not self._closing:
                        self._changed.wait(_LOOK_SECONDS)

    def _plan_one(self) -> bool:
        """Divide the first table that is not; False if there is none."""
        with self._planning:
            with self._changed:
                tables = self._tables.values()
                table = next((t for t in tables if t.query is None and t.error is None), None)
            if table is None or self._closing:
                return False
            try:
                query = table.plan()
            except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                with self._changed:
                    table.error = error
                    self._changed.notify_all()
                return True
            with self._changed:
                table.query = query
                table.waiting.extend(map(Range, query.sources))
                self._changed.notify_all()
            return True

    def _read_range(self, session: RowSession, table: _Table, part: Range) -> None:
        assert table.query is not None
        behind = part.rows
        with closing(session.rows(table.query.columns, part.source)) as pieces:
            for rows in pieces:
                skipped = min(behind, len(rows))
                behind -= skipped
                if skipped == len(rows):
                    continue
                self._hand_over(table, table.query.decode(rows.after(skipped)))
                part.rows += len(rows) - skipped
                part.failures = 0
                if self._closing:
                    return

    def _hand_over(self, table: _Table, piece: ReadRows) -> None:
        size = piece.rows.nbytes
        with self._changed:
            table.pieces.append(piece)
            table.held += size
            self._held += size
            self._changed.notify_all()
            while not self._closing and self._is_ahead(table):
                self._changed.wait(_LOOK_SECONDS)

    def _is_ahead(self, table: _Table) -> bool:
        wanted = next(iter(self._tables.values()), None) is table
        return (table.held if wanted else self._held) > AHEAD_BYTES

    def _put_back(self, table: _Table, part: Range | None) -> None:
        with self._changed:
            table.open -= 1
            if part is not None:
                table.waiting.appendleft(part)
            self._changed.notify_all()

    def _goes_on(self, table: _Table, part: Range, error: BaseException, *, opened: bool) -> bool:
        """What becomes of a range that failed; whether this thread goes on."""
        part.failures += 1
        if not opened and part.failures > 1 and self._leave_to_others(table, part):
            return False
        if _is_passing(error) and part.failures < ATTEMPTS and not self._closing:
            self._put_back(table, part)
            time.sleep(_FIRST_WAIT_SECONDS * 2**part.failures)
            return True
        if isinstance(error, psycopg.Error) and table.query is not None:
            error = table.query.translate(error)
        with self._changed:
            table.error = error
        self._put_back(table, None)
        return True

    def _leave_to_others(self, table: _Table, part: Range) -> bool:
        """There may be room for fewer sessions; the last thread stays."""
        with self._changed:
            if len(self._threads) < 2:
                return False
            self._threads.remove(threading.current_thread())
        self._put_back(table, part)
        return True

    def _drop(self, session: RowSession) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
        session.close()


def _is_passing(error: BaseException) -> bool:
    """Whether another session may do better."""
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        return state is None or state.startswith(_PASSING)
    return isinstance(error, SourceUnavailable)
