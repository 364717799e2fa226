"""The answer to a COPY, cut anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.pgoutput.wire.copy_out import CopyOut
from adapters.pgoutput.wire.query_rows import PADDING
from cdc_core.values.errors import DecodeError

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
ERROR = b"SERROR\0C57014\0Mcanceling statement\0\0"


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def tuple_(text: bytes) -> bytes:
    return b"\0\1" + len(text).to_bytes(4, "big") + text


def answer(texts: list[bytes], *, alone: bool = False) -> bytes:
    """`alone`: the header is a message of its own."""
    tuples = [*map(tuple_, texts), b"\xff\xff"]
    if not alone:
        tuples[0] = HEADER + tuples[0]
    data = [HEADER, *tuples] if alone else tuples
    notice = message(b"N", b"SNOTICE\0\0")
    return b"".join(
        [message(b"H", b"\1\0\0"), notice, *(message(b"d", part) for part in data),
         message(b"c"), message(b"C", b"COPY 1\0"), message(b"Z", b"T")]
    )  # fmt: skip


def read(answer: CopyOut, stream: bytes, cuts: list[int]) -> list[bytes]:
    """Feed the stream up to each cut; what is not used comes again with what follows."""
    found: list[bytes] = []
    start = 0
    for cut in [*cuts, len(stream)]:
        buffer = np.frombuffer(stream[start:cut] + b"d" * PADDING, np.uint8).copy()
        rows, used = answer.rows(buffer, cut - start)
        found += [buffer[a:b].tobytes() for a, b in zip(rows.starts, rows.ends, strict=True)]
        start += used
    return found


@settings(max_examples=100)
@given(texts=st.lists(st.binary(max_size=30), max_size=8), alone=st.booleans(), data=st.data())
def test_rows_however_the_stream_is_cut(texts: list[bytes], alone: bool, data: Any) -> None:
    stream = answer(texts, alone=alone)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    copy = CopyOut()
    assert read(copy, stream, cuts) == list(map(tuple_, texts))
    assert copy.ended
    assert copy.error is None


def test_byte_by_byte() -> None:
    stream = answer([b"one", b"", b"three"])
    assert read(CopyOut(), stream, list(range(len(stream)))) == [
        tuple_(b"one"), tuple_(b""), tuple_(b"three"),
    ]  # fmt: skip


def test_rows_without_columns() -> None:
    stream = b"".join(
        [message(b"d", HEADER + b"\0\0"), message(b"d", b"\0\0"), message(b"d", b"\xff\xff"),
         message(b"Z", b"T")]
    )  # fmt: skip
    assert read(CopyOut(), stream, []) == [b"\0\0", b"\0\0"]


def test_an_error_after_some_rows() -> None:
    stream = message(b"d", HEADER + tuple_(b"x")) + message(b"E", ERROR) + message(b"Z", b"E")
    copy = CopyOut()
    assert read(copy, stream, []) == [tuple_(b"x")]
    assert copy.error == {"S": "ERROR", "C": "57014", "M": "canceling statement"}


@pytest.mark.parametrize(
    "stream",
    [
        message(b"d", b"other" * 9),
        message(b"T", b"\0\0") + message(b"D", b"\0\0") + message(b"Z", b"T"),
        b"d\0\0\0\1" + bytes(30),
        message(b"d", HEADER + tuple_(b"x")) + message(b"c") + message(b"Z", b"T"),
    ],
    ids=["no header", "rows not copied", "no length", "no trailer"],
)
def test_anything_else_is_an_error(stream: bytes) -> None:
    with pytest.raises(DecodeError):
        read(CopyOut(), stream, [])
