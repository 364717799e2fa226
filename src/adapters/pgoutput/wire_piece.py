"""What both readers of a slot hand to the decoder: messages end to end, in pieces of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator

    import numpy.typing as npt
    import pyarrow as pa

    from adapters.pgoutput.wire.text import Bytes
    from cdc_core.lsn import Lsn


@dataclass(frozen=True, eq=False)
class WirePiece:
    """Message i is `buffer[offsets[i]:offsets[i + 1]]`, in commit order; cut anywhere.

    `reached`: this piece ends a batch of whole transactions, and no commit that ends at or before
    it comes later in the same reading. None: the batch goes on.
    """

    buffer: Bytes
    offsets: npt.NDArray[np.int64]
    reached: Lsn | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1


def piece_of_lengths(
    buffer: bytearray, lengths: array[int], reached: Lsn | None = None
) -> WirePiece:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(np.frombuffer(lengths, np.int64), out=offsets[1:])
    return WirePiece(np.frombuffer(buffer, np.uint8), offsets, reached)


def piece_of_arrow(messages: pa.BinaryArray) -> WirePiece:
    """The messages where they lie in an Arrow array."""
    _, offsets, data = messages.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(messages) + 1, 4 * messages.offset)
    buffer = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return WirePiece(buffer, bounds.astype(np.int64))


class WireReader(Protocol):
    """Reads one slot forward, without moving it for anyone else."""

    def read(self, until: Lsn, stop: Callable[[], bool]) -> Iterator[WirePiece]:
        """Pieces of batches until nothing that committed before `until` is left: then the last one
        has `reached >= until`.

        `stop` is asked between pieces and while waiting; the iterator then ends early.
        """
        ...

    def close(self) -> None: ...
