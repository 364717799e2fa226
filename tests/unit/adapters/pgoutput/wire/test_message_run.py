"""Cutting pieces into batches of whole transactions, against counting one message at a time."""

from __future__ import annotations

import itertools
from array import array

from hypothesis import given
from hypothesis import strategies as st

from adapters.pgoutput.wire.message_run import (
    MessageRun,
    arrow_of_lengths,
    cut_batches,
    end_of_batch,
    message_run_of_arrow,
)
from cdc_core.values.lsn import Lsn
from tests.unit.adapters.pgoutput.wire import encoder


def messages_of(piece: MessageRun) -> list[bytes]:
    bounds = zip(piece.offsets[:-1].tolist(), piece.offsets[1:].tolist(), strict=True)
    return [piece.buffer[start:end].tobytes() for start, end in bounds]


def piece(messages: list[bytes]) -> MessageRun:
    lengths = array("q", map(len, messages))
    return message_run_of_arrow(arrow_of_lengths(bytearray(b"".join(messages)), lengths))


def counted(messages: list[bytes], max_rows: int, max_bytes: int) -> list[list[bytes]]:
    batches: list[list[bytes]] = [[]]
    for message in messages:
        batches[-1].append(message)
        size = sum(map(len, batches[-1]))
        if message[:1] == b"C" and (len(batches[-1]) >= max_rows or size >= max_bytes):
            batches.append([])
    return batches


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.integers(0, 60), max_size=6),
    st.integers(1, 15),
    st.integers(1, 400),
)
def test_a_batch_ends_behind_the_first_transaction_that_reaches_a_limit(
    sizes: list[int], cuts: list[int], max_rows: int, max_bytes: int
) -> None:
    messages = []
    for number, size in enumerate(sizes):
        lsn = 100 * number + 50
        rows = [encoder.insert(7, [str(row)]) for row in range(size)]
        messages += [encoder.begin(lsn), *rows, encoder.commit(lsn, lsn + 8)]
    bounds = [0, *sorted(min(cut, len(messages)) for cut in cuts), len(messages)]
    pieces = [piece(messages[a:b]) for a, b in itertools.pairwise(bounds)]
    batches: list[list[bytes]] = [[]]
    for part in cut_batches(iter(pieces), max_rows, max_bytes):
        batches[-1] += messages_of(part)
        if part.reached is not None:
            assert part.reached == int.from_bytes(batches[-1][-1][10:18], "big")
            batches.append([])
    assert batches == counted(messages, max_rows, max_bytes)


def test_a_batch_ends_where_a_piece_ends_one() -> None:
    one = [encoder.begin(50), encoder.insert(7, ["1"]), encoder.commit(50, 58)]
    pieces = [piece(one), end_of_batch(Lsn(90)), piece(one), piece(one), piece(one)]
    pieces += [end_of_batch(Lsn(95)), end_of_batch(Lsn(99))]
    parts = list(cut_batches(iter(pieces), 6, 1000))
    assert [part.reached for part in parts if part.reached is not None] == [90, 58, 99]


def test_a_batch_that_is_full_at_the_end_of_all_ends_there() -> None:
    one = [encoder.begin(50), encoder.insert(7, ["1"]), encoder.commit(50, 58)]
    pieces = [piece(one), piece(one), end_of_batch(None), piece(one), end_of_batch(Lsn(99))]
    parts = [(len(part), part.reached) for part in cut_batches(iter(pieces), 3, 1000)]
    assert [part for part in parts if part != (0, None)] == [(3, 58), (3, 58), (3, 99)]
