"""Tables read by several sessions, each its ranges, several tables side by side, within bounds.

Ranges are done in the order of the tables; pieces of the table that is wanted now always find room.
A session that is lost is opened again and goes on where its range was: what was read counts. A
range is begun when there is room for its rows, and left for later where they find none: no table
stays locked because the destination is busy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from cdc_core.values.errors import CdcError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.snapshot.row_sessions import RowSession
    from adapters.pgoutput.wire.query_rows import PackedRows, ReadRows

#: So much is read before it is wanted.
AHEAD_BYTES = 48 << 20
#: So often a range is begun again without a row of it having come in between.
ATTEMPTS = 6
_FIRST_WAIT_SECONDS = 0.2
#: So often a wait looks whether a signal has come in.
_LOOK_SECONDS = 0.5
#: A thread that waits for no server ends within this.
_SOON_SECONDS = 0.1
#: So long rows wait for room while their table is locked.
STALL_SECONDS = 1.0

_log = logging.getLogger(__name__)

#: Connection exceptions, too many connections, cancelled, shut down.
_PASSING = ("08", "53", "57")


@dataclass(eq=False)
class Range:
    """So many of its rows are read."""

    query: RowRange
    rows: int = 0
    failures: int = 0


@dataclass(frozen=True, eq=False)
class TableQuery:
    """How a table is read: its name, columns, ranges; `find_again` gives a range whose relation
    has another name by now; what becomes of packed rows, what of an error."""

    table: str
    columns: Sequence[str]
    ranges: Sequence[RowRange]
    find_again: Callable[[RowRange], RowRange]
    decode: Callable[[PackedRows], ReadRows]
    translate: Callable[[psycopg.Error], CdcError]


class _Stalled(Exception):
    """Rows find no room."""


@dataclass(eq=False)
class _Table:
    plan: Callable[[], TableQuery]
    query: TableQuery | None = None
    waiting: deque[Range] = field(default_factory=deque)
    #: Ranges that are begun and not ended.
    open: int = 0
    pieces: deque[ReadRows] = field(default_factory=deque)
    held: int = 0
    failures: int = 0
    waits: bool = False
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
                    threading.Thread(target=self._work, name="pgbronze-reader", daemon=True)
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
        """The first range that nobody has; waits for one, and for room; None at the end."""
        while True:
            with self._changed:
                tables = self._tables.values()
                table = next((t for t in tables if t.waiting and t.error is None), None)
                if self._closing:
                    return None
                if table is not None and self._held_before(table) <= AHEAD_BYTES // 2:
                    table.open += 1
                    return table, table.waiting.popleft()
            if table is not None or not self._plan_one():
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
                table.failures += 1
                if _is_passing(error) and table.failures < ATTEMPTS and not self._closing:
                    time.sleep(_FIRST_WAIT_SECONDS)
                    return True
                with self._changed:
                    table.error = error
                    self._changed.notify_all()
                return True
            with self._changed:
                table.query = query
                table.waiting.extend(map(Range, query.ranges))
                self._changed.notify_all()
            return True

    def _read_range(self, session: RowSession, table: _Table, part: Range) -> None:
        query = table.query
        assert query is not None
        source = part.query.source(part.rows)
        with closing(session.rows(query.columns, source, part.query.check)) as pieces:
            for rows in pieces:
                piece = query.decode(rows)
                part.rows += len(rows)
                part.failures = 0
                if not self._hand_over(table, piece):
                    # Else the server would send the rest first.
                    session.cancel()
                    raise _Stalled
                if self._closing:
                    return

    def _hand_over(self, table: _Table, piece: ReadRows) -> bool:
        """Whether there is room for more, by now."""
        size = piece.rows.nbytes
        give_up = time.monotonic() + STALL_SECONDS
        with self._changed:
            table.pieces.append(piece)
            table.held += size
            self._held += size
            self._changed.notify_all()
            while not self._closing and self._held_before(table) > AHEAD_BYTES:
                left = give_up - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _held_before(self, table: _Table) -> int:
        """Bytes read and not taken that stand in a table's way: its own, if it is wanted now."""
        wanted = next(iter(self._tables.values()), None) is table
        return table.held if wanted else self._held

    def _put_back(self, table: _Table, part: Range | None) -> None:
        with self._changed:
            table.open -= 1
            if part is not None:
                table.waiting.appendleft(part)
            self._changed.notify_all()

    def _goes_on(self, table: _Table, part: Range, error: BaseException, *, opened: bool) -> bool:
        """What becomes of a range that failed; whether this thread goes on."""
        if isinstance(error, _Stalled | psycopg.errors.LockNotAvailable):
            if isinstance(error, psycopg.Error):
                self._wait_for_lock(table)
            self._put_back(table, part)
            return True
        part.failures += 1
        if not opened and part.failures > 1 and self._leave_to_others(table, part):
            return False
        assert table.query is not None
        if isinstance(error, _RENAMED) and part.failures < ATTEMPTS:
            try:
                part.query = table.query.find_again(part.query)
            except (CdcError, psycopg.Error) as gone:
                error = gone
            else:
                self._put_back(table, part)
                return True
        if _is_passing(error) and part.failures < ATTEMPTS and not self._closing:
            self._put_back(table, part)
            time.sleep(_FIRST_WAIT_SECONDS * 2**part.failures)
            return True
        if isinstance(error, psycopg.Error):
            error = table.query.translate(error)
        with self._changed:
            table.error = error
        self._put_back(table, None)
        return True

    def _wait_for_lock(self, table: _Table) -> None:
        """Meanwhile whoever waits for this reader's place in the queue gets on."""
        if not table.waits and table.query is not None:
            table.waits = True
            _log.warning("table %s is locked by another session; waiting", table.query.table)
        time.sleep(_FIRST_WAIT_SECONDS)

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


#: The relation of that name is gone, or is another: what `RowRange.check` finds.
_RENAMED = (psycopg.errors.UndefinedTable, psycopg.errors.DivisionByZero)


def _is_passing(error: BaseException) -> bool:
    """Whether another session may do better."""
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        return state is None or state.startswith(_PASSING)
    return isinstance(error, SourceUnavailable)
