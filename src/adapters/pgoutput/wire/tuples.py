"""TupleData of many messages at once, read column by column.

Source: PostgreSQL manual, "Logical Replication Message Formats", TupleData.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adapters.pgoutput.wire.messages import BINARY, NULL, TEXT, UNCHANGED

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from adapters.pgoutput.wire.messages import Messages
    from adapters.pgoutput.wire.text import Mask, Positions

    #: Raises `DecodeError` for the first row of the mask, with this description.
    Fail = Callable[[str, Mask], NoReturn]


@dataclass(eq=False)
class Values:
    """One column of n tuples: the position of each value, NULLs, and values that were not sent.

    `unchanged` is None if all values were sent. Both positions of a missing value are the same.
    `binary`: the values are in binary format, not text.
    """

    starts: Positions
    ends: Positions
    valid: Mask
    unchanged: Mask | None = None
    binary: bool = False

    def take(self, rows: Positions | Mask) -> Values:
        unchanged = None if self.unchanged is None else self.unchanged[rows]
        return Values(self.starts[rows], self.ends[rows], self.valid[rows], unchanged, self.binary)


def walk(
    messages: Messages, at: Positions, ends: Positions, columns: int, fail: Fail
) -> tuple[list[Values], Positions]:
    """Values of the tuples that begin at `at`, and the positions after them.

    `ends` is the end of each tuple's message. Eight bytes are readable at any position up to there.
    """
    short = at + 2 > ends
    if short.any():
        fail("is cut off", short)
    other = messages.int16(at) != columns
    if other.any():
        fail(f"has another number of columns than its Relation message, {columns}", other)
    here = at + 2
    values = []
    for _ in range(columns):
        column, here = _next_column(messages, here, ends, fail)
        values.append(column)
    return values, here


def _next_column(
    messages: Messages, here: Positions, ends: Positions, fail: Fail
) -> tuple[Values, Positions]:
    # Eight bytes at once: the kind is the first byte, the length the next four.
    words = messages.int64(here)
    kinds = words >> 56
    lengths = (words >> 24) & 0xFFFFFFFF
    sent = kinds == TEXT
    binary = False
    if not sent.all() and (kinds == BINARY).any():
        if sent.any():
            fail("has values in text and in binary format", sent)
        sent, binary = kinds == BINARY, True
    unchanged: Mask | None = None
    if sent.all():
        starts = here + 5
        after = starts + lengths
    else:
        unsent = kinds == UNCHANGED
        unknown = ~(sent | unsent | (kinds == NULL))
        unknown &= here < ends
        if unknown.any():
            fail("has a malformed value", unknown)
        starts = here + np.where(sent, 5, 1)
        after = starts + np.where(sent, lengths, 0)
        unchanged = unsent if unsent.any() else None
    beyond = after > ends
    if beyond.any():
        fail("is cut off", beyond)
    return Values(starts, after, sent, unchanged, binary), after
