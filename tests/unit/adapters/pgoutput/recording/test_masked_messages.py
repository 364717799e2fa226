"""Messages whose values are masked: everything else of them stays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from adapters.pgoutput.recording.masked_messages import MaskedMessages
from adapters.pgoutput.recording.masked_values import MaskedValues
from adapters.pgoutput.wire.message_run import MessageRun
from adapters.pgoutput.wire.types import TypeMap
from cdc_core.values.errors import DecodeError
from cdc_core.values.lsn import Lsn

MASK = MaskedValues(b"1" * 32)
TEXT = (25).to_bytes(4, "big")
RELATION = (
    b"R" + (7).to_bytes(4, "big") + b"public\0people\0d\x00\x02"
    + b"\x01id\0" + (23).to_bytes(4, "big") + b"\xff\xff\xff\xff"
    + b"\x00note\0" + TEXT + b"\xff\xff\xff\xff"
)  # fmt: skip
ROW = (7).to_bytes(4, "big")


def run_of(*messages: bytes, reached: Lsn | None = None) -> MessageRun:
    offsets = np.cumsum([0, *map(len, messages)], dtype=np.int64)
    return MessageRun(np.frombuffer(b"".join(messages), np.uint8), offsets, reached)


def masked(*messages: bytes) -> list[bytes]:
    run = run_of(RELATION, *messages, reached=Lsn(5))
    (found,) = MaskedMessages(MASK, TypeMap()).masked(iter([run]))
    assert found.reached == Lsn(5)
    data, offsets = found.buffer.tobytes(), found.offsets.tolist()
    parts = [data[a:b] for a, b in pairwise(offsets)]
    assert parts[0] == RELATION
    return parts[1:]


def value(text: str) -> bytes:
    return b"t" + len(text.encode()).to_bytes(4, "big") + text.encode()


def replaced(text: str, oid: int = 25) -> bytes:
    return value(str(MASK.masked(text, TypeMap()[oid])))


def test_every_tuple_of_a_row_message() -> None:
    update = b"U" + ROW + b"K\x00\x02" + value("17") + b"n" + b"N\x00\x02" + value("18") + b"u"
    insert = b"I" + ROW + b"N\x00\x02" + value("17") + value("Ada")
    delete = b"D" + ROW + b"O\x00\x02" + value("17") + value("Ada")
    seventeen, eighteen = replaced("17", 23), replaced("18", 23)
    assert masked(update, insert, delete) == [
        b"U" + ROW + b"K\x00\x02" + seventeen + b"n" + b"N\x00\x02" + eighteen + b"u",
        b"I" + ROW + b"N\x00\x02" + seventeen + replaced("Ada"),
        b"D" + ROW + b"O\x00\x02" + seventeen + replaced("Ada"),
    ]


def test_messages_without_values_stay() -> None:
    truncate = b"T" + (1).to_bytes(4, "big") + b"\x00" + ROW
    others = (b"B" + bytes(20), b"C" + bytes(25), truncate, b"O" + bytes(8) + b"origin\0")
    assert masked(*others) == [*others]


def test_the_content_of_logical_messages_and_of_unknown_kinds_is_removed() -> None:
    logical = b"M\x01" + bytes(8) + b"prefix\0" + (6).to_bytes(4, "big") + b"secret"
    assert masked(logical) == [logical[:-6] + bytes(6)]
    assert masked(b"?secret") == [b"?" + bytes(6)]


def test_what_cannot_be_masked_is_an_error() -> None:
    for message in (
        b"I" + (8).to_bytes(4, "big") + b"N\x00\x01" + value("17"),
        b"I" + ROW + b"X\x00\x02" + value("17") + b"n",
        b"I" + ROW + b"N\x00\x02b\x00\x00\x00\x04\x00\x00\x00\x11n",
    ):
        with pytest.raises(DecodeError):
            masked(message)


def test_a_run_without_messages_stays() -> None:
    run = run_of(reached=Lsn(9))
    assert list(MaskedMessages(MASK, TypeMap()).masked(iter([run]))) == [run]
