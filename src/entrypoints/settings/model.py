"""The settings: one validated model, read by dlt's conventions without importing dlt.

Everything that can be known to be wrong without a connection is found here, in well under a second.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)

from adapters.dlt_destination.register import DESTINATIONS
from adapters.dlt_destination.settings import local_folder
from adapters.secrets.databricks_scope import DatabricksSecretScope
from adapters.secrets.dlt_providers import DltProviders, environment_name
from cdc_core.values.errors import SettingsError
from entrypoints.settings import connection_string

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdc_core.ports.secrets import Secrets

CREDENTIALS = "sources.pg_replication.credentials"
CLIENT_SECRET = "destination.databricks.credentials.client_secret"  # noqa: S105 - its key
if TYPE_CHECKING:
    DestinationName: TypeAlias = str
else:
    DestinationName = Literal[tuple(DESTINATIONS)]
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

#: The sections that are ours: an unknown key in one of them is an error; all else is left alone.
SECTIONS = (
    "pipeline",
    "sources.pg_replication",
    "destination.duckdb",
    "destination.filesystem",
    "destination.databricks",
)

_DUCKDB_SCHEMAS = ("main", "information_schema", "pg_catalog", "temp", "system")

#: With one of them the Databricks SDK, and so dlt, finds the workspace and its own way in.
_WORKSPACE_VARIABLES = ("DATABRICKS_HOST", "DATABRICKS_CONFIG_PROFILE")

_SECRET_KEYS = re.compile(r"credentials|token|secret|password|http_headers")
_TIME_ZONES = ("spark.sql.session.timezone", "timezone")
#: Parameters of the connector that dlt or this library sets from other keys.
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
_UNITS = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


#: What a list of names is said to be, where it is something else.
_A_LIST = 'must be a list of names: "a, b" or ["a", "b"]'


def _names(value: Any) -> Any:
    """A list as such, as JSON, or separated by commas.

    Any other JSON, and names in quotes, would be names that nothing has: what somebody meant to
    exclude would be replicated.
    """
    if isinstance(value, str):
        value = _listed(value.strip())
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError(_A_LIST)
    return value


def _listed(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except json.JSONDecodeError:
        names = [part.strip() for part in text.split(",")] if text else []
    # What begins like JSON, or is in quotes, was not meant as a name.
    if text.startswith("[") or any(name.startswith(("{", '"', "'")) for name in names):
        raise ValueError(_A_LIST)
    return names


def _table(value: Any) -> Any:
    """A table as such, or as JSON, which is how the environment has it."""
    if not isinstance(value, str):
        return value
    import json

    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError("is not a JSON object") from None


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _size(value: Any) -> Any:
    """Bytes, or a number with one of PostgreSQL's units (powers of 1024)."""
    if not isinstance(value, str):
        return _not_bool(value)
    match = re.fullmatch(r"\s*(\d+)\s*([kKmMgGtT]?[bB]?)\s*", value, re.ASCII)
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError('must be a size such as "512MB" or "10GB"')
    return int(match[1]) * _UNITS[match[2].upper()]


def _identifier(value: str) -> str:
    if not value or "\0" in value or len(value.encode()) > 63:
        raise ValueError("must be a PostgreSQL name of 1 to 63 bytes")
    return value


def _slot_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,63}", value):
        raise ValueError("must be 1 to 63 lower-case letters, digits and underscores")
    return value


def _dataset_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", value):
        raise ValueError("must begin with a letter and hold letters, digits and underscores only")
    return value


def _pipeline_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", value):
        raise ValueError("must hold letters, digits, underscores and hyphens only")
    return value


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("names something twice")
    if any(not name.strip() for name in value):
        raise ValueError("holds an empty name")
    return value


def _credentials(value: Any) -> SecretStr:
    return SecretStr(connection_string.checked(value))


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _given_secret(value: SecretStr) -> SecretStr:
    _not_blank(value.get_secret_value())
    return value


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


def _no_indexes(value: bool) -> bool:
    if value:
        raise ValueError("has no effect: destination tables are made without keys")
    return value


def _host_name(value: str) -> str:
    """A bare host: people paste the address of their workspace."""
    host = re.sub(r"^https?://", "", value.strip()).rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", host):
        raise ValueError("must be a host name such as dbc-a1b2c3d4-e5f6.cloud.databricks.com")
    return host


