"""The settings: one validated model, with its sections as in dlt's files.

A new setting is one field here, with its description, and one line in docs/reference/settings.md.
A destination's section is in the destination's own folder; the register names it. The options of
the command line and of the wheel follow from the model, and an adapter gets each field that its own
settings name alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, create_model

from adapters.dlt_destination.register import DESTINATIONS, section_models
from adapters.dlt_destination.section import Count, Keys, Secret, Text
from adapters.setting_names import cure, missing
from cdc_core.values.errors import SettingsError
from entrypoints.settings import connection_string
from entrypoints.settings.table_rules import TableRules  # noqa: TC001 - pydantic evaluates it
from entrypoints.settings.types import (
    Command,
    ConnectionString,
    DatasetName,
    Identifier,
    Names,
    Number,
    OneOrMoreNames,
    PipelineName,
    Size,
    SlotName,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.dlt_destination.section import Section

    DestinationName: TypeAlias = str
else:
    DestinationName = Literal[tuple(DESTINATIONS)]

CREDENTIALS = "sources.pg_replication.credentials"
MASK_KEY = "sources.pg_replication.mask_key"

#: The sections of the destinations, by the last part of their names.
SECTION_MODELS = section_models()
#: Our sections. An unknown key in one of them is an error; all other sections are ignored.
SECTIONS = (
    "pipeline",
    "sources.pg_replication",
    *(f"destination.{name}" for name in SECTION_MODELS),
)


class PipelineSettings(Keys):
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


class SourceSettings(Keys):
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


class _Sources(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    pg_replication: SourceSettings = SourceSettings()


if TYPE_CHECKING:
    _Destinations: TypeAlias = Any
else:
    _Destinations = create_model(
        "_Destinations",
        __config__=ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True),
        **{name: (model, model()) for name, model in SECTION_MODELS.items()},
    )


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
    def section(self) -> Section:
        """The section of the chosen destination."""
        section: Section = getattr(
            self.destination, DESTINATIONS[self.pipeline.destination].section
        )
        return section

    def scope_keys(self) -> dict[str, str]:
        """Return the destinations' settings that the secret scope holds, with their keys there."""
        sections = (getattr(self.destination, name) for name in SECTION_MODELS)
        return {key: name for section in sections for key, name in section.scope_keys().items()}

    def secret_values(self) -> set[str]:
        """Return every value that must not appear in output."""
        found: set[str] = set()
        if self.source.credentials is not None:
            found |= connection_string.secrets_in(self.source.dsn)
        if self.source.mask_key is not None:
            found.add(self.source.mask_key.get_secret_value())
        for name in SECTION_MODELS:
            found |= getattr(self.destination, name).secret_values()
        return found
