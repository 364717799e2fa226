"""Sessions of a SQL warehouse, kept open for the run and handed from one statement to the next.

dlt opens a client for every load job and every step of a package; opening a session is a round trip
and a wait of its own, so a client borrows one. Source: `databricks-sql-connector`, "connect".
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.dlt_destination.transient import Patience

T = TypeVar("T")


class Sessions:
    """A pool: as many sessions as were in use at the same time. Safe to share between threads."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._asking = threading.RLock()

    def borrow(self, credentials: Any) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _connect(credentials)

    def give_back(self, connection: Any) -> None:
        with self._lock:
            self._idle.append(connection)

    def discard(self, connection: Any) -> None:
        with contextlib.suppress(Exception):
            connection.close()

    def lost(self, connection: Any) -> None:
        """The server has forgotten a session: after its restart those that are idle, too."""
        self._discard_idle(connection)

    def close(self) -> None:
        """Close the sessions, and forget what was learned in them."""
        self._known = {}
        self._discard_idle()

    def _discard_idle(self, *others: Any) -> None:
        with self._lock:
            idle, self._idle = [*others, *self._idle], []
        if idle:  # at the same time: where the server is gone, each takes seconds
            with ThreadPoolExecutor(len(idle)) as pool:
                list(pool.map(self.discard, idle))

    def once(self, what: str, ask: Callable[[], T]) -> T:
        """What `ask` returned when it was asked first in this run; nothing is not remembered."""
        with self._asking:
            found: T | None = self._known.get(what)
            if not found:
                found = self._known[what] = ask()
            return found


def _connect(credentials: Any) -> Any:
    from databricks import sql

    # Its errors come to the caller; the text may hold statements and addresses.
    logging.getLogger("databricks").setLevel(logging.CRITICAL + 1)
    return sql.connect(**credentials.to_connector_params(), use_inline_params="silent")