Names = Annotated[tuple[str, ...], BeforeValidator(_names), AfterValidator(_distinct)]
Identifier = Annotated[str, AfterValidator(_identifier)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=1)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=1)]
Text = Annotated[str, AfterValidator(_not_blank)]
Secret = Annotated[SecretStr, AfterValidator(_given_secret)]
Table = Annotated[dict[str, Any], BeforeValidator(_table)]
NoIndexes = Annotated[bool, AfterValidator(_no_indexes)]


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
    name: Annotated[str, AfterValidator(_pipeline_name)] = "pgbronze"
    destination: DestinationName = "databricks"
    dataset_name: Annotated[str, AfterValidator(_dataset_name)] = "bronze"
    schema_changes: Literal["evolve", "freeze"] = "evolve"


class SourceSettings(_Section):
    credentials: Annotated[SecretStr | None, BeforeValidator(_credentials)] = None
    plugin_name: Literal["pgoutput"] = "pgoutput"
    slot_name: Annotated[str, AfterValidator(_slot_name)] = "dlt_cdc_slot"
    pub_name: Identifier = "dlt_cdc_pub"
    schemas: Annotated[Names, Field(min_length=1)] = ("public",)
    include: Annotated[Names, Field(min_length=1)] = ("*",)
    exclude: Names = ()
    snapshot_reader: Literal["copy", "sql_database"] = "copy"
    parallelism: Annotated[Count, Field(le=64)] = 2
    batch_max_rows: Count = 1_000_000
    # Offsets in a piece are 64 bits wide, and this is added to them.
    batch_max_bytes: Annotated[Size, Field(le=1 << 50)] = 256 << 20
    batch_max_seconds: Annotated[float, BeforeValidator(_not_bool), Field(gt=0)] = 10.0
    failover: bool = False
    max_retained_wal: Size | None = None
    slot_wait_seconds: Annotated[float, BeforeValidator(_not_bool), Field(ge=0)] = 0.0
    dlt_scope: Text = "dlt_scope"
    pg_connection_string: Text = "pg_connection_string"

    @property
    def dsn(self) -> str:
        """The connection string for libpq; a secret."""
        if self.credentials is None:
            raise SettingsError(_missing(CREDENTIALS), _cure(CREDENTIALS))
        return self.credentials.get_secret_value()


class DuckDbSettings(_Section):
    credentials: Text = "lake.duckdb"
    create_indexes: NoIndexes = False


class FilesystemSettings(_Section):
    """`credentials`, `kwargs` and `client_kwargs` are dlt's, for object stores."""

    bucket_url: Text = "./lakehouse"
    credentials: Table | None = Field(default=None, repr=False)
    kwargs: Table | None = Field(default=None, repr=False)
    client_kwargs: Table | None = Field(default=None, repr=False)
    deltalake_storage_options: Table | None = Field(default=None, repr=False)


class DatabricksCredentials(_Section):
    """dlt's own keys."""

    server_hostname: Annotated[str, AfterValidator(_host_name)] | None = None
    http_path: Text | None = None
    catalog: Text | None = None
    access_token: Secret | None = None
    client_id: Text | None = None
    client_secret: Secret | None = None
    http_headers: Annotated[dict[str, str], BeforeValidator(_table)] | None = Field(
        default=None, repr=False
    )
    session_configuration: Annotated[Table, AfterValidator(_session_options)] | None = None
    session_timezone: Annotated[str, AfterValidator(_utc)] | None = None
    connection_parameters: Annotated[Table, AfterValidator(_connection_options)] | None = Field(
        default=None, repr=False
    )
    socket_timeout: Count | None = None
    user_agent_entry: Text | None = None


class DatabricksSettings(_Section):
    credentials: DatabricksCredentials = DatabricksCredentials()
    staging_volume_name: Annotated[str, AfterValidator(_volume_name)] | None = None
    keep_staged_files: bool = False
    multi_table_transaction: bool = False
    create_indexes: NoIndexes = False
    client_secret_key: Text | None = None


