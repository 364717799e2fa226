"""A run of messages in one buffer: what both readers of a slot hand to the decoder.

A batch consists of one or more runs. A run may end within a transaction.
"""

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
    """Message i is `buffer[offsets[i]:offsets[i + 1]]`. Messages are in commit order.

    With `reached`, this run ends a batch of whole transactions, and the same read returns no later
    commit that ends at or before that LSN. None: the batch continues in the next run.
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
        """The end of the transaction with this Commit message: the second to last field."""
        end = int(self.offsets[commit + 1])
        return Lsn(int.from_bytes(self.buffer[end - 16 : end - 8].tobytes(), "big"))

    def between(self, start: int, stop: int, reached: Lsn | None) -> MessageRun:
        """Messages from one index up to another, as a view."""
        return MessageRun(self.buffer, self.offsets[start : stop + 1], reached)


def end_of_batch(reached: Lsn | None) -> MessageRun:
    """A run without messages, which ends a batch. None: the batch may continue, but not at once."""
    return MessageRun(np.empty(0, np.uint8), np.zeros(1, np.int64), reached)


def cut_batches(runs: Iterator[MessageRun], max_rows: int, max_bytes: int) -> Iterator[MessageRun]:
    """End a batch after the first transaction that reaches `max_rows` messages or `max_bytes`, and
    where a run ends one.

    An end is held back until the next run: if that is only another end, the two become one.
    """
    held: MessageRun | None = None
    for run in _cut(runs, max_rows, max_bytes):
        if held is not None and run.reached is not None and not len(run):
            held = held.between(0, len(held), run.reached)
            continue
        if held is not None:
            yield held
        held = run if run.reached is not None else None
        if held is None:
            yield run
        del run
    if held is not None:
        yield held


def _cut(runs: Iterator[MessageRun], max_rows: int, max_bytes: int) -> Iterator[MessageRun]:
    rows = size = 0
    for run in runs:
        if run.reached is not None:
            yield run
            rows = size = 0
            continue
        commits = run.commits()
        ends = run.offsets[commits + 1]
        start = 0
        while True:
            full = min(
                int(np.searchsorted(commits, start + max_rows - rows - 1)),
                int(np.searchsorted(ends, run.offsets[start] + max_bytes - size)),
            )
            full = max(full, int(np.searchsorted(commits, start)))
            if full == len(commits):
                break
            commit = int(commits[full])
            yield run.between(start, commit + 1, run.end_lsn(commit))
            rows, size, start = 0, 0, commit + 1
        rest = run.between(start, len(run), None)
        if len(rest) or not len(run):
            yield rest
        rows, size = rows + len(rest), size + rest.size


def message_run_of_arrow(messages: pa.BinaryArray) -> MessageRun:
    """The messages of an Arrow array, without a copy."""
    _, offsets, data = messages.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(messages) + 1, 4 * messages.offset)
    buffer = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return MessageRun(buffer, bounds.astype(np.int64))


def arrow_of_lengths(buffer: bytearray, lengths: array[int]) -> pa.BinaryArray:
    """Adjacent messages as an Arrow array, without a copy; less than 2 GB."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(np.frombuffer(lengths, np.int64), out=offsets[1:])
    return pa.Array.from_buffers(
        pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(buffer)]
    )


class WireReader(Protocol):
    """Reads one slot forward. Does not move the slot for other readers."""

    def read(self, until: Lsn, stop: Callable[[], bool]) -> Iterator[MessageRun]:
        """Runs up to all that committed before `until`: the last one has `reached >= until`.

        `stop` is called between runs and while waiting. If it is true, the iterator ends early.
        """
        ...

    def close(self) -> None: ...
