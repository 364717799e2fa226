"""Puts transactions that arrive in progress into commit order.

With `streaming`, the server sends a transaction larger than its `logical_decoding_work_mem` in
blocks while it decodes it. Otherwise it would write all changes to its disk and read them back,
which takes more than twice the time. Here the blocks wait in a temporary file for the commit.
Manual: "Logical Streaming Replication Protocol", "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
import tempfile
from contextlib import closing, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters.pgoutput.wire.message_run import message_run_of_arrow
from adapters.pgoutput.wire.messages import RELATION, sliding
from cdc_core.values.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

#: The options of pgoutput that request this.
IN_PROGRESS_OPTIONS = {"proto_version": "2", "streaming": "on"}

_START, _STOP, _COMMIT, _ABORT = b"S", b"E", b"c", b"A"
_MARKS = np.zeros(256, np.bool_)
_MARKS[[kind[0] for kind in (_START, _STOP, _COMMIT, _ABORT)]] = True
#: Descriptions of tables are kept even after an abort: the server sends them once per transaction.
_ALWAYS_KEPT = [RELATION, ord("Y")]
#: The only message in a block without a transaction number. It has no rows.
_ORIGIN = ord("O")
#: The kind and the transaction number.
_HEAD = 5
_SCHEMA = pa.schema([("message", pa.binary()), ("subtransaction", pa.uint32())])


class InProgressTransactions:
    """The transactions of one read that have not committed yet.

    Those that are left when the read ends are dropped.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        #: The transaction with an open block.
        self._block: _Waiting | None = None

    def put(self, messages: pa.BinaryArray) -> Iterator[pa.BinaryArray]:
        """Add messages. Yields those that are in commit order now, as in protocol version 1.

        Exhaust the iterator. Raises `DecodeError`, and `OSError` if the disk is full.
        """
        start = 0
        for mark in np.flatnonzero(_MARKS[message_run_of_arrow(messages).kinds()]).tolist():
            yield from self._take(messages.slice(start, mark - start))
            yield from self._handle(messages[mark].as_py())
            start = mark + 1
        yield from self._take(messages.slice(start))

    def close(self) -> None:
        for transaction in self._waiting.values():
            transaction.close()
        self._waiting.clear()

    def in_commit_order(
        self, batches: Iterator[pa.BinaryArray], least_bytes: int = 0
    ) -> Iterator[pa.BinaryArray]:
        """`put` for each batch. Small results are combined until they have `least_bytes`."""
        return _together(self._put_all(batches), least_bytes)

    def _put_all(self, batches: Iterator[pa.BinaryArray]) -> Generator[pa.BinaryArray, None, None]:
        try:
            for messages in batches:
                yield from self.put(messages)
                del messages
        finally:
            self.close()

    def _take(self, messages: pa.BinaryArray) -> Iterator[pa.BinaryArray]:
        if len(messages) and self._block is not None:
            self._block.put(messages)
        elif len(messages):
            yield messages

    def _handle(self, message: bytes) -> Iterator[pa.BinaryArray]:
        kind = message[:1]
        if (kind == _STOP) is (self._block is None):
            raise DecodeError("blocks of streamed transactions do not alternate with their ends")
        try:
            if kind == _START:
                (xid, _) = struct.unpack(">IB", message[1:])
                self._block = self._waiting.setdefault(xid, _Waiting())
            elif kind == _STOP:
                self._block = None
            elif kind == _ABORT:
                xid, subtransaction = struct.unpack_from(">II", message, 1)
                if xid == subtransaction:
                    self._waiting.pop(xid, _Waiting()).close()
                elif xid in self._waiting:
                    self._waiting[xid].aborted.append(subtransaction)
            else:
                xid, flags, commit_lsn, end_lsn, at = struct.unpack(">IBQQq", message[1:])
                yield _array([struct.pack(">cQqI", b"B", commit_lsn, at, xid)])
                with closing(self._waiting.pop(xid, _Waiting())) as transaction:
                    yield from transaction.messages()
                yield _array([struct.pack(">cBQQq", b"C", flags, commit_lsn, end_lsn, at)])
        except struct.error:
            raise DecodeError("a message of a streamed transaction has a wrong length") from None


class _Waiting:
    """Messages of one transaction, in an unnamed temporary file."""

    def __init__(self) -> None:
        #: Its subtransactions that were rolled back.
        self.aborted: list[int] = []
        self._file: IO[bytes] | None = None
        self._writer: Any = None

    def put(self, messages: pa.BinaryArray) -> None:
        """Store messages, without the transaction number that they have in blocks only."""
        run = message_run_of_arrow(messages)
        starts = run.offsets[:-1]
        if (np.diff(run.offsets) < _HEAD).any():
            raise DecodeError("a message of a streamed transaction is too short")
        subtransactions = sliding(run.buffer, ">u4")[starts + 1].astype(np.uint32)
        bare = pc.binary_replace_slice(messages, 1, _HEAD, b"")
        batch = pa.record_batch([bare, pa.array(subtransactions)], _SCHEMA)
        with _disk():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="pgbronze-")  # noqa: SIM115 - closed by `close`
                self._writer = pa.ipc.new_stream(self._file, _SCHEMA)
            # An empty batch would be read back without offsets.
            if len(batch := batch.filter(pa.array(run.kinds() != _ORIGIN))):
                self._writer.write_batch(batch)

    def messages(self) -> Iterator[pa.BinaryArray]:
        """The stored messages that were not rolled back."""
        if self._file is None:
            return
        with _disk():
            self._writer.close()
            self._file.seek(0)
        for batch in pa.ipc.open_stream(self._file):
            messages, subtransactions = batch.columns
            if self.aborted:
                kept = np.isin(subtransactions.to_numpy(), self.aborted, invert=True)
                kept |= np.isin(message_run_of_arrow(messages).kinds(), _ALWAYS_KEPT)
                messages = messages.filter(pa.array(kept))
            if len(messages):
                yield messages

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # unwritten data may not fit on the disk
                self._file.close()


def _together(batches: Iterator[pa.BinaryArray], least_bytes: int) -> Iterator[pa.BinaryArray]:
    held: list[pa.BinaryArray] = []
    size = 0
    for messages in batches:
        held.append(messages)
        size += message_run_of_arrow(messages).size
        del messages
        if size >= least_bytes:
            yield held[0] if len(held) == 1 else pa.concat_arrays(held)
            held, size = [], 0
    if held:
        yield pa.concat_arrays(held)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None


def _array(messages: list[bytes]) -> pa.BinaryArray:
    return pa.array(messages, pa.binary())
