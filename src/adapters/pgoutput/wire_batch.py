"""What both readers of a slot hand to the decoder: messages of whole transactions, end to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from cdc_core.lsn import Lsn


@dataclass(frozen=True, eq=False)
class WireBatch:
    """Message i is `buffer[offsets[i]:offsets[i + 1]]`; whole transactions, in commit order.

    `reached`: no commit that ends at or before it comes in a later batch of the same reading.
    """

    buffer: bytearray
    offsets: npt.NDArray[np.int64]
    reached: Lsn

    def __len__(self) -> int:
        return len(self.offsets) - 1


def wire_batch(buffer: bytearray, lengths: array[int], reached: Lsn) -> WireBatch:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(np.frombuffer(lengths, np.int64), out=offsets[1:])
    return WireBatch(buffer, offsets, reached)


class WireReader(Protocol):
    """Reads one slot forward, without moving it for anyone else."""

    def read(self, until: Lsn, stop: Callable[[], bool]) -> Iterator[WireBatch]:
        """Batches until nothing that committed before `until` is left: then `reached >= until`.

        `stop` is asked between batches and while waiting; the iterator then ends early.
        """
        ...

    def close(self) -> None: ...
