"""What a SQL warehouse says when the same statement may well succeed a moment later, and the waits.

Every statement that we send means the same when it is sent twice, so a lost answer counts as well
as a lost question. The connector sends again for a few seconds after a lost connection; all else is
here. Sources: Databricks documentation, "Error conditions", "Isolation levels and write conflicts";
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

#: Error classes of a write that lost against another one, and of a server that is busy.
_CLASSES = re.compile(
    r"DELTA_CONCURRENT_\w+|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED|CONCURRENT_\w+_EXCEPTION"
    r"|The protocol version of the Delta table has been changed"
    r"|TEMPORARILY_UNAVAILABLE|SERVICE_TEMPORARILY|REQUEST_LIMIT_EXCEEDED|RESOURCE_EXHAUSTED"
)
#: A session that the server has forgotten: idle for too long, or the warehouse was restarted.
_SESSION = re.compile(
    r"Invalid SessionHandle|SESSION_(?:CLOSED|NOT_FOUND|EXPIRED)|Command \S+ does not exist",
    re.IGNORECASE,
)
#: Uploads, which the connector tries once.
_UPLOAD = re.compile(r"unsuccessful: (?:408|429|500|502|503|504)\b|^HTTP request error: ")
_UPLOAD_REFUSED = re.compile(r"^Staging operation over HTTP was unsuccessful: (?:400|401|403)-")
#: A token that is unknown, or has ended, said by the workspace or by what a statement called there.
_TOKEN = re.compile(
    r"invalid_client|unauthorized_client|Client authentication failed|Invalid access token"
    r"|Token is expir|[Tt]oken (?:has |is )?expired|Credential was not sent"
)
_LOGIN = re.compile(r"The login was answered with (\d+)")
#: Of statements the connector leaves these alone, since others' might not be safe twice.
_GATEWAY = (500, 502, 504)
#: No answer, or one that asks to come again (429, 503).
_AWAY = re.compile(
    r"exceed Retry policy max retry duration|max retries exceeded|too many \d+ error responses"
    r"|unsuccessful: (?:429|503)\b|The login was (?:not answered|answered with (?:429|5\d\d))",
    re.IGNORECASE,
)
_LOST = {"ConnectionError", "TimeoutError", "gaierror", "MaxRetryError", "ProtocolError"}
_UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError")


def session_lost(error: BaseException) -> bool:
    """Whether the connection is of no use any more."""
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
    """Whether the credentials are wrong, or the token has ended."""
    return bool(_TOKEN.search(str(error))) or http_code(error) == 401


def refused(error: BaseException) -> bool:
    """Whether the workspace did not let a request in, for whatever reason."""
    return token_refused(error) or http_code(error) == 403


def upload_refused(error: BaseException) -> bool:
    """Whether the storage of a volume refused an upload: its address may have ended."""
    return bool(_UPLOAD_REFUSED.search(str(error)))


def http_code(error: BaseException) -> int | None:
    """The status of the HTTP answer that a connector's error tells of, or that a login got."""
    if found := _LOGIN.search(str(error)):
        return int(found[1])
    code = getattr(error, "context", {}).get("http-code")
    return code if isinstance(code, int) else None


@dataclass(frozen=True)
class RetryPolicy:
    """How often a statement is sent, and the waits between, each about twice the one before.

    A warehouse that does not answer or asks to come again is waited for by the clock instead: a
    stopped one takes minutes to start.
    """

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 20.0
    seconds_away: float = 900.0

    def run(self, send: Callable[[], T], before_again: Callable[[BaseException], None]) -> T:
        """What `send` returns; `before_again` is told of each transient error."""
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
