"""Reads ahead in threads, within a memory bound, while the caller works on earlier items."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

#: How often a wait checks for signals and for `stop`.
_WAIT_SECONDS = 0.5


class ReadAhead(Generic[T]):
    """Runs generators, each in its own thread. Together they buffer at most `max_bytes`, or one
    item each.

    `size` returns an item's bytes. `cancel` ends the generators' waits, so that they raise. `take`
    raises the error of a generator.
    """

    def __init__(
        self,
        *generators: Generator[T, None, None],
        size: Callable[[T], int],
        max_bytes: int,
        cancel: Callable[[], None],
    ) -> None:
        self._size = size
        self._max_bytes = max_bytes
        self._cancel = cancel
        self._changed = threading.Condition()
        self._held: deque[T] = deque()
        self._held_bytes = 0
        self._error: BaseException | None = None
        self._running = len(generators)
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, args=[items], name="pgbronze-reader", daemon=True)
            for items in generators
        ]
        for thread in self._threads:
            thread.start()

    def take(self, stop: Callable[[], bool] = lambda: False) -> T | None:
        """The next item; None after the last, or once `stop` returns true."""
        with self._changed:
            while not self._held and self._running and self._error is None:
                if stop():
                    return None
                self._changed.wait(_WAIT_SECONDS)
            if self._error is not None:
                raise self._error
            if not self._held:
                return None
            item = self._held.popleft()
            self._held_bytes -= self._size(item)
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """End the threads and drop the buffered items."""
        with self._changed:
            self._closing = True
            self._held.clear()
            self._changed.notify_all()
        for thread in self._threads:
            while thread.is_alive():
                self._cancel()
                thread.join(_WAIT_SECONDS)

    def _run(self, items: Generator[T, None, None]) -> None:
        try:
            for item in items:
                with self._changed:
                    self._held.append(item)
                    self._held_bytes += self._size(item)
                    del item
                    self._changed.notify_all()
                    while self._held_bytes > self._max_bytes and self._held and not self._closing:
                        self._changed.wait()
                    if self._closing:
                        break
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            self._error = error
        finally:
            items.close()
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
