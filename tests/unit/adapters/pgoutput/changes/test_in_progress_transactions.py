"""Blocks of transactions under way come out as protocol version 1 has them: at their commits."""

from __future__ import annotations

import errno
import io
import itertools
import struct
import tempfile
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.pgoutput.changes.in_progress_transactions import InProgressTransactions
from cdc_core.values.errors import DecodeError
from tests.unit.adapters.pgoutput.wire import encoder

ORDERS = encoder.relation(7, "public", "orders", "d", [(True, "id", 23, -1)])
KIND = encoder.type_message(99, "public", "kind")
ORIGIN = encoder.origin(9, "elsewhere")


def start(xid: int, *, first: bool = True) -> bytes:
    return struct.pack(">cIB", b"S", xid, first)


STOP = b"E"


def stream_commit(xid: int, lsn: int, timestamp: int = 0) -> bytes:
    return struct.pack(">cIBQQq", b"c", xid, 0, lsn, lsn + 8, timestamp)


def stream_abort(xid: int, part: int) -> bytes:
    return struct.pack(">cII", b"A", xid, part)


def within(message: bytes, part: int) -> bytes:
    """A message as it is within a block."""
    return message[:1] + struct.pack(">I", part) + message[1:]


def in_commit_order(
    messages: list[bytes], cuts: list[int] | None = None, least_bytes: int = 0
) -> list[bytes]:
    bounds = [0, *sorted(min(cut, len(messages)) for cut in cuts or []), len(messages)]
    batches = (pa.array(messages[a:b], pa.binary()) for a, b in itertools.pairwise(bounds))
    ordered = list(InProgressTransactions().in_commit_order(batches, least_bytes))
    assert all(sum(map(len, batch.to_pylist())) >= least_bytes for batch in ordered[:-1])
    return [message for batch in ordered for message in batch.to_pylist()]


@dataclass
class UnderWay:
    """A transaction: its number and its parts' that are not over, what it told and still stands."""

    parts: list[int]
    told: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def xid(self) -> int:
        return self.parts[0]

    def undo(self, part: int) -> None:
        self.parts.remove(part)
        self.told = [(p, m) for p, m in self.told if p != part or m[:1] in (b"R", b"Y")]

    def committed(self, lsn: int) -> list[bytes]:
        rows = [message for _, message in self.told]
        return [encoder.begin(lsn, 5, self.xid), *rows, encoder.commit(lsn, lsn + 8, 5)]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """What a server sends in blocks, and what it sends without."""
    sent: list[bytes] = []
    expected: list[bytes] = []
    under_way: list[UnderWay] = []
    numbers = itertools.count(1000)

    def block(transaction: UnderWay, *, first: bool) -> None:
        sent.append(start(transaction.xid, first=first))
        for _ in range(draw(st.integers(0, 4))):
            if draw(st.integers(0, 4)) == 0:
                transaction.parts.append(next(numbers))
            row = encoder.insert(7, [str(next(numbers))])
            message = draw(st.sampled_from([row, row, row, ORDERS, KIND, ORIGIN]))
            if message == ORIGIN:
                sent.append(message)
                continue
            part = draw(st.sampled_from(transaction.parts))
            sent.append(within(message, part))
            transaction.told.append((part, message))
        sent.append(STOP)

    for step in range(draw(st.integers(1, 25))):
        lsn = 100 * (step + 1)
        what = draw(st.sampled_from(["small", "begin", "go on", "undo", "commit", "abort"]))
        if what == "small":
            row = encoder.insert(7, [f"small {step}"])
            small = [encoder.begin(lsn), row, encoder.commit(lsn, lsn + 8)]
            sent += small
            expected += small
        elif what == "begin":
            under_way.append(UnderWay([next(numbers)]))
            block(under_way[-1], first=True)
        elif under_way:
            one = draw(st.sampled_from(under_way))
            if what == "go on":
                block(one, first=False)
            elif what == "undo" and one.parts[1:]:
                part = draw(st.sampled_from(one.parts[1:]))
                sent.append(stream_abort(one.xid, part))
                one.undo(part)
            elif what == "commit":
                sent.append(stream_commit(one.xid, lsn, 5))
                expected += one.committed(lsn)
                under_way.remove(one)
            elif what == "abort":
                sent.append(stream_abort(one.xid, one.xid))
                under_way.remove(one)
    return sent, expected


@given(histories(), st.lists(st.integers(0, 80), max_size=6), st.integers(0, 300))
def test_transactions_come_whole_at_their_commit(
    history: tuple[list[bytes], list[bytes]], cuts: list[int], least_bytes: int
) -> None:
    sent, expected = history
    assert in_commit_order(sent, cuts, least_bytes) == expected


def test_messages_that_come_in_no_block_are_not_copied() -> None:
    small = [encoder.begin(1), encoder.insert(7, ["1"]), encoder.commit(1, 9)]
    (batch,) = InProgressTransactions().in_commit_order(iter([pa.array(small, pa.binary())]))
    assert batch.to_pylist() == small


@pytest.mark.parametrize(
    "sent",
    [
        [STOP],
        [start(1), start(2)],
        [start(1), stream_commit(1, 5)],
        [b"S\0"],
        [start(1), STOP, stream_commit(1, 5)[:-1]],
        [b"A\0"],
        [start(1), b"I\0", STOP],
    ],
)
def test_what_breaks_the_protocol_is_refused(sent: list[bytes]) -> None:
    with pytest.raises(DecodeError):
        in_commit_order(sent)


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(OSError, match="No space left") as full:
        in_commit_order([start(1), within(ORDERS, 1), STOP, stream_commit(1, 5)])
    assert full.value.filename == tempfile.gettempdir()


def test_nothing_stays_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[IO[bytes]] = []
    make = tempfile.TemporaryFile

    def noted(**options: Any) -> IO[bytes]:
        opened.append(make(**options))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    blocks = [start(xid) for xid in (1, 2, 3)]
    sent = [m for xid, s in enumerate(blocks, 1) for m in (s, within(ORDERS, xid), STOP)]
    in_commit_order([*sent, stream_commit(1, 5), stream_abort(2, 2)])
    assert [file.closed for file in opened] == [True, True, True]
