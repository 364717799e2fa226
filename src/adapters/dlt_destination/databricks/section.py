"""The settings of Delta tables on Databricks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from adapters.dlt_destination.databricks.engines import chosen_engine
from adapters.dlt_destination.section import (
    Count,
    FromJson,
    Keys,
    NoIndexes,
    Secret,
    Section,
    Table,
    Text,
)
from adapters.setting_names import cure, missing
from adapters.spark_session import ON_DATABRICKS
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

CLIENT_SECRET = "destination.databricks.credentials.client_secret"  # noqa: S105 - its key
#: With one of these set, the Databricks SDK and dlt find the workspace and its credentials.
_WORKSPACE_VARIABLES = ("DATABRICKS_HOST", "DATABRICKS_CONFIG_PROFILE")
_TIME_ZONES = ("spark.sql.session.timezone", "timezone")
#: Connector parameters that dlt or this library sets from other keys.
_GIVEN = (
    "access_token",
    "catalog",
    "credentials_provider",
    "http_path",
    "server_hostname",
    "session_configuration",
    "_socket_timeout",
    "use_inline_params",
)


def _utc(value: str) -> str:
    if value.upper() not in ("UTC", "ETC/UTC"):
        raise ValueError("must be UTC: in another zone, timestamps would be stored shifted")
    return value


def _session_options(value: dict[str, Any]) -> dict[str, Any]:
    for name, option in value.items():
        if name.lower() in _TIME_ZONES:
            _utc(str(option))
    return value


def _connection_options(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if name in _GIVEN:
            raise ValueError(f"must not have {name!r}, which has a key or a value of its own")
    return value


def _volume_name(value: str) -> str:
    if not re.fullmatch(r"[^./\s]+(\.[^./\s]+){2}", value):
        raise ValueError("must be <catalog>.<schema>.<volume>")
    return value


def _host_name(value: str) -> str:
    """Accept a host name or the pasted address of a workspace."""
    host = re.sub(r"^https?://", "", value.strip()).rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", host):
        raise ValueError("must be a host name such as dbc-a1b2c3d4-e5f6.cloud.databricks.com")
    return host


VolumeName = Annotated[str, AfterValidator(_volume_name)]
HostName = Annotated[str, AfterValidator(_host_name)]
Utc = Annotated[str, AfterValidator(_utc)]
Headers = Annotated[dict[str, str], FromJson]
SessionOptions = Annotated[Table, AfterValidator(_session_options)]
ConnectionOptions = Annotated[Table, AfterValidator(_connection_options)]


class Credentials(Keys):
    """dlt's own keys."""

    server_hostname: HostName | None = Field(default=None, description="host of the workspace")
    http_path: Text | None = Field(default=None, description="HTTP path of the SQL warehouse")
    catalog: Text | None = Field(default=None, description="Unity Catalog catalog")
    access_token: Secret | None = Field(default=None, description="token")
    client_id: Text | None = Field(default=None, description="service principal (OAuth)")
    client_secret: Secret | None = Field(default=None, description="its secret")
    http_headers: Headers | None = Field(
        default=None, repr=False, description="headers of each request"
    )
    session_configuration: SessionOptions | None = Field(default=None, description="Spark options")
    session_timezone: Utc | None = Field(default=None, description="only UTC is accepted")
    connection_parameters: ConnectionOptions | None = Field(
        default=None, repr=False, description="for the connector"
    )
    socket_timeout: Count | None = Field(default=None, description="seconds to wait for an answer")
    user_agent_entry: Text | None = Field(default=None, description="user agent")


class Settings(Section):
    variant_keeps_text = False

    credentials: Credentials = Credentials()
    engine: Literal["warehouse", "spark"] | None = Field(
        default=None, description="where statements run"
    )
    staging_volume_name: VolumeName | None = Field(
        default=None, description="volume for staged files, as catalog.schema.volume"
    )
    keep_staged_files: bool = Field(default=False, description="keep staged files")
    multi_table_transaction: bool = Field(
        default=False, description="write all tables of a batch in one transaction"
    )
    create_indexes: NoIndexes = Field(
        default=False, description="dlt's key; only false is accepted"
    )
    client_secret_key: Text | None = Field(
        default=None, description="the client secret's key in the secret scope"
    )

    def scope_keys(self) -> dict[str, str]:
        return {} if self.client_secret_key is None else {CLIENT_SECRET: self.client_secret_key}

    def check(self, dataset: str, environ: Mapping[str, str]) -> None:  # noqa: ARG002 - any name
        credentials = self.credentials
        section = "destination.databricks.credentials"
        inside = _workspace_is_known(environ)
        by_spark = chosen_engine(self.engine, credentials.http_path, environ) == "spark"
        needed = ["http_path", "catalog"] if inside else ["server_hostname", "http_path", "catalog"]
        if by_spark:
            needed = ["catalog"]
        for name in needed:
            if getattr(credentials, name) is None:
                key = f"{section}.{name}"
                raise SettingsError(
                    missing(key), f"{cure(key)}; for another destination: --destination duckdb"
                )
        if (credentials.client_id is None) != (credentials.client_secret is None):
            absent = "client_id" if credentials.client_id is None else "client_secret"
            key = f"{section}.{absent}"
            raise SettingsError(f"{missing(key)} beside its other half", cure(key))
        login = credentials.access_token or credentials.client_id
        if not (login or inside or by_spark):
            key = f"{section}.access_token"
            raise SettingsError(f"{missing(key)} (or client_id and client_secret)", cure(key))


def _workspace_is_known(environ: Mapping[str, str]) -> bool:
    """Whether Databricks' own libraries find a workspace without settings of ours."""
    return ON_DATABRICKS in environ or any(environ.get(name) for name in _WORKSPACE_VARIABLES)
