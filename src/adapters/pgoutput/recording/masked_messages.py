"""Masks the values in replication messages; everything else of a message stays.

Manual: "Logical Replication Message Formats". Values must be in text format.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING

from adapters.pgoutput.wire import messages as wire
from adapters.pgoutput.wire.message_run import MessageRun, arrow_of_lengths, message_run_of_arrow
from cdc_core.values.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.recording.masked_values import MaskedValues
    from adapters.pgoutput.wire.types import TypeMap

_TUPLES = frozenset((wire.NEW_TUPLE, wire.KEY_TUPLE, wire.OLD_TUPLE))
#: Messages that hold names and numbers only.
_WITHOUT_VALUES = frozenset(b"BCRTYO")
_LOGICAL_MESSAGE = ord("M")


class MaskedMessages:
    """Follows the Relation messages of one read, from its first message on."""

    def __init__(self, values: MaskedValues, types: TypeMap) -> None:
        self._values = values
        self._types = types
        self._columns: dict[int, tuple[wire.RelationColumn, ...]] = {}

    def masked(self, runs: Iterator[MessageRun]) -> Iterator[MessageRun]:
        for run in runs:
            if not len(run):
                yield run
                continue
            buffer, lengths = bytearray(), array("q")
            offsets = run.offsets.tolist()
            data = run.buffer.tobytes()
            for start, end in pairwise(offsets):
                message = self._message(data[start:end])
                buffer += message
                lengths.append(len(message))
            made = message_run_of_arrow(arrow_of_lengths(buffer, lengths))
            yield MessageRun(made.buffer, made.offsets, run.reached)

    def _message(self, message: bytes) -> bytes:
        kind = message[0]
        if kind == wire.RELATION:
            relation = wire.parse_relation(message)
            self._columns[relation.oid] = relation.columns
        if kind in _WITHOUT_VALUES:
            return message
        if kind in wire.ROW_KINDS:
            return self._row(message)
        if kind == _LOGICAL_MESSAGE:
            # Flags, LSN, prefix, length, content.
            content = message.index(b"\0", 10) + 5
            return message[:content] + bytes(len(message) - content)
        return message[:1] + bytes(len(message) - 1)

    def _row(self, message: bytes) -> bytes:
        columns = self._columns.get(int.from_bytes(message[1:5], "big"))
        if columns is None:
            raise DecodeError("a row message precedes its Relation message")
        parts, at = [message[:5]], 5
        while at < len(message):
            if message[at] not in _TUPLES:
                raise DecodeError("a row message has an unknown tuple")
            parts.append(message[at : at + 3])
            at += 3
            for column in columns:
                kind = message[at]
                if kind in (wire.NULL, wire.UNCHANGED):
                    parts.append(message[at : at + 1])
                    at += 1
                    continue
                if kind != wire.TEXT:
                    raise DecodeError("a value is not in text format")
                end = at + 5 + int.from_bytes(message[at + 1 : at + 5], "big")
                text = message[at + 5 : end].decode()
                value = self._values.masked(
                    text, self._types[column.type_oid], column.typmod
                ).encode()
                parts += [b"t", len(value).to_bytes(4, "big"), value]
                at = end
        return b"".join(parts)
