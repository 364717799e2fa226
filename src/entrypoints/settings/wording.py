"""How messages name a setting, and where it can be set."""

from __future__ import annotations

import re
from typing import Any

from adapters.secrets.dlt_providers import environment_name

#: Keys whose values are never shown.
SECRET_KEYS = re.compile(r"credentials|token|secret|password|http_headers|mask_key")


def missing(key: str) -> str:
    return f"the setting {key} is missing"


def cure(key: str) -> str:
    section, _, name = key.rpartition(".")
    file = "secrets.toml" if SECRET_KEYS.search(key) else "config.toml"
    return f"set {environment_name(key)}, or {name} under [{section}] in .dlt/{file}"


def problem_text(problem: Any) -> str:
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


def shown(key: str, value: Any) -> str:
    """A wrong value, shortened; nothing if it may be a secret."""
    if SECRET_KEYS.search(key) or not isinstance(value, str | int | float | bool):
        return ""
    text = repr(value)
    return f" = {text}" if len(text) <= 80 else f" = {text[:76]}..."
