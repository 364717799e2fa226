"""What a warehouse's error means to the operator, in one line without rows, names or tokens."""

from __future__ import annotations

import re

from adapters.dlt_destination.failures import root_cause, scrubbed
from adapters.dlt_destination.transient import http_code, transient
from cdc_core.errors import CdcError, DestinationFailed, DestinationUnavailable, SettingsError

SECTION = "destination.databricks.credentials"

_REFUSED = re.compile(r"invalid_client|Invalid access token|Client authentication failed")
#: OpenSSL's codes for a certificate that is trusted, but names another host or address.
_OTHER_HOST = (62, 64)
_ERROR_CLASS = re.compile(r"\[([A-Z][A-Z0-9_]+)(?:\.[A-Z0-9_]+)*\]")


def error_for(error: BaseException, where: str) -> CdcError:
    """The error for people."""
    cause = root_cause(error)
    code, text = http_code(cause), str(cause)
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    error_class = found[1] if (found := _ERROR_CLASS.search(text)) else ""
    if code in (401, 403) or _REFUSED.search(text):
        return SettingsError(
            f"{where}: the workspace refused the credentials",
            f"correct {SECTION} (access_token, or client_id and client_secret), and see that they "
            "may use the warehouse",
        )
    if "more than one authorization method" in text:
        return SettingsError(
            f"{where}: credentials of more than one kind",
            f"leave one of {SECTION} and the DATABRICKS_* variables of the environment",
        )
    if code == 404:
        return SettingsError(
            f"{where}: the workspace has no such warehouse", f"correct {SECTION}.http_path"
        )
    if getattr(cause, "verify_code", 0) in _OTHER_HOST:
        return SettingsError(
            f"{where}: the workspace's certificate is for another host",
            f"correct {SECTION}.server_hostname",
        )
    if "SSLError" in kinds:
        return SettingsError(
            f"{where}: the workspace's certificate is not trusted",
            "name the file of certificates as _tls_trusted_ca_file in "
            f"{SECTION}.connection_parameters, for client_id in REQUESTS_CA_BUNDLE too",
        )
    if error_class.startswith("NO_SUCH_CATALOG"):
        return SettingsError(
            f"{where}: the catalog does not exist, or may not be used",
            f"correct {SECTION}.catalog, or grant USE CATALOG on it",
        )
    if transient(cause) or "RequestError" in kinds:
        return DestinationUnavailable(
            f"{where}: {scrubbed(cause)}",
            f"see that the warehouse of {SECTION} can be reached; run again",
        )
    if error_class in ("INSUFFICIENT_PERMISSIONS", "PERMISSION_DENIED"):
        return DestinationFailed(
            f"{where}: {scrubbed(cause)}",
            "grant the principal CREATE SCHEMA on the catalog, or on both datasets USE SCHEMA, "
            "CREATE TABLE, CREATE VOLUME, MODIFY, SELECT, READ VOLUME and WRITE VOLUME",
        )
    return DestinationFailed(f"{where}: {scrubbed(cause)}", "run again with LOG_LEVEL=DEBUG")
