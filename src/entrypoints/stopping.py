"""Stop requests for a run that follows the stream: the first asks, the second insists."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from entrypoints.faults import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextmanager
def stop_requests(told: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yields the question whether SIGTERM or SIGINT came; a second one raises where the run is."""
    asked = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt if number == signal.SIGINT else Interrupted
        asked.set()
        told("stopping after the batch in hand; once more to stop at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
