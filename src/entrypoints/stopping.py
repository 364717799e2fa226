"""Stop requests for a run that follows the stream: the first asks, the second insists."""

from __future__ import annotations

import math
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from entrypoints.faults import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextmanager
def stop_requests(
    told: Callable[[str], None], seconds: float = math.inf
) -> Iterator[Callable[[], bool]]:
    """Yields the question whether to stop: SIGTERM or SIGINT came, or the seconds are over.

    A second signal raises where the run is. In a thread, which gets no signals, only time counts.
    """
    asked = threading.Event()
    end = time.monotonic() + seconds

    def stop() -> bool:
        return asked.is_set() or time.monotonic() >= end

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt if number == signal.SIGINT else Interrupted
        asked.set()
        told("stopping after the batch in hand; once more to stop at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
