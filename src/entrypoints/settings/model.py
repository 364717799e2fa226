"""The settings: one validated model, with its sections as in dlt's files.

A new setting is one field here, with its description, and one line in docs/reference/settings.md.
The options of the command line and of the wheel follow from the model, and an adapter gets each
field that its own settings name alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from adapters.dlt_destination.register import DESTINATIONS
from cdc_core.values.errors import SettingsError
from entrypoints.settings import connection_string
from entrypoints.settings.table_rules import TableRules  # noqa: TC001 - pydantic evaluates it
from entrypoints.settings.types import (
    Command,
    ConnectionOptions,
    ConnectionString,
    Count,
    DatasetName,
    Headers,
    HostName,
    Identifier,
    Names,
    NoIndexes,
    Number,
    OneOrMoreNames,
    PipelineName,
    Secret,
    SessionOptions,
    Size,
    SlotName,
    Table,
    Text,
    Utc,
    VolumeName,
)
from entrypoints.settings.wording import SECRET_KEYS, cure, missing

if TYPE_CHECKING:
    from collections.abc import Callable

    DestinationName: TypeAlias = str
else:
    DestinationName = Literal[tuple(DESTINATIONS)]

CREDENTIALS = "sources.pg_replication.credentials"
MASK_KEY = "sources.pg_replication.mask_key"
CLIENT_SECRET = "destination.databricks.credentials.client_secret"  # noqa: S105 - its key

#: Our sections. An unknown key in one of them is an error; all other sections are ignored.
SECTIONS = (
    "pipeline",
    "sources.pg_replication",
    "destination.duckdb",
    "destination.filesystem",
    "destination.databricks",
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def for_dlt(self) -> dict[str, Any]:
        """Return the keys that are set, with secrets in plain text."""
        return {key: _plain(value) for key, value in self if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, _Section):
        return value.for_dlt()
    return value.get_secret_value() if isinstance(value, SecretStr) else value


class PipelineSettings(_Section):
    name: PipelineName = Field(
        default="pgbronze", description="name of the checkpoint in the dataset"
    )
    destination: DestinationName = Field(
        default="databricks", description="where the tables are written"
    )
    dataset_name: DatasetName = Field(
        default="bronze", description="schema of the destination tables"
    )
    schema_changes: Literal["evolve", "freeze"] = Field(
        default="evolve", description="freeze: set a table aside when its definition changes"
    )
    receipts: bool = Field(default=True, description="write each run into the table _cdc_runs")
    receipts_keep_days: Annotated[Count, Field(le=36_500)] = Field(
        default=90, description="days after which rows of _cdc_runs are deleted"
    )


class SourceSettings(_Section):
    credentials: Annotated[SecretStr | None, ConnectionString] = Field(
        default=None, description="connection string"
    )
    password_command: Command = Field(
        default=(), description="command that prints the password, for each connection"
    )
    plugin_name: Literal["pgoutput"] = Field(default="pgoutput", description="plug-in of the slot")
    slot_name: SlotName = Field(default="dlt_cdc_slot", description="replication slot")
    pub_name: Identifier = Field(default="dlt_cdc_pub", description="publication")
    schemas: OneOrMoreNames = Field(default=("public",), description="schemas to replicate")
    include: OneOrMoreNames = Field(default=("*",), description="globs over schema.table")
    exclude: Names = Field(default=(), description="globs over schema.table, stronger than include")
    snapshot_reader: Literal["copy", "spark", "sql_database"] = Field(
        default="copy", description="how a full load reads rows"
    )
    spark_max_connections: Annotated[Count, Field(le=1024)] = Field(
        default=16, description="sessions of all of Spark's workers together"
    )
    parallelism: Annotated[Count, Field(le=64)] = Field(
        default=2, description="sessions that read tables at a time"
    )
    batch_max_rows: Count = Field(default=1_000_000, description="row changes that end a batch")
    # The decoder adds this to 64-bit offsets.
    batch_max_bytes: Annotated[Size, Field(le=1 << 50)] = Field(
        default=256 << 20, description="bytes of messages that end a batch"
    )
    batch_max_seconds: Annotated[Number, Field(gt=0)] = Field(
        default=10.0, description="seconds after which a batch ends"
    )
    failover: bool = Field(
        default=False, description="synchronize the slot to standbys (PostgreSQL 17 and newer)"
    )
    max_retained_wal: Size | None = Field(
        default=None, description="WAL that the slot may keep on the source's disk"
    )
    slot_wait_seconds: Annotated[Number, Field(ge=0)] = Field(
        default=0.0, description="seconds to wait for another run that holds the slot"
    )
    tables: TableRules = Field(default=(), description="rules for single tables, as JSON")
    mask_key: Secret | None = Field(default=None, description="key of the masks by hash")
    dlt_scope: Text = Field(default="dlt_scope", description="Databricks: the secret scope")
    pg_connection_string: Text = Field(
        default="pg_connection_string",
        description="Databricks: the connection string's key in the scope",
    )
    mask_key_secret: Text | None = Field(
        default=None, description="Databricks: the mask key's key in the scope"
    )

    @property
    def dsn(self) -> str:
        """The connection string for libpq; a secret."""
        if self.credentials is None:
            raise SettingsError(missing(CREDENTIALS), cure(CREDENTIALS))
        return self.credentials.get_secret_value()


class DuckDbSettings(_Section):
    credentials: Text = Field(default="lake.duckdb", description="DuckDB file")
    create_indexes: NoIndexes = Field(
        default=False, description="dlt's key; only false is accepted"
    )


class FilesystemSettings(_Section):
    """`credentials`, `kwargs` and `client_kwargs` are dlt's, for object stores."""

    bucket_url: Text = Field(default="./lakehouse", description="folder or object store")
    credentials: Table | None = Field(default=None, repr=False, description="of the object store")
    kwargs: Table | None = Field(default=None, repr=False, description="for fsspec")
    client_kwargs: Table | None = Field(default=None, repr=False, description="for fsspec's client")
    deltalake_storage_options: Table | None = Field(
        default=None, repr=False, description="for the deltalake library"
    )


