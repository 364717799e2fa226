"""What the operator is told of errors that no local server can make."""

from __future__ import annotations

import pytest
from databricks.sql.exc import OperationalError, RequestError, ServerOperationError

from adapters.dlt_destination.databricks.errors import error_for

SIGNED = "/lake/part.parquet?sv=2024&sig=SeCrEtSiGnAtUrE"
UNREACHED = (
    "HTTP request failed: HTTPSConnectionPool(host='acct.dfs.core.windows.net', port=443): Max "
    f"retries exceeded with url: {SIGNED} (Caused by NameResolutionError: no such name)"
)
INTERCEPTED = (
    f"HTTP request error: HTTPSConnectionPool(host='acct.dfs.core.windows.net'): {SIGNED} "
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
)
UNSIGNED = (
    f"Staging operation over HTTP was unsuccessful: 404-<Error><Code>NoSuchBucket</Code>{SIGNED}"
)

CASES = [
    (RequestError(UNREACHED), r"storage .*\(acct\.dfs\.core\.windows\.net\) cannot be reached", 1),
    (RequestError(INTERCEPTED), r"certificate of the storage .* is not trusted; .*proxy", 2),
    (OperationalError(UNSIGNED), r"answered the upload with 404 NoSuchBucket", 1),
    (
        ServerOperationError("[VOLUME_DOES_NOT_EXIST] Volume 'main.a.b' does not exist."),
        r"staging volume does not exist; create it",
        2,
    ),
    (
        ServerOperationError("[INSUFFICIENT_PERMISSIONS] Insufficient privileges: no details"),
        r"grant the principal CREATE SCHEMA on the catalog",
        3,
    ),
    (
        RequestError("Error during request to server: : Cannot start warehouse 'shop' since", None),
        r"stopped and cannot be started",
        1,
    ),
    (
        ServerOperationError(
            "[UC_CLOUD_STORAGE_ACCESS_FAILURE] 403 Unauthorized network access to workspace: 1 "
            "SQLSTATE: KCUC4"
        ),
        r"does not let this network in",
        1,
    ),
]


@pytest.mark.parametrize(("error", "words", "code"), CASES, ids=lambda value: str(value)[:40])
def test_words_and_exit_code(error: Exception, words: str, code: int) -> None:
    error.add_note("statement 01ef0000-1111-2222-3333-444455556666")
    told = error_for(error, "databricks dataset 'bronze', loading")
    assert told.exit_code == code
    with pytest.raises(type(told), match=words):
        raise told
    assert "(statement 01ef0000-1111-2222-3333-444455556666): " in told.what
    assert "SeCrEt" not in str(told)
