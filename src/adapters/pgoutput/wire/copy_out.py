"""What a server sends during `COPY … TO STDOUT (FORMAT binary)`: from bytes to where rows lie.

No I/O. Manual: "Message Formats", CopyOutResponse, CopyData, CopyDone, ErrorResponse; "COPY",
"Binary Format". A row is always one CopyData message, see "COPY Operations" of the message flow.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

import numpy as np

from adapters.pgoutput.wire.messages import sliding
from adapters.pgoutput.wire.query_rows import COPY, PackedRows
from cdc_core.values.errors import DecodeError

if TYPE_CHECKING:
    from adapters.pgoutput.wire.text import Bytes, Positions

_HEAD_BYTES = 5
_COPY_DATA, _ERROR, _READY = ord("d"), ord("E"), ord("Z")
#: CopyOutResponse, CopyDone, CommandComplete, notices, notifications, parameters; and rows of the
#: other statements.
_OTHERS = frozenset(b"HcCNASTD")
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
#: The signature, the flags, and the length of the header extension; both must be 0.
_HEADER = _SIGNATURE + bytes(8)
_TRAILER = b"\xff\xff"


class CopyOut:
    """The response to one COPY, sent with other statements.

    `ended` is true once the server is ready for the next query. `error` then has the fields of the
    server's error, by letter, if the COPY failed.
    """

    def __init__(self) -> None:
        self.ended = False
        self.error: dict[str, str] | None = None
        self._begun = False
        self._complete = False

    def rows(self, buffer: Bytes, size: int) -> tuple[PackedRows, int]:
        """The rows of all complete messages in the first `size` bytes, and the length of these.

        `query_rows.PADDING` more bytes are readable after them. Raises `DecodeError`.
        """
        view = buffer.data
        starts = array("q")
        here = 0
        while not self.ended:
            here = _data_messages(view, here, size, starts)
            after = here + 1 + _length(view, here)
            if here + _HEAD_BYTES > size or after > size:
                break
            if view[here] == _COPY_DATA:
                raise DecodeError("a message of a COPY has an invalid length")
            self._other(view[here], view[here + _HEAD_BYTES : after].tobytes())
            here = after
        at = np.frombuffer(starts, np.int64) if len(starts) else np.empty(0, np.int64)
        lengths = sliding(buffer, ">i4")[at + 1].astype(np.int64)
        return self._tuples(buffer, at + _HEAD_BYTES, at + 1 + lengths), here

    def _tuples(self, buffer: Bytes, starts: Positions, ends: Positions) -> PackedRows:
        """The rows without the header before the first, and without the trailer after the last."""
        if len(starts) and not self._begun:
            first = int(starts[0])
            if buffer[first : first + len(_HEADER)].tobytes() != _HEADER:
                raise DecodeError("a COPY does not begin with the header of the binary format")
            self._begun = True
            starts[0] += len(_HEADER)
            if int(starts[0]) == int(ends[0]):
                starts, ends = starts[1:], ends[1:]
        if len(starts) and buffer[starts[-1] : ends[-1]].tobytes() == _TRAILER:
            self._complete = True
            starts, ends = starts[:-1], ends[:-1]
        if self.ended and self.error is None and not self._complete:
            raise DecodeError("a COPY ended without its trailer")
        return PackedRows(buffer, starts, ends, COPY)

    def _other(self, kind: int, body: bytes) -> None:
        if kind == _ERROR:
            self.error = _fields(body)
        elif kind == _READY:
            self.ended = True
        elif kind not in _OTHERS:
            raise DecodeError(f"the response to a COPY has a message of kind {chr(kind)!r}")


_big_endian = struct.Struct(">i").unpack_from


def _length(view: memoryview, here: int) -> int:
    length: int = _big_endian(view, here + 1)[0]
    return length


def _data_messages(view: memoryview, here: int, size: int, starts: array[int]) -> int:
    """Collect the starts of CopyData messages, up to the first other or incomplete one."""
    unpack, note = _big_endian, starts.append
    while view[here] == _COPY_DATA:
        after = here + 1 + unpack(view, here + 1)[0]
        if not here + _HEAD_BYTES <= after <= size:
            break
        note(here)
        here = after
    return here


def _fields(body: bytes) -> dict[str, str]:
    parts = body.split(b"\0")
    return {part[:1].decode(): part[1:].decode(errors="replace") for part in parts if part}
