from __future__ import annotations

from typing import Any

import pytest

from adapters.pgoutput.changes.reader_choice import Reader, choose_reader

MB = 1 << 20
STEP = 256 * MB


@pytest.mark.parametrize(
    ("backlog", "restart_distance", "more", "reader"),
    [
        (0, 0, {}, Reader.BULK),
        (10_000, 50 * MB, {}, Reader.BULK),
        (10_000, 1 * MB, {}, Reader.BULK),
        (10_000, 0, {"at_tail": True}, Reader.STREAMING),
        (500 * MB, 0, {"at_tail": True}, Reader.BULK),
        (500 * MB, 100 * MB, {}, Reader.BULK),
        (2_000 * MB, 5_000 * MB, {}, Reader.STREAMING),
        (100 * MB, 4_000 * MB, {}, Reader.BULK),
        # A transaction of that size may commit now.
        (100 * MB, 5_000 * MB, {}, Reader.STREAMING),
        (2_000 * MB, 0, {"refusal": "no free slot"}, Reader.STREAMING),
    ],
)
def test_the_cheaper_reader_is_chosen(
    backlog: int, restart_distance: int, more: dict[str, Any], reader: Reader
) -> None:
    choice = choose_reader(
        backlog_bytes=backlog,
        restart_distance_bytes=restart_distance,
        step_bytes=STEP,
        **more,
    )
    assert choice.reader is reader
    assert choice.reason
    assert "no free slot" in choice.reason or "refusal" not in more
