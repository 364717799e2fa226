"""Translate a warehouse's errors into one line for the operator, without rows, names or tokens.

One HTTP status can have many causes: each kind has its own message and cure. Sources:
Databricks documentation, "Error conditions", "IP access lists", "SQL warehouse access control",
"Unity Catalog privileges"; error codes of Azure Blob Storage, Amazon S3 and Google Cloud Storage.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.databricks.retry import http_code, refused, token_refused, transient
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.failures import scrubbed
from cdc_core.values.errors import (
    CdcError,
    DestinationFailed,
    DestinationForbidden,
    DestinationUnavailable,
    SettingsError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTION = "destination.databricks.credentials"

_STATEMENT = "statement "
#: OpenSSL's codes for a trusted certificate that names another host or address.
_OTHER_HOST = (62, 64)
_ERROR_CLASS = re.compile(r"\[([A-Z][A-Z0-9_]+)(?:\.[A-Z0-9_]+)*\]")

_ADDRESS = re.compile(r"Source IP address: ([0-9A-Fa-f.:]+) is blocked")
_NETWORK = re.compile(
    r"Unauthorized network access|Public access is not allowed|blocked by Databricks IP ACL"
)
_MAY_NOT_USE = re.compile(
    r"not authorized to use (?:or monitor )?this SQL (?:Endpoint|[Ww]arehouse)"
)
_NOT_STARTED = re.compile(
    r"Cannot start (?:the )?(?:SQL )?[Ww]arehouse|[Ww]arehouse \S+ is not running"
)
_LACKS = re.compile(r"does not have (?:the )?([A-Z][A-Z ]+?) (?:privilege )?on (\w+) '([^']+)'")
_NO_OWNER = re.compile(r"is not an owner of (\w+) '([^']+)'")
_FORBIDDEN = ("INSUFFICIENT_PERMISSIONS", "PERMISSION_DENIED", "UNAUTHORIZED_ACCESS")

_UPLOAD = re.compile(r"^(?:Staging operation over HTTP was unsuccessful: (\d+)-|HTTP request )")
_STORAGE_CODE = re.compile(r"<Code>(\w+)</Code>")
_STORAGE_HOST = re.compile(r"host='([\w.-]+)'")
#: Storages' errors for a signed URL that has expired.
_ENDED = re.compile(r"ExpiredToken|Request has expired|not valid in the specified time frame")


@contextmanager
def statement_named(cursor: Any) -> Iterator[None]:
    """Add the statement's ID to errors in the context, as a note. Query History lists that ID."""
    try:
        yield
    except Exception as error:
        if cursor.query_id:
            error.add_note(f"{_STATEMENT}{cursor.query_id}")
        raise


def statement_of(error: BaseException) -> str:
    """The ID of the statement that failed, as " (statement …)"; "" if there was none."""
    notes = (note for note in getattr(error, "__notes__", ()) if note.startswith(_STATEMENT))
    return next((f" ({note})" for note in notes), "")


def error_for(error: BaseException, where: str) -> CdcError:
    """Return the error to show to the user."""
    cause = root_cause(error)
    at = f"{where}{statement_of(cause)}"
    for kind in (_upload, _access, _privilege, _settings, _reach):
        if found := kind(cause, at):
            return found
    return DestinationFailed(f"{at}: {scrubbed(cause)}", "run again with LOG_LEVEL=DEBUG")


def _upload(cause: BaseException, at: str) -> CdcError | None:
    """The upload of a file to a volume failed. It is sent directly to the cloud's storage."""
    text = str(cause)
    if not (found := _UPLOAD.match(text)):
        return None
    code, host = _STORAGE_CODE.search(text), _STORAGE_HOST.search(text)
    storage = "the storage of the volume" + (f" ({host[1]})" if host else "")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return _untrusted(at, f"the certificate of {storage}")
    if found[1] is None:
        return DestinationUnavailable(
            f"{at}: {storage} cannot be reached from here",
            "let this network reach it, by its public address or a private endpoint; run again",
        )
    status = found[1] + (f" {code[1]}" if code else "")
    if _ENDED.search(text):
        return DestinationFailed(
            f"{at}: {storage} takes a new address for an old one ({status})",
            "set this machine's clock; run again",
        )
    if found[1] in ("401", "403"):
        return DestinationUnavailable(
            f"{at}: {storage} refused the upload ({status}), though the workspace allowed it",
            "let this network through the storage's firewall, endpoint policy or perimeter, or run "
            "in the workspace; run again",
        )
    return DestinationUnavailable(f"{at}: {storage} answered the upload with {status}", "run again")


