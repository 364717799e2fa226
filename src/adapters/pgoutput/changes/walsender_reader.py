"""Streams a slot from a walsender, as a standby does: START_REPLICATION, messages, feedback.

A thread keeps sending feedback while the caller loads a batch, so that `wal_sender_timeout` never
ends the stream. Feedback confirms only the LSN that was passed to `confirm`.
Manual: "Streaming Replication Protocol", "Logical Streaming Replication Protocol".
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import ExecStatus

from adapters.pgoutput.changes.in_progress_transactions import (
    IN_PROGRESS_OPTIONS,
    InProgressTransactions,
)
from adapters.pgoutput.session.connection import Connection, connect
from adapters.pgoutput.session.sql_text import literal, plugin_options, quote
from adapters.pgoutput.session.wal_position import wait_until_readable
from adapters.pgoutput.slot.slot import when_not_in_use
from adapters.pgoutput.wire.message_run import arrow_of_lengths, end_of_batch, message_run_of_arrow
from cdc_core.values.lsn import ZERO_LSN, Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.wire.message_run import MessageRun

#: XLogData: kind, start, end, clock, then the message. A Commit message: kind, flags, LSN, end.
_XLOG_DATA, _KEEPALIVE = ord("w"), ord("k")
_XLOG_HEADER = 25
_COMMIT = ord("C")
_COMMIT_END = slice(_XLOG_HEADER + 10, _XLOG_HEADER + 18)
_BEGIN = ord("B")
#: A Stream Commit: kind, transaction, flags, LSN, end.
_STREAM_COMMIT = ord("c")
_STREAM_COMMIT_END = slice(_XLOG_HEADER + 14, _XLOG_HEADER + 22)
_KEEPALIVE_FORMAT = struct.Struct(">cQqB")
_STATUS_FORMAT = struct.Struct(">cQQQqB")
#: PostgreSQL's clock starts in 2000.
_EPOCH_SECONDS = 946_684_800

#: Under load, wake up for this many bytes instead of for each message, or after this time.
_WATERMARK_BYTES = 256 << 10
_WATERMARK_SECONDS = 0.005
#: A burst of this size means load.
_BURST_MESSAGES = 64

#: Bytes of a message run, roughly.
_RUN_BYTES = 16 << 20

_FEEDBACK_SECONDS = 10.0
_ASK_SECONDS = (0.01, 1.0)
_CONFIRM_SECONDS = 2.0


class WalsenderReader:
    """`WireReader` on a replication connection. A read continues where the last one ended.

    `control` is a connection for short statements. Changes up to `after` are already known. The
    server sends what committed after the later of `begin` and the slot's position. It cannot send
    a transaction in blocks that was in progress at `begin`. Raises the driver's errors.
    """

    def __init__(
        self,
        settings: SourceSettings,
        control: Connection,
        after: Lsn,
        *,
        begin: Lsn = ZERO_LSN,
        binary: bool = False,
    ) -> None:
        self._settings = settings
        self._begin = begin
        self._options = {**plugin_options(settings.pub_name, binary=binary), **IN_PROGRESS_OPTIONS}
        self._blocks = InProgressTransactions()
        self._run_bytes = min(_RUN_BYTES, settings.batch_max_bytes)
        self._control = control
        #: All commits before `position` were handed over, those before `_received` have arrived.
        self.position = after
        self._received = after
        self._flushed = ZERO_LSN
        self._buffer, self._lengths = bytearray(), array("q")
        #: Messages and bytes of the current batch that were handed over.
        self._batch_rows = self._batch_bytes = 0
        self._batch_begun: float | None = None
        self._in_transaction = False
        self._connection: Connection | None = None
        # The driver's connection is for one thread at a time.
        self._using = threading.Lock()
        self._closing = threading.Event()
        self._feedback: threading.Thread | None = None
        self._last_status = 0.0
        self._low_watermark = 1

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def open(self) -> Connection:
        """Start the stream at the position, unless it runs."""
        return self._connection or self._start()

    def read(self, until: Lsn, stop: Callable[[], bool]) -> Iterator[MessageRun]:
        wait_until_readable(self._control, until)
        pgconn = self.open().pgconn
        ask, ask_at = _ASK_SECONDS[0], 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(pgconn.socket, selectors.EVENT_READ)
            while True:
                with self._using:
                    taken = self._take_burst()
                if not self._in_transaction and (self._full() or self._received >= until):
                    self._watermark(1)
                    yield from self._end_batch()
                    if self.position >= until:
                        return
                    continue
                if len(self._buffer) >= self._run_bytes:
                    yield from self._cut()
                if stop():
                    return
                if taken:
                    ask = _ASK_SECONDS[0]
                if taken >= _BURST_MESSAGES:
                    self._watermark(_WATERMARK_BYTES)
                elif not taken:
                    self._watermark(1)
                    # Nothing arrives: ask the server for its position.
                    if time.monotonic() >= ask_at:
                        with self._using:
                            self._send_status(ask_reply=True)
                        ask_at = time.monotonic() + ask
                        ask = min(ask * 2, _ASK_SECONDS[1])
                selector.select(_WATERMARK_SECONDS if self._low_watermark > 1 else ask)
                with self._using:
                    pgconn.consume_input()

    def confirm(self, durable_lsn: Lsn) -> bool:
        """Confirm an LSN to the server, and wait briefly until the slot shows it. True if it does,
        or if the slot is gone."""
        self._flushed = max(self._flushed, durable_lsn)
        if self._connection is None:
            return False
        with self._using:
            self._send_status()
        deadline = time.monotonic() + _CONFIRM_SECONDS
        while time.monotonic() < deadline:
            row: Any = self._control.execute(
                "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots "
                "WHERE slot_name = %s",
                [str(durable_lsn), self._settings.slot_name],
            ).fetchone()
            if row is None or row[0]:
                return True
            time.sleep(0.002)
        return False

    def close(self) -> None:
        self._closing.set()
        if self._feedback is not None:
            self._feedback.join()
            self._feedback = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._blocks.close()

    def _start(self) -> Connection:
        connection = connect(self._settings, replication=True)
        options = ", ".join(f"{name} {literal(value)}" for name, value in self._options.items())
        statement = (
            f"START_REPLICATION SLOT {quote(self._settings.slot_name)} LOGICAL {self._begin} "
            f"({options})"
        )

        def begin() -> None:
            result = connection.pgconn.exec_(statement.encode())
            if result.status != ExecStatus.COPY_BOTH:
                raise psycopg.errors.error_from_result(result)

        try:
            when_not_in_use(self._control, self._settings.slot_name, begin)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._closing.clear()
        row: Any = self._control.execute(
            "SELECT extract(epoch FROM current_setting('wal_sender_timeout')::interval)::float8"
        ).fetchone()
        pause = min(_FEEDBACK_SECONDS, row[0] / 4) if row and row[0] else _FEEDBACK_SECONDS
        self._feedback = threading.Thread(
            target=self._keep_alive, args=(pause,), name="pgbronze-feedback", daemon=True
        )
        self._feedback.start()
        return connection

    def _take_burst(self) -> int:
        """Take the messages received so far. Returns their number."""
        if self._connection is None:
            raise psycopg.OperationalError("the replication connection is closed")
        pgconn = self._connection.pgconn
        get, buffer, lengths = pgconn.get_copy_data, self._buffer, self._lengths
        taken = 0
        while True:
            size, data = get(1)
            if size <= 0:
                break
            taken += 1
            if data[0] == _XLOG_DATA:
                self._batch_begun = self._batch_begun or time.monotonic()
                buffer += data[_XLOG_HEADER:]
                lengths.append(size - _XLOG_HEADER)
                kind = data[_XLOG_HEADER]
                if kind == _BEGIN:
                    self._in_transaction = True
                elif kind == _COMMIT:
                    self._in_transaction = False
                    self._moved(Lsn(int.from_bytes(data[_COMMIT_END], "big")))
                    if self._full():
                        break
                elif kind == _STREAM_COMMIT:
                    self._moved(Lsn(int.from_bytes(data[_STREAM_COMMIT_END], "big")))
                if len(buffer) >= self._run_bytes:
                    break
            elif data[0] == _KEEPALIVE:
                _, wal_end, _, wants_reply = _KEEPALIVE_FORMAT.unpack(bytes(data))
                # Within a transaction it can be before that transaction's commit.
                if not self._in_transaction:
                    self._moved(Lsn(wal_end))
                if wants_reply:
                    self._send_status()
        if size < 0:
            self._ended()
        return taken

    def _moved(self, lsn: Lsn) -> None:
        self._received = max(self._received, lsn)

    def _ended(self) -> None:
        """Raise the server's error after it ended the stream."""
        connection = self._connection
        result = connection.pgconn.get_result() if connection is not None else None
        if result is not None and result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
        raise psycopg.OperationalError("the server ended the replication stream")

    def _full(self) -> bool:
        lasted = 0.0 if self._batch_begun is None else time.monotonic() - self._batch_begun
        return (
            self._batch_rows + len(self._lengths) >= self._settings.batch_max_rows
            or self._batch_bytes + len(self._buffer) >= self._settings.batch_max_bytes
            or lasted >= self._settings.batch_max_seconds
        )

    def _cut(self) -> Iterator[MessageRun]:
        """The messages received so far that are in commit order."""
        if not self._lengths:
            return
        messages = arrow_of_lengths(self._buffer, self._lengths)
        self._batch_rows += len(self._lengths)
        self._batch_bytes += len(self._buffer)
        self._buffer, self._lengths = bytearray(), array("q")
        yield from map(message_run_of_arrow, self._blocks.put(messages))

    def _end_batch(self) -> Iterator[MessageRun]:
        self.position = self._received
        yield from self._cut()
        self._batch_rows = self._batch_bytes = 0
        self._batch_begun = None
        yield end_of_batch(self.position)

    def _send_status(self, *, ask_reply: bool = False) -> None:
        """Send a standby status update. The caller holds `_using`."""
        if self._connection is None:
            return
        clock = int((time.time() - _EPOCH_SECONDS) * 1_000_000)
        status = _STATUS_FORMAT.pack(
            b"r", self._received, self._flushed, self._flushed, clock, ask_reply
        )
        self._connection.pgconn.put_copy_data(status)
        self._connection.pgconn.flush()
        self._last_status = time.monotonic()

    def _keep_alive(self, pause: float) -> None:
        while not self._closing.wait(pause):
            # The reader notices a broken connection and raises.
            with self._using, suppress(psycopg.Error):
                if time.monotonic() - self._last_status >= pause:
                    self._send_status()

    def _watermark(self, size: int) -> None:
        """Set how many bytes must arrive before the socket counts as readable."""
        if size == self._low_watermark or self._connection is None:
            return
        if self._connection.pgconn.ssl_in_use:
            return  # OpenSSL's buffer does not count for the socket
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        self._low_watermark = size
