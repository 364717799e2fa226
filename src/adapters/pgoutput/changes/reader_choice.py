"""Which of the two readers costs less, and why: the one home of that decision.

Costs are in bytes of WAL decoded by SQL, the cheaper way; see
`docs/explanation/reading-changes.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

#: A walsender sends message by message: about four times the time for the same WAL.
_STREAMING_FACTOR = 4
#: Opening a replication connection, in WAL that could be decoded meanwhile.
_OPENING_BYTES = 8 << 20
#: WAL before the slot's position is decoded again without output: about half the work.
_AGAIN_FACTOR = 0.5
#: Up to this much an open stream is the quicker, for it need not start to decode anew.
_TAIL_BYTES = 16 << 20

#: A transaction open since `restart_lsn` may be as large as what lies between, and by SQL all of it
#: goes through the server's temporary files.
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

    `restart_distance_bytes` is from the slot's `restart_lsn` to the position: what every bulk step
    decodes again, a stream once. `at_tail`: reading goes on where it ended a moment ago. `refusal`:
    why the server would not read in bulk, if it was asked.
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
        "been open for long)",
    )


def _mb(size: int) -> str:
    return f"{size / (1 << 20):.1f} MB"
