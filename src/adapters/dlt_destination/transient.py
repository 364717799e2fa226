"""What a SQL warehouse says when the same statement may well succeed a moment later, and the waits.

Every statement that we send means the same when it is sent twice, so a lost answer counts as well
as a lost question. The connector waits out 429 and 503 by itself; conflicts and lost connections
are left to us. Sources: Databricks documentation, "Error conditions", "Isolation levels and write
conflicts"; PEP 249.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Error classes of a write that lost against another one, and of a server that is busy.
_CLASSES = re.compile(
    r"DELTA_CONCURRENT_\w+|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED|CONCURRENT_\w+_EXCEPTION"
    r"|The protocol version of the Delta table has been changed"
    r"|TEMPORARILY_UNAVAILABLE|SERVICE_TEMPORARILY|REQUEST_LIMIT_EXCEEDED|RESOURCE_EXHAUSTED"
)
#: A session that the server has forgotten: idle for too long, or the warehouse was restarted.
_SESSION = re.compile(r"Invalid SessionHandle|SESSION_(?:CLOSED|NOT_FOUND|EXPIRED)", re.IGNORECASE)
_BUSY = re.compile(r"unsuccessful: (?:429|500|502|503|504)\b")
_NETWORK = ("ConnectionError", "HTTPError", "ProtocolError", "Timeout", "TimeoutError", "OSError")


def session_lost(error: BaseException) -> bool:
    """Whether the connection is of no use any more."""
    return bool(_SESSION.search(str(error))) or _on_the_network(error)


def transient(error: BaseException) -> bool:
    """Whether to send the statement again."""
    text = str(error)
    return bool(_CLASSES.search(text) or _BUSY.search(text)) or session_lost(error)


def unreachable(error: BaseException) -> bool:
    """Whether the warehouse could not be asked, for now: it is nothing in the statement."""
    return transient(error) or _names(error, "RequestError")


def refused(error: BaseException) -> bool:
    """Whether the credentials were."""
    code = getattr(error, "context", {}).get("http-code")
    return code in (401, 403) or bool(
        re.search(r"\b(?:401|403)\b|Invalid access token|UNAUTHENTICATED", str(error))
        and _names(error, "RequestError", "Unauthenticated", "PermissionDenied")
    )


def _on_the_network(error: BaseException) -> bool:
    inner = getattr(error, "context", {}).get("original-exception")
    if isinstance(inner, BaseException):
        return _names(inner, *_NETWORK)
    return _names(error, *_NETWORK)


def _names(error: BaseException, *names: str) -> bool:
    """Whether the error is of a class so named; its library need not be imported."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


@dataclass(frozen=True)
class Patience:
    """How often a statement is sent, and the waits between, each about twice the one before."""

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 20.0

    def run(self, send: Callable[[], T], before_again: Callable[[BaseException], None]) -> T:
        """What `send` returns; `before_again` is told of each transient error."""
        for attempt in range(1, self.attempts + 1):
            try:
                return send()
            except Exception as error:
                if attempt == self.attempts or not transient(error):
                    raise
                before_again(error)
            wait = min(self.first_wait * 2 ** (attempt - 1), self.longest_wait)
            time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads writers, no secret
        raise AssertionError("unreachable")


PATIENCE = Patience()
