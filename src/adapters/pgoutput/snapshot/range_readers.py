"""Reads tables with several sessions: several row ranges, and several tables, at the same time.

Ranges are started in the order of the tables. Memory is bounded, but chunks of the table that is
wanted now always find room. A lost session is opened again and continues within its range. A range
starts when there is room for its rows. If they find no room later, the range is put back and its
lock released, so that no table stays locked because the destination is busy.
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

from cdc_core.values.errors import CdcError, SnapshotGone, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.snapshot.row_sessions import RowSession
    from adapters.pgoutput.wire.query_rows import PackedRows, ReadRows

#: Bytes that are read before they are wanted.
AHEAD_BYTES = 48 << 20
#: Attempts to read a range without receiving a row of it.
ATTEMPTS = 6
_FIRST_WAIT_SECONDS = 0.2
#: How often a wait checks for signals.
_POLL_SECONDS = 0.5
#: A thread that does not wait for a server ends within this time.
_SOON_SECONDS = 0.1
#: How long rows wait for room while their table is locked.
STALL_SECONDS = 1.0

_log = logging.getLogger(__name__)

#: Connection exceptions, too many connections, cancelled, shut down.
_TEMPORARY = ("08", "53", "57")


@dataclass(eq=False)
class Range:
    """A row range, with the number of rows read so far."""

    query: RowRange
    rows: int = 0
    failures: int = 0


@dataclass(frozen=True, eq=False)
class TableQuery:
    """How to read a table: its name, columns and ranges.

    `find_again` returns a range under the relation's new name. `decode` decodes packed rows, and
    `translate` makes our error from the driver's.
    """

    table: str
    columns: Sequence[str]
    ranges: Sequence[RowRange]
    find_again: Callable[[RowRange], RowRange]
    decode: Callable[[PackedRows], ReadRows]
    translate: Callable[[psycopg.Error], CdcError]


class _Stalled(Exception):
    """There was no room for rows."""


@dataclass(eq=False)
class _Table:
    plan: Callable[[], TableQuery]
    query: TableQuery | None = None
    waiting: deque[Range] = field(default_factory=deque)
    #: Ranges that were started and have not ended.
    open: int = 0
    chunks: deque[ReadRows] = field(default_factory=deque)
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
    """`open_session` opens a session in the snapshot. At most `readers` are open. They read up to
    about `ahead_bytes` before they are wanted.

    A key, of any type, names what is read. `expect` and `read` are for one thread.
    """

    def __init__(
        self, open_session: Callable[[], RowSession], readers: int, ahead_bytes: int | None = None
    ) -> None:
        self._open_session = open_session
        self._ahead_bytes = AHEAD_BYTES if ahead_bytes is None else ahead_bytes
        self._changed = threading.Condition()
        #: Held while asking the catalog.
        self._planning = threading.Lock()
        self._tables: dict[object, _Table] = {}
        self._sessions: list[RowSession] = []
        self._readers = readers
        self._threads: list[threading.Thread] = []
        self._held = 0
        self._closing = False

    def expect(self, key: object, plan: Callable[[], TableQuery]) -> None:
        """Queue a table after those queued before. Sessions may start to read it."""
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
        """The key that is read next; None if nothing is queued."""
        return next(iter(self._tables), None)

    def read(self) -> Iterator[ReadRows]:
        """All chunks of the next table in the queue."""
        key, table = next(iter(self._tables.items()))
        while True:
            with self._changed:
                while not table.chunks and not table.ended:
                    self._changed.wait(_POLL_SECONDS)
                if table.error is not None:
                    raise table.error
                if not table.chunks:
                    del self._tables[key]
                    self._changed.notify_all()
                    return
                chunk = table.chunks.popleft()
                table.held -= chunk.rows.nbytes
                self._held -= chunk.rows.nbytes
                self._changed.notify_all()
            yield chunk
            del chunk

    def close(self, cancel_plan: Callable[[], None] = lambda: None) -> None:
        """End the threads and their sessions, and drop chunks that were not taken.

        `cancel_plan` cancels the statement of a plan, if one runs.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            # An idle thread ends at once. Cancelling would cost a connection.
            thread.join(_SOON_SECONDS)
            while thread.is_alive():
                cancel_plan()
                for session in list(self._sessions):
                    session.cancel()
                thread.join(_POLL_SECONDS)
        self._tables.clear()

    # These run in the threads.

    def _work(self) -> None:
        session: RowSession | None = None
        try:
            while (found := self._next_range()) is not None:
                table, range_ = found
                try:
                    if session is None:
                        session = self._open_session()
                        self._sessions.append(session)
                    self._read_range(session, table, range_)
                    self._put_back(table, None)
                except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                    if session is not None:
                        self._drop(session)
                    opened, session = session is not None, None
                    if not self._continues(table, range_, error, opened=opened):
                        return
        finally:
            if session is not None:
                self._drop(session)

    def _next_range(self) -> tuple[_Table, Range] | None:
        """The first range that no thread has. Waits for one and for room; None at the end."""
        while True:
            with self._changed:
                tables = self._tables.values()
                table = next((t for t in tables if t.waiting and t.error is None), None)
                if self._closing:
                    return None
                if table is not None and self._held_before(table) <= self._ahead_bytes // 2:
                    table.open += 1
                    return table, table.waiting.popleft()
            if table is not None or not self._plan_one():
                with self._changed:
                    if not self._closing:
                        self._changed.wait(_POLL_SECONDS)

    def _plan_one(self) -> bool:
        """Plan the first table that has no query yet; False if there is none."""
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
                if _is_temporary(error) and table.failures < ATTEMPTS and not self._closing:
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

    def _read_range(self, session: RowSession, table: _Table, range_: Range) -> None:
        query = table.query
        assert query is not None
        source = range_.query.source(range_.rows)
        with closing(session.rows(query.columns, source, range_.query.check)) as segments:
            for rows in segments:
                chunk = query.decode(rows)
                range_.rows += len(rows)
                range_.failures = 0
                if not self._hand_over(table, chunk):
                    # Otherwise the server would send the rest first.
                    session.cancel()
                    raise _Stalled
                if self._closing:
                    return

    def _hand_over(self, table: _Table, chunk: ReadRows) -> bool:
        """Hand over a chunk and wait for room; False if there is none in time."""
        size = chunk.rows.nbytes
        give_up = time.monotonic() + STALL_SECONDS
        with self._changed:
            table.chunks.append(chunk)
            table.held += size
            self._held += size
            self._changed.notify_all()
            while not self._closing and self._held_before(table) > self._ahead_bytes:
                left = give_up - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _held_before(self, table: _Table) -> int:
        """Bytes that were not taken yet and count against a table: its own, if it is wanted now."""
        wanted = next(iter(self._tables.values()), None) is table
        return table.held if wanted else self._held

    def _put_back(self, table: _Table, range_: Range | None) -> None:
        with self._changed:
            table.open -= 1
            if range_ is not None:
                table.waiting.appendleft(range_)
            self._changed.notify_all()

    def _continues(
        self, table: _Table, range_: Range, error: BaseException, *, opened: bool
    ) -> bool:
        """Put a failed range back, or fail its table. Returns whether this thread continues."""
        if isinstance(error, _Stalled | psycopg.errors.LockNotAvailable):
            if isinstance(error, psycopg.Error):
                self._wait_for_lock(table)
            self._put_back(table, range_)
            return True
        range_.failures += 1
        if not opened and range_.failures > 1 and self._leave_to_others(table, range_):
            return False
        assert table.query is not None
        if isinstance(error, _RENAMED) and range_.failures < ATTEMPTS:
            try:
                range_.query = table.query.find_again(range_.query)
            except (CdcError, psycopg.Error) as gone:
                error = gone
            else:
                self._put_back(table, range_)
                return True
        if _is_temporary(error) and range_.failures < ATTEMPTS and not self._closing:
            self._put_back(table, range_)
            time.sleep(_FIRST_WAIT_SECONDS * 2**range_.failures)
            return True
        if isinstance(error, psycopg.Error):
            error = table.query.translate(error)
        with self._changed:
            table.error = error
        self._put_back(table, None)
        return True

    def _wait_for_lock(self, table: _Table) -> None:
        """Pause, so that sessions queued behind this reader's lock request can proceed."""
        if not table.waits and table.query is not None:
            table.waits = True
            _log.warning("table %s is locked by another session; waiting", table.query.table)
        time.sleep(_FIRST_WAIT_SECONDS)

    def _leave_to_others(self, table: _Table, range_: Range) -> bool:
        """End this thread if it is not the last: the server may allow fewer sessions."""
        with self._changed:
            if len(self._threads) < 2:
                return False
            self._threads.remove(threading.current_thread())
        self._put_back(table, range_)
        return True

    def _drop(self, session: RowSession) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
        session.close()


#: Errors of `RowRange.check` if the relation has another name now.
_RENAMED = (psycopg.errors.UndefinedTable, psycopg.errors.DivisionByZero)


def _is_temporary(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        return state is None or state.startswith(_TEMPORARY)
    return isinstance(error, SourceUnavailable) and not isinstance(error, SnapshotGone)
