"""What is sent again, and how often."""

from __future__ import annotations

import socket
import ssl

import pytest
from databricks.sql.exc import OperationalError, RequestError, ServerOperationError

from adapters.dlt_destination.databricks.retry import (
    RetryPolicy,
    away,
    refused,
    session_lost,
    transient,
    upload_refused,
)

LIMIT = "Retry request would exceed Retry policy max retry duration of 4.0 seconds"
AWAY = [
    RequestError(f"Error during request to server. {LIMIT}"),
    OperationalError("Staging operation over HTTP was unsuccessful: 503-busy"),
    ConnectionRefusedError(111, "refused"),
    TimeoutError(),
    socket.gaierror(-2, "unknown name"),
]
CONFLICTS = [
    ServerOperationError("[DELTA_CONCURRENT_APPEND] lost"),
    ServerOperationError("[DELTA_METADATA_CHANGED] lost"),
    OperationalError("Staging operation over HTTP was unsuccessful: 502-gateway"),
]
SESSIONS = [
    RequestError("Invalid SessionHandle: closed"),
    RequestError("Error during request to server. ", {"http-code": 502}),
]
LASTING = [
    ServerOperationError("[CAST_INVALID_INPUT] no"),
    RequestError("Error during request to server. ", {"http-code": 403}),
    RequestError("HTTP request error: [SSL: CERTIFICATE_VERIFY_FAILED] no"),
    ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] no"),
    FileNotFoundError(2, "no such file"),
    ValueError("no"),
]


@pytest.mark.parametrize("error", [*AWAY, *CONFLICTS, *SESSIONS, *LASTING], ids=repr)
def test_errors_are_distinguished(error: Exception) -> None:
    assert away(error) == (error in AWAY)
    assert session_lost(error) == (error in SESSIONS)
    assert transient(error) == (error not in LASTING)


LOGIN = "Error during request to server. The login was"
REFUSED = [
    RequestError("Error during request to server. ", {"http-code": 401}),
    RequestError("Error during request to server: : Token is expiring within 30 seconds. "),
    ServerOperationError("[PERMISSION_DENIED] Invalid access token."),
    RequestError(f"{LOGIN} answered with 403: Source IP address"),
    RequestError(f"{LOGIN} answered with 401: invalid_client Client authentication failed"),
]
ADMITTED = [
    RequestError(f"{LOGIN} answered with 503: busy"),
    RequestError(f"{LOGIN} not answered: [Errno 111] refused"),
    OperationalError("Staging operation over HTTP was unsuccessful: 403-<Error/>"),
    ServerOperationError("[INSUFFICIENT_PERMISSIONS] User does not have MODIFY on Table 'a.b.c'."),
]


@pytest.mark.parametrize("error", [*REFUSED, *ADMITTED], ids=repr)
def test_what_a_new_login_may_cure(error: Exception) -> None:
    assert refused(error) == (error in REFUSED)
    assert upload_refused(error) == (error is ADMITTED[2])
    assert away(error) == (error in ADMITTED[:2])


def sent(error: Exception, retry_policy: RetryPolicy) -> int:
    """How often a statement is sent that always fails so; each failure is told but the last."""
    errors: list[BaseException] = []
    with pytest.raises(type(error)):
        retry_policy.run(lambda: (_ for _ in ()).throw(error), errors.append)
    return len(errors) + 1


def test_conflicts_are_counted_and_absence_is_timed() -> None:
    retry_policy = RetryPolicy(attempts=3, first_wait=0.001, longest_wait=0.002, seconds_away=0.05)
    assert [sent(error, retry_policy) for error in (CONFLICTS[0], LASTING[0])] == [3, 1]
    assert sent(AWAY[0], retry_policy) > 3


def test_the_last_result_is_returned() -> None:
    answers = iter([AWAY[0], CONFLICTS[0], "done"])

    def send() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert RetryPolicy(attempts=2, first_wait=0.0).run(send, lambda _: None) == "done"
