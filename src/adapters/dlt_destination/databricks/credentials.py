"""dlt's credentials of Databricks, and the connector's parameters that they make.

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

#: The connector sends again by itself for this many seconds, after lost connections only: it would
#: wait five seconds at the least for a busy server, and a minute if it had its way. All other waits
#: are `transient.RetryPolicy`'s.
_WAITS = {
    "_retry_stop_after_attempts_duration": 4.0,
    "_retry_delay_min": 0.1,
    "_retry_delay_max": 5.0,
    "_retry_delay_default": 1.0,
}
TIME_ZONE = "spark.sql.session.timeZone"


class WarehouseCredentials(DatabricksCredentials):
    """Complete from the start: dlt looks nothing up that our settings have not."""

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> WarehouseCredentials:
        """`keys` are dlt's. Raises what dlt does where a way in is not found."""
        credentials = cls()
        credentials.update(keys)
        way_in = credentials.access_token or (credentials.client_id and credentials.client_secret)
        if not (way_in and credentials.server_hostname):
            # The SDK knows the rest; where nothing is missing it is not even imported.
            credentials.on_resolved()
        credentials.__is_resolved__ = True
        return credentials

    def to_connector_params(self) -> dict[str, Any]:
        """Of one login: the sessions that are opened with them share its token."""
        parameters = {**_WAITS, "enable_telemetry": False, **super().to_connector_params()}
        if self.client_id and self.client_secret:
            principal = ServicePrincipal(
                str(self.server_hostname), self.client_id, self.client_secret, context_of_logins()
            )
            parameters["credentials_provider"] = lambda: principal.headers
        if self.http_headers:
            parameters["http_headers"] = list(self.http_headers.items())
        # Timestamps without a zone are then the same in both Parquet readings of them.
        parameters["session_configuration"] = {
            **(self.session_configuration or {}),
            TIME_ZONE: "UTC",
        }
        return parameters
