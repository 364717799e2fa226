"""Which errors of a SQL warehouse are worth a retry, and how long to wait.

Every statement that we send is idempotent, so a lost answer can be retried like a lost request. The
connector itself retries for a few seconds after a lost connection; this module does the rest.
Sources: Databricks documentation, "Error conditions", "Isolation levels and write conflicts";
`databricks-sql-connector`, `auth/retry.py`.
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

#: Error classes of a write that conflicts with another one, and of a busy server.
_CLASSES = re.compile(
    r"DELTA_CONCURRENT_\w+|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED|CONCURRENT_\w+_EXCEPTION"
    r"|The protocol version of the Delta table has been changed"
    r"|TEMPORARILY_UNAVAILABLE|SERVICE_TEMPORARILY|REQUEST_LIMIT_EXCEEDED|RESOURCE_EXHAUSTED"
)
#: The server has forgotten the session: it was idle for too long, or the warehouse restarted.
_SESSION = re.compile(
    r"Invalid SessionHandle|SESSION_(?:CLOSED|NOT_FOUND|EXPIRED)|Command \S+ does not exist",
    re.IGNORECASE,
)
#: Uploads, which the connector tries once.
_UPLOAD = re.compile(r"unsuccessful: (?:408|429|500|502|503|504)\b|^HTTP request error: ")
_UPLOAD_REFUSED = re.compile(r"^Staging operation over HTTP was unsuccessful: (?:400|401|403)-")
#: The workspace does not know the token, or it has expired.
_TOKEN = re.compile(
    r"invalid_client|unauthorized_client|Client authentication failed|Invalid access token"
    r"|Token is expir|[Tt]oken (?:has |is )?expired|Credential was not sent"
)
_LOGIN = re.compile(r"The login was answered with (\d+)")
#: The connector does not retry statements after these, because not all statements are idempotent.
_GATEWAY = (500, 502, 504)
#: No answer, or one that asks to retry later (429, 503).
_AWAY = re.compile(
    r"exceed Retry policy max retry duration|max retries exceeded|too many \d+ error responses"
    r"|unsuccessful: (?:429|503)\b|The login was (?:not answered|answered with (?:429|5\d\d))",
    re.IGNORECASE,
)
_LOST = {"ConnectionError", "TimeoutError", "gaierror", "MaxRetryError", "ProtocolError"}
_UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError")


def session_lost(error: BaseException) -> bool:
    """Whether the connection can no longer be used."""
    return bool(_SESSION.search(str(error))) or http_code(error) in _GATEWAY


def away(error: BaseException) -> bool:
    """Whether the warehouse is busy, starting, or out of reach for the moment."""
    text, kinds = str(error), {kind.__name__ for kind in type(error).__mro__}
    return bool(_AWAY.search(text) or kinds & _LOST) and not _UNTRUSTED.search(text)


def transient(error: BaseException) -> bool:
    """Whether to send the statement again."""
    text = str(error)
    if _UNTRUSTED.search(text):
        return False
    return away(error) or session_lost(error) or bool(_CLASSES.search(text) or _UPLOAD.search(text))


def token_refused(error: BaseException) -> bool:
    """Whether the credentials are wrong or the token has expired."""
    return bool(_TOKEN.search(str(error))) or http_code(error) == 401


def refused(error: BaseException) -> bool:
    """Whether the workspace rejected a request, for any reason."""
    return token_refused(error) or http_code(error) == 403


def upload_refused(error: BaseException) -> bool:
    """Whether the storage of a volume refused an upload: its signed URL can have expired."""
    return bool(_UPLOAD_REFUSED.search(str(error)))


def http_code(error: BaseException) -> int | None:
    """Return the HTTP status in a connector's error or in a failed login."""
    if found := _LOGIN.search(str(error)):
        return int(found[1])
    code = getattr(error, "context", {}).get("http-code")
    return code if isinstance(code, int) else None


@dataclass(frozen=True)
class RetryPolicy:
    """How often a statement is sent, and the waits in between; each is about twice the last one.

    If the warehouse does not answer, or asks to retry later, a time limit applies instead: a
    stopped warehouse takes minutes to start."""

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 20.0
    seconds_away: float = 900.0

    def run(self, send: Callable[[], T], before_again: Callable[[BaseException], None]) -> T:
        """Return the result of `send`. `before_again` receives each transient error."""
        waits = failures = 0
        give_up = 0.0
        while True:
            try:
                return send()
            except Exception as error:
                wait = min(self.first_wait * 2**waits, self.longest_wait)
                wait *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads writers, no secret
                if away(error):
                    give_up = give_up or time.monotonic() + self.seconds_away
                    if time.monotonic() + wait > give_up:
                        raise
                else:
                    failures += 1
                    if failures >= self.attempts or not transient(error):
                        raise
                before_again(error)
            time.sleep(wait)
            waits += 1


DEFAULT_RETRY_POLICY = RetryPolicy()
