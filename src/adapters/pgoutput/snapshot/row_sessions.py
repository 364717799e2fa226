"""Sessions that return packed rows of queries, without a Python object for each row.

On a plain connection, rows are read from the socket as `COPY` sends them. libpq is idle meanwhile
and does not notice. On an encrypted connection only libpq can read. There the server packs each row
into one column, and ADBC reads it. Manual: "Message Flow", "COPY Operations"; libpq, `PQsocket`.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import psycopg

from adapters.pgoutput.session.arrow_session import ArrowSession
from adapters.pgoutput.session.connection import connect, server_major
from adapters.pgoutput.snapshot.guards import RELEASE, SAVEPOINT
from adapters.pgoutput.wire.copy_out import CopyOut
from adapters.pgoutput.wire.query_rows import PADDING, PackedRows

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.wire.text import Bytes

#: Bytes of a segment of rows, roughly.
SEGMENT_BYTES = 4 << 20
#: The reader of a socket wakes up for this many bytes, or after this time.
_WAKE_BYTES = 128 << 10
_WAKE_MILLISECONDS = 20


class RowSession(Protocol):
    """For one thread at a time, except `cancel`. Raises psycopg's errors."""

    def execute(self, statement: str) -> None: ...

    def rows(
        self, columns: Sequence[str], source: str, check: str
    ) -> Generator[PackedRows, None, None]:
        """Rows of `SELECT columns source` in segments, each in its own memory.

        Runs the statement `check` first. The locks of both end with the rows.
        """
        ...

    def cancel(self) -> None:
        """Cancel the running statement, from another thread."""
        ...

    def close(self) -> None: ...


def open_row_session(settings: SourceSettings) -> RowSession:
    """Raises the errors of `connection.connect`."""
    connection = connect(settings)
    if _is_plain(connection):
        return SocketSession(connection)
    major = server_major(connection)
    connection.close()
    return PackingSession(ArrowSession(settings, major))


def _is_plain(connection: Connection) -> bool:
    """Whether the socket carries the protocol unencrypted."""
    if connection.pgconn.ssl_in_use:
        return False
    row: Any = connection.execute(
        "SELECT encrypted FROM pg_stat_gssapi WHERE pid = pg_backend_pid()"
    ).fetchone()
    return row is None or not row[0]


class SocketSession:
    """Rows by `COPY`, read from the socket of a plain connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))

    def execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())

    def rows(
        self, columns: Sequence[str], source: str, check: str
    ) -> Generator[PackedRows, None, None]:
        copy = f"COPY (SELECT {', '.join(columns)} {source}) TO STDOUT (FORMAT binary)"
        # One message for all statements, so that there is no round trip in between.
        body = "; ".join((SAVEPOINT, check, copy, *RELEASE)).encode() + b"\0"
        self._socket.setblocking(True)
        self._socket.sendall(b"Q" + (len(body) + 4).to_bytes(4, "big") + body)
        self._socket.setblocking(False)
        answer = CopyOut()
        buffer, size = _buffer(SEGMENT_BYTES), 0
        while not answer.ended:
            size = self._fill(buffer, size)
            rows, used = answer.rows(buffer, size)
            rest = size - used
            # A row may be larger than a segment.
            full = not used and size == len(buffer) - PADDING
            following = _buffer(2 * size if full else SEGMENT_BYTES)
            following[:rest] = buffer[used:size]
            buffer, size = following, rest
            if len(rows):
                yield rows
        if answer.error is not None:
            raise _error(answer.error)

    def _fill(self, buffer: Bytes, size: int) -> int:
        """Read until the buffer is full, or nothing arrives for a moment."""
        room = len(buffer) - PADDING
        view = buffer.data
        low = min(_WAKE_BYTES, room - size)
        with suppress(OSError):  # not every platform has it
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        before = size
        while size < room:
            ready = poll.poll(_WAKE_MILLISECONDS)
            try:
                count = self._socket.recv_into(view[size:room])
            except BlockingIOError:
                if size > before:
                    break
                continue
            except OSError as error:
                raise psycopg.OperationalError(f"connection lost: {error.strerror}") from None
            if count == 0:
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            size += count
            if not ready:
                break
        return size

    def cancel(self) -> None:
        with suppress(Exception):  # the statement may just have ended
            self._connection.pgconn.get_cancel().cancel()

    def close(self) -> None:
        self._socket.close()
        self._connection.close()


class PackingSession:
    """Rows that the server packs into one value each, read by ADBC."""

    def __init__(self, session: ArrowSession) -> None:
        self._session = session
        self.execute = session.execute
        self.cancel = session.cancel
        self.close = session.close

    def rows(
        self, columns: Sequence[str], source: str, check: str
    ) -> Generator[PackedRows, None, None]:
        self.execute(SAVEPOINT)
        self.execute(check)
        statement = f"SELECT pg_catalog.record_send(ROW({', '.join(columns)})) {source}"
        for batch in self._session.stream(statement, SEGMENT_BYTES):
            if len(batch):
                yield PackedRows.of_records(batch.column(0))
        for ending in RELEASE:
            self.execute(ending)


def _buffer(size: int) -> Bytes:
    return np.empty(size + PADDING, np.uint8)


def _error(fields: dict[str, str]) -> psycopg.Error:
    try:
        kind = psycopg.errors.lookup(fields.get("C", ""))
    except KeyError:
        kind = psycopg.OperationalError
    return kind(fields.get("M", ""))
