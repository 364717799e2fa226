"""Sessions of a SQL warehouse, kept open for the run and handed from one statement to the next.

dlt opens a client for every load job and every step of a package; opening a session is a round trip
and a wait of its own, so a client borrows one. Source: `databricks-sql-connector`, "connect".
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.dlt_destination.transient import Patience

T = TypeVar("T")

#: The connector's own waits: long enough for a warehouse that has to start (503 until then), where
#: the connector's default would wait a minute each time, and up to a quarter of an hour.
_WAITS = {"_retry_delay_min": 1.0, "_retry_delay_max": 10.0, "_retry_stop_after_attempts_count": 30}
_REACH_SECONDS = 10
_TIME_ZONE = "spark.sql.session.timeZone"


class Sessions:
    """A pool: as many sessions as were in use at the same time. Safe to share between threads."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._asking = threading.Lock()

    def borrow(self, credentials: Any) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.patience.run(lambda: _connect(credentials), lambda _: None)

    def give_back(self, connection: Any) -> None:
        with self._lock:
            self._idle.append(connection)

    def discard(self, connection: Any) -> None:
        with contextlib.suppress(Exception):
            connection.close()

    def close(self) -> None:
        """Close the sessions, and forget what was learned in them."""
        with self._lock:
            idle, self._idle = self._idle, []
        self._known = {}
        for connection in idle:
            self.discard(connection)

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
    parameters = {**_WAITS, "enable_telemetry": False, **credentials.to_connector_params()}
    _reach(parameters.get("_connection_uri") or f"https://{parameters['server_hostname']}")
    # Timestamps without a zone are then the same in both Parquet readings of them.
    settings = {_TIME_ZONE: "UTC", **(parameters.pop("session_configuration", None) or {})}
    return sql.connect(**parameters, session_configuration=settings, use_inline_params="silent")


def _reach(uri: str) -> None:
    """Fail soon where nobody answers: the connector would try as long as for a busy server."""
    if getproxies().get("https"):
        return
    place = urlsplit(uri)
    socket.create_connection((place.hostname or "", place.port or 443), _REACH_SECONDS).close()
