"""Unwrap dlt's exceptions: find their cause, and settings that are wrong.

Source: dlt, `dlt.pipeline.exceptions`, `dlt.load.exceptions`, `dlt.destinations.exceptions`.
"""

from __future__ import annotations

from adapters.dlt_destination.dlt.runtime import import_dlt
from cdc_core.values.errors import SettingsError

#: Attributes in which dlt's exceptions keep the exception that they wrap.
_INNER = (
    "exception",
    "client_exception",
    "job_exception",
    "dbapi_exception",
    "inner_exc",
    "__cause__",
)


def root_cause(error: BaseException) -> BaseException:
    """Return the innermost exception inside dlt's exceptions."""
    seen = {id(error)}
    while True:
        inner = next(
            (
                found
                for name in _INNER
                if isinstance(found := getattr(error, name, None), BaseException)
                and id(found) not in seen
            ),
            None,
        )
        if inner is None:
            return error
        seen.add(id(inner))
        error = inner


def settings_error(error: BaseException, section: str) -> SettingsError | None:
    """Return a `SettingsError` if the cause is a setting. dlt's own text is not repeated: it could
    contain a credential."""
    import_dlt()
    from dlt.common.configuration.exceptions import (
        ConfigFieldMissingException,
        ConfigurationException,
    )
    from dlt.common.exceptions import MissingDependencyException
    from dlt.pipeline.exceptions import InvalidPipelineName

    where = f"under [{section}] in .dlt/config.toml or .dlt/secrets.toml, or in the environment"
    match error:
        case ConfigFieldMissingException():
            names = ", ".join(f"{section}.{name}" for name in error.fields)
            return SettingsError(f"not set: {names}", f"set it {where}")
        case InvalidPipelineName():
            return SettingsError(
                "pipeline.name has characters that a folder's name cannot have",
                "set pipeline.name to letters, digits and underscores",
            )
        case ConfigurationException():
            return SettingsError(
                f"the settings of the destination are not valid ({type(error).__name__})",
                f"correct them {where}",
            )
        case MissingDependencyException():
            packages = " ".join(f"'{name}'" for name in error.dependencies)
            return SettingsError(
                "the destination needs packages that are not installed",
                f"run: pip install {packages}",
            )
        case ModuleNotFoundError():
            return SettingsError(
                f"the destination needs the package {error.name!r}, which is not installed",
                f"run: pip install {error.name}",
            )
    return None
