"""Chooses the reader that costs less, and says why. No other place decides this.

Costs are in bytes of WAL decoded through SQL, the cheaper way; see
`docs/explanation/reading-changes.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

#: A walsender sends message by message, which takes about four times as long for the same WAL.
_STREAMING_FACTOR = 4
#: The cost of opening a replication connection.
_OPENING_BYTES = 8 << 20
#: WAL before the slot's position is decoded again without output, which is half the work.
_AGAIN_FACTOR = 0.5
#: Up to this much, an open stream is faster, because it need not start decoding again.
_TAIL_BYTES = 16 << 20

#: A transaction open since `restart_lsn` may be as large as the WAL after it. In bulk, all of it
#: passes through the server's temporary files.
MOST_RESTART_BYTES = 4 << 30


class Reader(Enum):
    BULK = "bulk"
    STREAMING = "streaming"


@dataclass(frozen=True)
class Choice:
    reader: Reader
    reason: str


def choose_reader(
    *,
    backlog_bytes: int,
    restart_distance_bytes: int,
    step_bytes: int,
    at_tail: bool = False,
    refusal: str = "",
) -> Choice:
    """Choose for `backlog_bytes` of WAL to read, in steps of `step_bytes`.

    `restart_distance_bytes` is the distance from the slot's `restart_lsn` to the position. Each
    bulk step decodes it again, a walsender once. `at_tail`: the last read ended here a moment ago.
    `refusal`: why the server refused to read in bulk; empty if it did not.
    """
    if refusal:
        return Choice(Reader.STREAMING, f"the server refuses to read in bulk ({refusal})")
    backlog = f"{_mb(backlog_bytes)} to read"
    if at_tail and backlog_bytes <= _TAIL_BYTES:
        return Choice(Reader.STREAMING, f"{backlog}, following")
    steps = max(1, -(-backlog_bytes // step_bytes))
    again = _AGAIN_FACTOR * restart_distance_bytes
    bulk = backlog_bytes + steps * again
    streaming = _STREAMING_FACTOR * backlog_bytes + again + _OPENING_BYTES
    if bulk <= streaming and restart_distance_bytes <= MOST_RESTART_BYTES:
        return Choice(Reader.BULK, f"{backlog}, restart_lsn {_mb(restart_distance_bytes)} behind")
    return Choice(
        Reader.STREAMING,
        f"{backlog}, but restart_lsn is {_mb(restart_distance_bytes)} behind (a transaction has "
        "been open for a long time)",
    )


def _mb(size: int) -> str:
    return f"{size / (1 << 20):.1f} MB"