def _access(cause: BaseException, at: str) -> CdcError | None:
    """The workspace rejects this network, these credentials or this principal."""
    text = str(cause)
    if _NETWORK.search(text):
        address = f" ({found[1]})" if (found := _ADDRESS.search(text)) else ""
        return DestinationUnavailable(
            f"{at}: the workspace does not let this network in{address}; the credentials are not "
            "the reason",
            "add the address to the workspace's IP access list, or come by its private endpoint; "
            "run again",
        )
    if _MAY_NOT_USE.search(text):
        return DestinationForbidden(
            f"{at}: the principal may not use the SQL warehouse",
            "grant it CAN USE in the permissions of the warehouse",
        )
    how = ""
    if token_refused(cause):
        how = " (the token has ended)" if "expir" in text else ""
    elif refused(cause) and not _lacks(text):
        how = "" if _reason(cause) else f" (HTTP {http_code(cause)}, no reason given)"
    else:
        return None
    return SettingsError(
        f"{at}: the workspace refused the credentials{how}",
        f"correct {SECTION} (access_token, or client_id and client_secret)"
        + (", or ask who runs the proxy on the way" if how else ""),
    )


def _reason(cause: BaseException) -> str:
    return str(getattr(cause, "context", {}).get("error-message") or "").strip(": ")


def _lacks(text: str) -> str | None:
    """Return the missing privilege in the form of GRANT, if the text names it."""
    if found := _LACKS.search(text):
        return f"{found[1]} ON {found[2].upper()} {found[3]}"
    if found := _NO_OWNER.search(text):
        return f"MANAGE ON {found[1].upper()} {found[2]}"
    return None


def _privilege(cause: BaseException, at: str) -> CdcError | None:
    text = str(cause)
    if grant := _lacks(text):
        return DestinationForbidden(
            f"{at}: a privilege is missing", f"run: GRANT {grant} TO `principal`"
        )
    if _error_class(text) in _FORBIDDEN:
        return DestinationForbidden(
            f"{at}: {scrubbed(cause)}",
            "grant the principal CREATE SCHEMA on the catalog, or on both datasets USE SCHEMA, "
            "CREATE TABLE, CREATE VOLUME, MODIFY, SELECT, READ VOLUME and WRITE VOLUME",
        )
    return None


def _settings(cause: BaseException, at: str) -> CdcError | None:
    """A setting names something that does not exist, or something else."""
    text = str(cause)
    if http_code(cause) == 404:
        return SettingsError(
            f"{at}: the workspace has no such warehouse",
            f"correct {SECTION}.http_path, or server_hostname if it is of another workspace",
        )
    if getattr(cause, "verify_code", 0) in _OTHER_HOST:
        return SettingsError(
            f"{at}: the workspace's certificate is for another host",
            f"correct {SECTION}.server_hostname",
        )
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if "SSLError" in kinds or "CERTIFICATE_VERIFY_FAILED" in text:
        return _untrusted(at, "the workspace's certificate")
    match _error_class(text):
        case "NO_SUCH_CATALOG_EXCEPTION":
            return SettingsError(
                f"{at}: the catalog does not exist, or may not be used",
                f"correct {SECTION}.catalog, or grant USE CATALOG on it",
            )
        case "VOLUME_DOES_NOT_EXIST":
            return SettingsError(
                f"{at}: the staging volume does not exist",
                "create it, or correct destination.databricks.staging_volume_name",
            )
    return None


def _reach(cause: BaseException, at: str) -> CdcError | None:
    if _NOT_STARTED.search(str(cause)):
        return DestinationUnavailable(
            f"{at}: the SQL warehouse is stopped and cannot be started",
            "start it in the workspace, which names the reason; run again",
        )
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if "SparkGone" in kinds:
        return DestinationUnavailable(f"{at}: the Spark session has ended", "run the job again")
    if transient(cause) or "RequestError" in kinds:
        return DestinationUnavailable(
            f"{at}: {scrubbed(cause)}",
            f"make sure that the warehouse of {SECTION} can be reached; run again",
        )
    return None


def _untrusted(at: str, what: str) -> SettingsError:
    return SettingsError(
        f"{at}: {what} is not trusted",
        "name the file of certificates (a TLS-inspecting proxy's too) as _tls_trusted_ca_file in "
        f"{SECTION}.connection_parameters, for client_id in REQUESTS_CA_BUNDLE too",
    )


def _error_class(text: str) -> str:
    return found[1] if (found := _ERROR_CLASS.search(text)) else ""
