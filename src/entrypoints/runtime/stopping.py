"""Stop requests for a run that follows: the first ends it cleanly, the second at once.

Nothing heavy is imported here, so that requests are handled from the start.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


logger = logging.getLogger("pgbronze")


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM or SIGINT has arrived.

    A second signal raises in the running code. A thread gets no signals, so there it stays false.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            from entrypoints.runtime.error_boundary import Interrupted

            raise KeyboardInterrupt if number == signal.SIGINT else Interrupted
        asked.set()
        # Warnings are shown even before logging is set up.
        logger.warning("stopping after the current batch; signal again to stop at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stops_after(seconds: float, asked: Callable[[], bool]) -> Callable[[], bool]:
    """Like `asked`, and true once `seconds` have passed from now."""
    end = time.monotonic() + seconds
    return lambda: asked() or time.monotonic() >= end
