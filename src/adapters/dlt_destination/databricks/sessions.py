"""Sessions of an engine, kept open for the run and reused by its statements.

dlt opens a client for every load job and every step of a package. To open a session costs a round
trip and a wait, so a client borrows one. A token can expire while sessions are open, and the
connector keeps a token without an expiry for an hour. So after a refusal all sessions are dropped,
and new ones are opened with credentials that are read again. Source: `databricks-sql-connector`,
"connect", `auth/token_federation.py`.
"""

from __future__ import annotations

import contextlib
import itertools
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
    """Credentials, their connector parameters, and whether a statement was ever accepted."""

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
    """A pool with as many sessions as were in use at the same time. Thread-safe."""

    def __init__(
        self,
        retry_policy: RetryPolicy,
        credentials: Callable[[], Any],
        connect: Callable[[dict[str, Any]], Any],
    ) -> None:
        """`credentials` reads dlt's credentials again for each login. `connect` opens a connection
        with their parameters."""
        self.retry_policy = retry_policy
        self._sent = itertools.count(1)
        #: Statements sent so far.
        self.sent = 0
        self._credentials = credentials
        self._connect = connect
        self._login: Login | None = None
        self._proven = False
        self._logging_in = threading.Lock()
        self._idle: list[Session] = []
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._asking = threading.RLock()

    def count(self) -> None:
        """Count a statement that is sent."""
        self.sent = next(self._sent)

    def login(self) -> Login:
        """Return the login for new sessions."""
        with self._logging_in:
            if self._login is None:
                self._login = Login(self._credentials())
            return self._login

    def log_in_again(self, refused: Login, *, first: bool) -> bool:
        """Replace a refused login, unless another thread has done so. Returns False if that cannot
        help: the login never worked. Exception: the `first` refusal of a statement, if an earlier
        login had worked."""
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
        return Session(self._connect(login.parameters), login)

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
        """Discard a session that the server has forgotten, and the idle ones: it may have
        restarted."""
        self._discard_idle(session)

    def close(self) -> None:
        """Close the sessions and clear the cache of `once`."""
        self._known = {}
        self._discard_idle()

    def _discard_idle(self, *others: Session) -> None:
        with self._lock:
            idle, self._idle = [*others, *self._idle], []
        if idle:  # in parallel: without a server, each takes seconds
            with ThreadPoolExecutor(len(idle)) as pool:
                list(pool.map(self.discard, idle))

    def once(self, what: str, ask: Callable[[], T]) -> T:
        """Return the first result of `ask` in this run. Empty results are not cached."""
        with self._asking:
            found: T | None = self._known.get(what)
            if not found:
                found = self._known[what] = ask()
            return found