class _Sources(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    pg_replication: SourceSettings = SourceSettings()


class _Destinations(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    duckdb: DuckDbSettings = DuckDbSettings()
    filesystem: FilesystemSettings = FilesystemSettings()
    databricks: DatabricksSettings = DatabricksSettings()


class Settings(BaseModel):
    """Sections as in the files; the properties are shorter ways in."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    pipeline: PipelineSettings = PipelineSettings()
    sources: _Sources = _Sources()
    destination: _Destinations = _Destinations()
    _load_again: Callable[[], Settings] | None = PrivateAttr(default=None)

    def read_again(self) -> Settings:
        """The destination's settings as they are by now, where they were read from providers."""
        return self if self._load_again is None else self._load_again()

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
        """Every value that no output may hold."""
        found: set[str] = set()
        if self.source.credentials is not None:
            found |= connection_string.secrets_in(self.source.dsn)
        databricks = self.databricks.credentials
        for secret in (databricks.access_token, databricks.client_secret):
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
                if _SECRET_KEYS.search(key.lower()) or "key" in key.lower()
            }
        return found


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    scope: Callable[[Settings], Secrets] | None = None,
    needs_source: bool = True,
    needs_destination: bool = True,
) -> Settings:
    """Read and check the settings of this process; raises `SettingsError`.

    `overrides` are dotted keys that win over all providers. `scope` makes the store that holds the
    source's credentials: without it, on Databricks the secret scope is asked where the providers
    have none. A client secret that has a key is in the same scope. A command that touches one side
    only needs no settings of the other.
    """
    environ = os.environ if environ is None else environ
    settings = _validated(DltProviders.find(SECTIONS, environ, overrides))
    wanted = []
    absent = on_databricks(environ) and settings.source.credentials is None
    if needs_source and (scope is not None or absent):
        wanted.append(CREDENTIALS)
    if needs_destination and settings.databricks.client_secret_key is not None:
        wanted.append(CLIENT_SECRET)
    if wanted:
        store = (scope or databricks_scope)(settings)
        found = {key: store.get(key) for key in wanted}
        settings = _validated(DltProviders.find(SECTIONS, environ, {**(overrides or {}), **found}))
    if needs_source and settings.source.credentials is None:
        raise SettingsError(_missing(CREDENTIALS), _cure(CREDENTIALS))
    if needs_destination:
        match settings.pipeline.destination:
            case "databricks":
                _check_databricks(settings.databricks.credentials, environ)
            case "duckdb":
                _check_duckdb(settings.duckdb.credentials, settings.pipeline.dataset_name)
            case "delta":
                _check_delta(settings.filesystem.bucket_url)
    settings._load_again = partial(
        load_settings, overrides, environ=environ, scope=scope, needs_source=False
    )
    return settings


def databricks_scope(settings: Settings) -> Secrets:
    """The secret scope that the settings name."""
    source = settings.source
    keys = {CREDENTIALS: source.pg_connection_string}
    if settings.databricks.client_secret_key is not None:
        keys[CLIENT_SECRET] = settings.databricks.client_secret_key
    return DatabricksSecretScope(source.dlt_scope, keys)


def log_level(environ: Mapping[str, str] | None = None) -> str:
    """`LOG_LEVEL`, checked; empty as good as not set."""
    level = (os.environ if environ is None else environ).get("LOG_LEVEL", "").strip() or "INFO"
    if level.upper() not in LOG_LEVELS:
        raise SettingsError(
            f"LOG_LEVEL is {level[:40]!r}", f"set it to one of {', '.join(LOG_LEVELS)}"
        )
    return level.upper()


def on_databricks(environ: Mapping[str, str] | None = None) -> bool:
    return "DATABRICKS_RUNTIME_VERSION" in (os.environ if environ is None else environ)


def _validated(providers: DltProviders) -> Settings:
    try:
        return Settings.model_validate(providers.document())
    except ValidationError as error:
        raise _first_of(error, providers) from None


def _check_databricks(credentials: DatabricksCredentials, environ: Mapping[str, str]) -> None:
    section = "destination.databricks.credentials"
    inside = on_databricks(environ) or any(environ.get(name) for name in _WORKSPACE_VARIABLES)
    needed = ["http_path", "catalog"] if inside else ["server_hostname", "http_path", "catalog"]
    for name in needed:
        if getattr(credentials, name) is None:
            key = f"{section}.{name}"
            raise SettingsError(
                _missing(key), f"{_cure(key)}; for another destination: --destination duckdb"
            )
    if (credentials.client_id is None) != (credentials.client_secret is None):
        absent = "client_id" if credentials.client_id is None else "client_secret"
        key = f"{section}.{absent}"
        raise SettingsError(f"{_missing(key)} beside its other half", _cure(key))
    if credentials.access_token is None and credentials.client_id is None and not inside:
        key = f"{section}.access_token"
        raise SettingsError(f"{_missing(key)} (or client_id and client_secret)", _cure(key))


