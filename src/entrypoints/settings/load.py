"""Read the settings of this process: dlt's providers and order, without importing dlt.

Everything that can be found wrong without a connection is found here, in well under a second.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adapters.dlt_destination.databricks.engines import chosen_engine
from adapters.dlt_destination.settings import local_folder
from adapters.secrets.databricks_scope import DatabricksSecretScope
from adapters.secrets.dlt_providers import DltProviders
from cdc_core.values.errors import SettingsError
from cdc_core.values.table_rules import SETTING, rule_name
from entrypoints.settings.environment import on_databricks, workspace_is_known
from entrypoints.settings.model import CLIENT_SECRET, CREDENTIALS, MASK_KEY, SECTIONS, Settings
from entrypoints.settings.table_rules import problem_of
from entrypoints.settings.wording import cure, missing, problem_text, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

    from cdc_core.ports.secrets import Secrets
    from entrypoints.settings.model import DatabricksSettings

#: Destinations without JSON in a type of its own, and why.
_NO_VARIANT = {
    "delta": "the destination delta has no such type",
    "databricks": "VARIANT columns on databricks are not supported yet",
}
_USE_STRING = 'set json = "string" in that rule'
_DUCKDB_SCHEMAS = ("main", "information_schema", "pg_catalog", "temp", "system")


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
    source's credentials. Without it, the Databricks secret scope is used if this process runs on
    Databricks and no provider has credentials. With `client_secret_key`, the client secret is read
    from the same scope. `needs_source` and `needs_destination` say which side's settings must be
    complete.
    """
    environ = os.environ if environ is None else environ
    settings = _validated(DltProviders.find(SECTIONS, environ, overrides))
    wanted = []
    absent = on_databricks(environ) and settings.source.credentials is None
    if needs_source and (scope is not None or absent):
        wanted.append(CREDENTIALS)
    if needs_source and settings.source.mask_key_secret is not None:
        wanted.append(MASK_KEY)
    if needs_destination and settings.databricks.client_secret_key is not None:
        wanted.append(CLIENT_SECRET)
    if wanted:
        store = (scope or databricks_scope)(settings)
        found = {key: store.get(key) for key in wanted}
        settings = _validated(DltProviders.find(SECTIONS, environ, {**(overrides or {}), **found}))
    if needs_source and settings.source.credentials is None:
        raise SettingsError(missing(CREDENTIALS), cure(CREDENTIALS))
    if needs_source:
        _check_rules(settings)
    if needs_destination:
        match settings.pipeline.destination:
            case "databricks":
                _check_databricks(settings.databricks, environ)
            case "duckdb":
                _check_duckdb(settings.duckdb.credentials, settings.pipeline.dataset_name)
            case "delta":
                _check_delta(settings.filesystem.bucket_url)
    settings._load_again = partial(load_settings, overrides, environ=environ, scope=scope)
    return settings


def databricks_scope(settings: Settings) -> Secrets:
    """Return the secret scope that the settings name."""
    source = settings.source
    keys = {CREDENTIALS: source.pg_connection_string}
    if source.mask_key_secret is not None:
        keys[MASK_KEY] = source.mask_key_secret
    if settings.databricks.client_secret_key is not None:
        keys[CLIENT_SECRET] = settings.databricks.client_secret_key
    return DatabricksSecretScope(source.dlt_scope, keys)


def _validated(providers: DltProviders) -> Settings:
    try:
        return Settings.model_validate(providers.document())
    except ValidationError as error:
        raise _first_of(error, providers) from None


def _check_databricks(settings: DatabricksSettings, environ: Mapping[str, str]) -> None:
    credentials = settings.credentials
    section = "destination.databricks.credentials"
    inside = workspace_is_known(environ)
    by_spark = chosen_engine(settings.engine, credentials.http_path, environ) == "spark"
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


def _check_duckdb(credentials: str, dataset: str) -> None:
    """Require a file that can be created; DuckDB and dlt check other forms (`md:…`)."""
    key = "destination.duckdb.credentials"
    name = "pipeline.dataset_name"
    if dataset.lower() in _DUCKDB_SCHEMAS:
        raise SettingsError(
            f"{name} = {dataset!r} is DuckDB's own, which nothing can drop", cure(name)
        )
    if credentials.removeprefix("duckdb:///").startswith(":memory:"):
        raise SettingsError(f"{key} is :memory:, which ends with the run", "name a file")
    if re.match(r"(?!duckdb:///)[a-z]+:", credentials):
        return
    file = Path(credentials.removeprefix("duckdb:///"))
    if file.is_dir():
        raise SettingsError(f"{key} = {credentials!r} is a folder", "name a file in it")
    if not file.absolute().parent.is_dir():
        raise SettingsError(f"{key} = {credentials!r}: its folder does not exist", "create it")
    # DuckDB names the database after its file. It rejects a name that is both database and schema.
    database = next((part for part in file.name.split(".") if part), "").lower()
    if database == dataset.lower():
        raise SettingsError(
            f"{key} = {credentials!r} and {name} = {dataset!r} give the database the name of a "
            "schema in it, which DuckDB cannot distinguish",
            f"rename the file or the dataset: {cure(key)}; {cure(name)}",
        )


def _check_delta(bucket_url: str) -> None:
    """Require a folder that exists or can be created; dlt checks object stores."""
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


def _check_rules(settings: Settings) -> None:
    """Refuse what is wrong with a rule whatever tables it matches."""
    for number, rule in enumerate(settings.source.tables, start=1):
        name = rule_name(number, rule.match)
        if rule.exclude_columns is not None and rule.include_columns is not None:
            raise SettingsError(
                f"{name} has both include_columns and exclude_columns", "use one of the two"
            )
        if rule.json_ == "variant" and settings.pipeline.destination in _NO_VARIANT:
            why = _NO_VARIANT[settings.pipeline.destination]
            raise SettingsError(f'{name}: json is "variant", but {why}', _USE_STRING)


def _first_of(error: ValidationError, providers: DltProviders) -> SettingsError:
    """Word the first problem as one line, with the number of others."""
    problems = error.errors(include_url=False, include_input=True)
    problem = problems[0]
    if found := problem_of(providers.value(SETTING), problem):
        origin = providers.origin(SETTING) or "the settings"
        return SettingsError(f"{found[0]}, in {origin}", found[1])
    location = [str(part) for part in problem["loc"]]
    # Parts after a list's or a union's are pydantic's own.
    key = ".".join(part for part in location if not part.isdigit() and "[" not in part)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    origin = providers.origin(key) or "the settings"
    if problem["type"] == "extra_forbidden":
        section, _, name = key.rpartition(".")
        known = _keys_of(section)
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return SettingsError(f"unknown setting {key} in {origin}{more}", hint)
    value = shown(key, problem["input"])
    return SettingsError(f"{key}{value} {problem_text(problem)}, in {origin}{more}", cure(key))


def _keys_of(section: str) -> list[str]:
    model: type[BaseModel] = Settings
    for part in section.split("."):
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type)):
            return []
        model = field.annotation
    return list(model.model_fields)
