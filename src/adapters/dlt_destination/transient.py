"""What a SQL warehouse says when the same statement may well succeed a moment later, and the waits.

Every statement that we send means the same when it is sent twice, so a lost answer counts as well
as a lost question. The connector itself waits out 429, 503 and lost connections; conflicts, uploads
and gateways are left to us. Sources: Databricks documentation, "Error conditions", "Isolation
levels and write conflicts"; `databricks-sql-connector`, `auth/retry.py`.
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
#: Uploads, which the connector tries once.
_UPLOAD = re.compile(r"unsuccessful: (?:408|429|500|502|503|504)\b|^HTTP request error: ")
#: Of statements the connector leaves these alone, since others' might not be safe twice.
_GATEWAY = (500, 502, 504)


def session_lost(error: BaseException) -> bool:
    """Whether the connection is of no use any more."""
    return bool(_SESSION.search(str(error))) or http_code(error) in _GATEWAY


def transient(error: BaseException) -> bool:
    """Whether to send the statement again."""
    text = str(error)
    return (
        bool(_CLASSES.search(text) or _UPLOAD.search(text))
        or session_lost(error)
        or isinstance(error, OSError)
    )


def http_code(error: BaseException) -> int | None:
    """The status of the HTTP answer that a connector's error tells of."""
    code = getattr(error, "context", {}).get("http-code")
    return code if isinstance(code, int) else None


@dataclass(frozen=True)
class Patience:
    """How often a statement is sent, and the waits between, each about twice the one before."""

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 20.0

    def run(self, send: Callable[[], T], before_again: Callable[[BaseException], None]) -> T:
        """What `send` returns; `before_again` is told of each transient error."""
        attempt = 1
        while True:
            try:
                return send()
            except Exception as error:
                if attempt == self.attempts or not transient(error):
                    raise
                before_again(error)
            wait = min(self.first_wait * 2 ** (attempt - 1), self.longest_wait)
            time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads writers, no secret
            attempt += 1


PATIENCE = Patience()
