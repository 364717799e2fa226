"""Read the settings of this process: dlt's providers and order, without importing dlt.

Everything that can be found wrong without a connection is found here, in well under a second.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adapters.secrets.databricks_scope import DatabricksSecretScope
from adapters.secrets.dlt_providers import DltProviders
from adapters.setting_names import cure, missing
from cdc_core.values.errors import SettingsError
from cdc_core.values.table_rules import SETTING, rule_name
from entrypoints.settings.environment import on_databricks
from entrypoints.settings.model import CREDENTIALS, MASK_KEY, SECTIONS, Settings
from entrypoints.settings.table_rules import problem_of
from entrypoints.settings.wording import problem_text, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

    from cdc_core.ports.secrets import Secrets

_USE_STRING = 'set json = "string" in that rule'


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
    if needs_destination:
        wanted.extend(settings.scope_keys())
    if wanted:
        store = (scope or databricks_scope)(settings)
        found = {key: store.get(key) for key in wanted}
        settings = _validated(DltProviders.find(SECTIONS, environ, {**(overrides or {}), **found}))
    if needs_source and settings.source.credentials is None:
        raise SettingsError(missing(CREDENTIALS), cure(CREDENTIALS))
    if needs_source:
        _check_rules(settings)
    if needs_destination:
        settings.section.check(settings.pipeline.dataset_name, environ)
    settings._load_again = partial(load_settings, overrides, environ=environ, scope=scope)
    return settings


def databricks_scope(settings: Settings) -> Secrets:
    """Return the secret scope that the settings name."""
    source = settings.source
    keys = {CREDENTIALS: source.pg_connection_string, **settings.scope_keys()}
    if source.mask_key_secret is not None:
        keys[MASK_KEY] = source.mask_key_secret
    return DatabricksSecretScope(source.dlt_scope, keys)


def _validated(providers: DltProviders) -> Settings:
    try:
        return Settings.model_validate(providers.document())
    except ValidationError as error:
        raise _first_of(error, providers) from None


def _check_rules(settings: Settings) -> None:
    """Refuse what is wrong with a rule whatever tables it matches."""
    for number, rule in enumerate(settings.source.tables, start=1):
        name = rule_name(number, rule.match)
        if rule.exclude_columns is not None and rule.include_columns is not None:
            raise SettingsError(
                f"{name} has both include_columns and exclude_columns", "use one of the two"
            )
        why = settings.section.no_variant
        if rule.json_ == "variant" and why is not None:
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
