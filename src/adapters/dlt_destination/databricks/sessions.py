"""Sessions of a SQL warehouse, kept open for the run and handed from one statement to the next.

dlt opens a client for every load job and every step of a package; opening a session is a round trip
and a wait of its own, so a client borrows one. A token may end while sessions are open, and the
connector keeps one that does not say when it ends for an hour: after a refusal all sessions are
dropped, and new ones are opened with credentials that are read again. Source:
`databricks-sql-connector`, "connect", `auth/token_federation.py`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.dlt_destination.databricks.retry import RetryPolicy

T = TypeVar("T")


@dataclass(eq=False)
class Login:
    """Credentials, what the connector makes of them, and whether a statement was ever accepted."""

    credentials: Any
    worked: bool = False

    @cached_property
    def parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = self.credentials.to_connector_params()
        return parameters


@dataclass(frozen=True, eq=False)
class Session:
    """A connection of the connector, and the login that opened it."""

    connection: Any
    login: Login


class Sessions:
    """A pool: as many sessions as were in use at the same time. Safe to share between threads."""

    def __init__(self, retry_policy: RetryPolicy, credentials: Callable[[], Any]) -> None:
        """`credentials` reads dlt's credentials, for each login again."""
        self.retry_policy = retry_policy
        self._credentials = credentials
        self._login: Login | None = None
        self._proven = False
        self._logging_in = threading.Lock()
        self._idle: list[Session] = []
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._asking = threading.RLock()

    def login(self) -> Login:
        """The login that new sessions are opened with."""
        with self._logging_in:
            if self._login is None:
                self._login = Login(self._credentials())
            return self._login

    def log_in_again(self, refused: Login, *, first: bool) -> bool:
        """Replace a login that was refused, unless another thread has; False where that is of no
        use: for one that never worked, unless it is the `first` that refused a statement, and one
        before it had worked."""
        with self._logging_in:
            if refused is not self._login:
                return True
            self._proven = self._proven or refused.worked
            if not (refused.worked or (first and self._proven)):
                return False
            self._login = Login(self._credentials())
        self._discard_idle()
        return True

    def borrow(self) -> Session:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        login = self.login()
        return Session(_connect(login.parameters), login)

    def give_back(self, session: Session) -> None:
        if session.login is not self._login:
            self.discard(session)
            return
        with self._lock:
            self._idle.append(session)

    def discard(self, session: Session) -> None:
        with contextlib.suppress(Exception):
            session.connection.close()

    def lost(self, session: Session) -> None:
        """The server has forgotten a session: after its restart those that are idle, too."""
        self._discard_idle(session)

    def close(self) -> None:
        """Close the sessions, and forget what was learned in them."""
        self._known = {}
        self._discard_idle()

    def _discard_idle(self, *others: Session) -> None:
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


def _connect(parameters: dict[str, Any]) -> Any:
    from databricks import sql

    # Its errors come to the caller; the text may hold statements and addresses.
    logging.getLogger("databricks").setLevel(logging.CRITICAL + 1)
    return sql.connect(**parameters, use_inline_params="silent")