def _check_duckdb(credentials: str, dataset: str) -> None:
    """A file that can be made; other forms (`md:…`) are dlt's and DuckDB's to judge."""
    key = "destination.duckdb.credentials"
    name = "pipeline.dataset_name"
    if dataset.lower() in _DUCKDB_SCHEMAS:
        raise SettingsError(
            f"{name} = {dataset!r} is DuckDB's own, which nothing can drop", _cure(name)
        )
    if credentials.removeprefix("duckdb:///").startswith(":memory:"):
        raise SettingsError(f"{key} is :memory:, which a run does not outlive", "name a file")
    if re.match(r"(?!duckdb:///)[a-z]+:", credentials):
        return
    file = Path(credentials.removeprefix("duckdb:///"))
    if file.is_dir():
        raise SettingsError(f"{key} = {credentials!r} is a folder", "name a file in it")
    if not file.absolute().parent.is_dir():
        raise SettingsError(f"{key} = {credentials!r}: its folder does not exist", "create it")
    # DuckDB names the database after its file, and takes a name that is both for neither.
    database = next((part for part in file.name.split(".") if part), "").lower()
    if database == dataset.lower():
        raise SettingsError(
            f"{key} = {credentials!r} and {name} = {dataset!r} give the database the name of a "
            "schema in it, which DuckDB cannot tell apart",
            f"name the file or the dataset otherwise: {_cure(key)}; {_cure(name)}",
        )


def _check_delta(bucket_url: str) -> None:
    """A folder that is there or can be made; object stores are dlt's to judge."""
    key = "destination.filesystem.bucket_url"
    folder = local_folder(bucket_url)
    if folder is None or folder.is_dir():
        return
    there = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
    if not there.is_dir():
        raise SettingsError(f"{key} = {bucket_url!r}: {there} is no folder", "name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SettingsError(
            f"{key} = {bucket_url!r}: nothing can be made in {there}", "name another place"
        )


def _first_of(error: ValidationError, providers: DltProviders) -> SettingsError:
    """The first problem as one line; how many others there are."""
    problems = error.errors(include_url=False, include_input=True)
    problem = problems[0]
    location = [str(part) for part in problem["loc"]]
    # Parts after a list's or a union's are pydantic's own.
    key = ".".join(part for part in location if not part.isdigit() and "[" not in part)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    origin = providers.origin(key) or "the settings"
    if problem["type"] == "extra_forbidden":
        section, _, name = key.rpartition(".")
        known = _keys_of(section)
        near = get_close_matches(name, known, 1)
        cure = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return SettingsError(f"unknown setting {key} in {origin}{more}", cure)
    shown = _shown(key, problem["input"])
    return SettingsError(f"{key}{shown} {_told(problem)}, in {origin}{more}", _cure(key))


def _told(problem: Any) -> str:
    """pydantic's message as the end of a sentence."""
    match problem["type"]:
        case "literal_error":
            return f"is not one of {problem['ctx']['expected'].replace(' or ', ', ')}"
        case "too_short":
            return "must name at least one"
        case "value_error":
            return str(problem["ctx"]["error"])
        case _:
            return str(problem["msg"]).removeprefix("Input ")


def _shown(key: str, value: Any) -> str:
    """A short wrong value, where it cannot be a secret."""
    if _SECRET_KEYS.search(key) or not isinstance(value, str | int | float | bool):
        return ""
    text = repr(value)
    return f" = {text}" if len(text) <= 80 else f" = {text[:76]}..."


def _keys_of(section: str) -> list[str]:
    model: type[BaseModel] = Settings
    for part in section.split("."):
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type)):
            return []
        model = field.annotation
    return list(model.model_fields)


def _missing(key: str) -> str:
    return f"the setting {key} is missing"


def _cure(key: str) -> str:
    section, _, name = key.rpartition(".")
    file = "secrets.toml" if _SECRET_KEYS.search(key) else "config.toml"
    return f"set {environment_name(key)}, or {name} under [{section}] in .dlt/{file}"