class DatabricksCredentials(_Section):
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


class DatabricksSettings(_Section):
    credentials: DatabricksCredentials = DatabricksCredentials()
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


class _Sources(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    pg_replication: SourceSettings = SourceSettings()


class _Destinations(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    duckdb: DuckDbSettings = DuckDbSettings()
    filesystem: FilesystemSettings = FilesystemSettings()
    databricks: DatabricksSettings = DatabricksSettings()


class Settings(BaseModel):
    """Sections as in the files; the properties are shortcuts to them."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    pipeline: PipelineSettings = PipelineSettings()
    sources: _Sources = _Sources()
    destination: _Destinations = _Destinations()
    _load_again: Callable[..., Settings] | None = PrivateAttr(default=None)

    def read_again(self, side: Literal["source", "destination"]) -> Settings:
        """Read the providers again, for a secret of one side that was replaced; self if there were
        none."""
        if self._load_again is None:
            return self
        return self._load_again(
            needs_source=side == "source", needs_destination=side == "destination"
        )

    @property
    def source(self) -> SourceSettings:
        return self.sources.pg_replication

    @property
    def duckdb(self) -> DuckDbSettings:
        return self.destination.duckdb

    @property
    def filesystem(self) -> FilesystemSettings:
        return self.destination.filesystem

    @property
    def databricks(self) -> DatabricksSettings:
        return self.destination.databricks

    def destination_keys(self) -> dict[str, Any]:
        """Return the keys of the chosen destination's section, with secrets in plain text."""
        section = DESTINATIONS[self.pipeline.destination].section
        keys: dict[str, Any] = getattr(self.destination, section).for_dlt()
        return keys

    def secret_values(self) -> set[str]:
        """Return every value that must not appear in output."""
        found: set[str] = set()
        if self.source.credentials is not None:
            found |= connection_string.secrets_in(self.source.dsn)
        databricks = self.databricks.credentials
        for secret in (self.source.mask_key, databricks.access_token, databricks.client_secret):
            if secret is not None:
                found.add(secret.get_secret_value())
        for options in (
            databricks.http_headers,
            databricks.connection_parameters,
            self.filesystem.credentials,
            self.filesystem.kwargs,
            self.filesystem.client_kwargs,
            self.filesystem.deltalake_storage_options,
        ):
            found |= {
                str(value)
                for key, value in (options or {}).items()
                if SECRET_KEYS.search(key.lower()) or "key" in key.lower()
            }
        return found
