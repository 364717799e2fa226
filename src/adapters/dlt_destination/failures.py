"""What went wrong underneath, said in one line that no row's value can be in."""

from __future__ import annotations

import re

from cdc_core.values.errors import SettingsError

#: A value may have quotes in it, so all between the first and the last may be one.
_QUOTED = re.compile(r"['\"`].*['\"`]", re.DOTALL)
_UNCLOSED = re.compile(r"['\"`].*", re.DOTALL)
_NUMBER = re.compile(r"\d+")
_LONGEST = 200

#: Attributes under which dlt's exceptions keep what they wrap.
_INNER = (
    "exception",
    "client_exception",
    "job_exception",
    "dbapi_exception",
    "inner_exc",
    "__cause__",
)


def is_failure(error: BaseException) -> bool:
    """Whether something went wrong, a panic of a library in Rust included, which is no `Exception`:
    not that the run was interrupted."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def root_cause(error: BaseException) -> BaseException:
    """The innermost exception of dlt's wrappers."""
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


def scrubbed(error: BaseException) -> str:
    """The error's kind and first line; what is quoted and every number is masked."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    text = _UNCLOSED.sub("…", _QUOTED.sub("…", text))
    text = _NUMBER.sub("…", text)[:_LONGEST].strip()
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def settings_error(error: BaseException, section: str) -> SettingsError | None:
    """The error as one of the settings, if it is; dlt's own words could hold a credential."""
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
