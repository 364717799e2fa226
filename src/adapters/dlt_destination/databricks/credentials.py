"""dlt's credentials for Databricks, and the connector's parameters that follow from them.

Sources: dlt, `dlt.destinations.impl.databricks.configuration`; `databricks-sql-connector`,
"connect", `auth/retry.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.databricks.preflight import context_of_logins
from adapters.dlt_destination.databricks.service_principal import ServicePrincipal
from adapters.dlt_destination.dlt.databricks_client import DatabricksCredentials

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The connector itself retries for this many seconds, after lost connections only. By default it
#: would wait from five seconds to a minute for a busy server. `retry.RetryPolicy` does all other
#: waits.
_WAITS = {
    "_retry_stop_after_attempts_duration": 4.0,
    "_retry_delay_min": 0.1,
    "_retry_delay_max": 5.0,
    "_retry_delay_default": 1.0,
}
TIME_ZONE = "spark.sql.session.timeZone"


class WarehouseCredentials(DatabricksCredentials):
    """Credentials that are complete from the start: dlt looks up nothing else."""

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> WarehouseCredentials:
        """Make credentials from dlt's keys. Raises dlt's error if no login is found."""
        credentials = cls()
        credentials.update(keys)
        way_in = credentials.access_token or (credentials.client_id and credentials.client_secret)
        if not (way_in and credentials.server_hostname):
            # The SDK finds the rest. It is imported only if something is missing.
            credentials.on_resolved()
        credentials.__is_resolved__ = True
        return credentials

    def to_connector_params(self) -> dict[str, Any]:
        """Return the parameters of one login. Sessions that are opened with them share its
        token."""
        parameters = {**_WAITS, "enable_telemetry": False, **super().to_connector_params()}
        if self.client_id and self.client_secret:
            principal = ServicePrincipal(
                str(self.server_hostname), self.client_id, self.client_secret, context_of_logins()
            )
            parameters["credentials_provider"] = lambda: principal.headers
        if self.http_headers:
            parameters["http_headers"] = list(self.http_headers.items())
        # In UTC, both of Spark's interpretations of timestamps without a zone are the same.
        parameters["session_configuration"] = {
            **(self.session_configuration or {}),
            TIME_ZONE: "UTC",
        }
        return parameters


#: dlt names the location of data after a host, and never connects to it here.
_NO_HOST = "spark"


class SessionCredentials(DatabricksCredentials):
    """What is left of the credentials where a Spark session runs the statements: the catalog."""

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> SessionCredentials:
        credentials = cls()
        credentials.update(keys)
        credentials.server_hostname = credentials.server_hostname or _NO_HOST
        credentials.__is_resolved__ = True
        return credentials

    def on_resolved(self) -> None:
        """Looks for no login: the session has one."""

    def to_connector_params(self) -> dict[str, Any]:
        configuration = {**(self.session_configuration or {}), TIME_ZONE: "UTC"}
        return {"session_configuration": configuration}
