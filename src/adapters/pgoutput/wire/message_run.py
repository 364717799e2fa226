"""What both readers of a slot hand to the decoder: messages end to end, in pieces of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from cdc_core.values.lsn import Lsn

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from adapters.pgoutput.wire.text import Bytes

_COMMIT = ord("C")


@dataclass(frozen=True, eq=False)
class MessageRun:
    """Message i is `buffer[offsets[i]:offsets[i + 1]]`, in commit order; cut anywhere.

    `reached`: this piece ends a batch of whole transactions, and no commit that ends at or before
    it comes later in the same reading. None: the batch goes on.
    """

    buffer: Bytes
    offsets: npt.NDArray[np.int64]
    reached: Lsn | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def size(self) -> int:
        """Bytes of its messages."""
        return int(self.offsets[-1] - self.offsets[0])

    def kinds(self) -> npt.NDArray[np.uint8]:
        """First byte of each message."""
        return self.buffer[self.offsets[:-1]]

    def commits(self) -> npt.NDArray[np.int64]:
        """Indexes of the Commit messages."""
        return np.flatnonzero(self.kinds() == _COMMIT)

    def end_lsn(self, commit: int) -> Lsn:
        """Where the transaction ends whose Commit message this is: its last field but one."""
        end = int(self.offsets[commit + 1])
        return Lsn(int.from_bytes(self.buffer[end - 16 : end - 8].tobytes(), "big"))

    def part(self, start: int, stop: int, reached: Lsn | None) -> MessageRun:
        """Messages from one index up to another."""
        return MessageRun(self.buffer, self.offsets[start : stop + 1], reached)


def end_of_batch(reached: Lsn | None) -> MessageRun:
    """No messages: what came before is a batch. None: it may go on, but not at once."""
    return MessageRun(np.empty(0, np.uint8), np.zeros(1, np.int64), reached)


def cut_batches(
    pieces: Iterator[MessageRun], max_rows: int, max_bytes: int
) -> Iterator[MessageRun]:
    """End a batch behind the first transaction that reaches `max_rows` messages or `max_bytes`, and
    where a piece ends one.

    An end waits for the piece behind it: if that is only another end, they are one.
    """
    held: MessageRun | None = None
    for piece in _cut(pieces, max_rows, max_bytes):
        if held is not None and piece.reached is not None and not len(piece):
            held = held.part(0, len(held), piece.reached)
            continue
        if held is not None:
            yield held
        held = piece if piece.reached is not None else None
        if held is None:
            yield piece
        del piece
    if held is not None:
        yield held


def _cut(pieces: Iterator[MessageRun], max_rows: int, max_bytes: int) -> Iterator[MessageRun]:
    rows = size = 0
    for piece in pieces:
        if piece.reached is not None:
            yield piece
            rows = size = 0
            continue
        commits = piece.commits()
        ends = piece.offsets[commits + 1]
        start = 0
        while True:
            full = min(
                int(np.searchsorted(commits, start + max_rows - rows - 1)),
                int(np.searchsorted(ends, piece.offsets[start] + max_bytes - size)),
            )
            full = max(full, int(np.searchsorted(commits, start)))
            if full == len(commits):
                break
            commit = int(commits[full])
            yield piece.part(start, commit + 1, piece.end_lsn(commit))
            rows, size, start = 0, 0, commit + 1
        rest = piece.part(start, len(piece), None)
        if len(rest) or not len(piece):
            yield rest
        rows, size = rows + len(rest), size + rest.size


def message_run_of_arrow(messages: pa.BinaryArray) -> MessageRun:
    """The messages where they lie in an Arrow array."""
    _, offsets, data = messages.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(messages) + 1, 4 * messages.offset)
    buffer = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return MessageRun(buffer, bounds.astype(np.int64))


def arrow_of_lengths(buffer: bytearray, lengths: array[int]) -> pa.BinaryArray:
    """Messages end to end as an Arrow array, where they lie; less than 2 GB."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(np.frombuffer(lengths, np.int64), out=offsets[1:])
    return pa.Array.from_buffers(
        pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(buffer)]
    )


class WireReader(Protocol):
    """Reads one slot forward, without moving it for anyone else."""

    def read(self, until: Lsn, stop: Callable[[], bool]) -> Iterator[MessageRun]:
        """Pieces of batches until nothing that committed before `until` is left: then the last one
        has `reached >= until`.

        `stop` is asked between pieces and while waiting; the iterator then ends early.
        """
        ...

    def close(self) -> None: ...
