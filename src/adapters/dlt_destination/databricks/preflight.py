"""Check within seconds whether the workspace answers, before any other request.

The connector retries an untrusted certificate like a lost packet, and the SDK tries a host that
does not answer for five minutes. Sources: `databricks-sql-connector`, "connect", its TLS
parameters; `requests` documentation, "SSL Cert Verification".
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from collections.abc import Mapping

REACH_SECONDS = 10.0

#: The connector's parameters for checking the warehouse's certificate.
_TLS = ("trusted_ca_file", "client_cert_file", "client_cert_key_file", "client_cert_key_password")


def require_reachable(credentials: Mapping[str, Any]) -> None:
    """Connect to the workspace as the connector does, and as a login does if a token is needed.

    `credentials` are dlt's keys. Raises `OSError`, which includes `ssl.SSLError`.
    """
    parameters = credentials.get("connection_parameters") or {}
    host = credentials.get("server_hostname")
    uri = parameters.get("_connection_uri") or (f"https://{host}" if host else None)
    if uri:
        _reach(uri, _connectors_context(parameters))
    workspace = f"https://{host}" if host and credentials.get("client_id") else None
    for found in {workspace, _address(os.environ.get("DATABRICKS_HOST"))} - {None, ""}:
        _reach(str(found), context_of_logins())


def _address(host: str | None) -> str | None:
    return host if not host or "://" in host else f"https://{host}"


def _connectors_context(parameters: Mapping[str, Any]) -> ssl.SSLContext:
    from databricks.sql.types import SSLOptions

    options = SSLOptions(
        tls_verify=not parameters.get("_tls_no_verify", False),
        tls_verify_hostname=parameters.get("_tls_verify_hostname", True),
        **{f"tls_{name}": parameters.get(f"_tls_{name}") for name in _TLS},
    )
    context: ssl.SSLContext = options.create_ssl_context()
    return context


def context_of_logins() -> ssl.SSLContext:
    """Return the TLS context for fetching a token: the same checks as in the SDK."""
    import certifi

    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if bundle and os.path.isdir(bundle):  # noqa: PTH112
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle or certifi.where())


def _reach(uri: str, context: ssl.SSLContext) -> None:
    place = urlsplit(uri)
    host = place.hostname or ""
    if getproxies().get("https") and not proxy_bypass(host):
        return  # the connection would only reach the proxy
    with (
        socket.create_connection((host, place.port or 443), REACH_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host),
    ):
        pass
