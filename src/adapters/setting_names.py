"""How messages name a setting, and where it can be set: dlt's own conventions."""

from __future__ import annotations

import re

#: Between the parts of a key in the name of an environment variable.
SEPARATOR = "__"
#: Keys whose values are never shown.
SECRET_KEYS = re.compile(r"credentials|token|secret|password|http_headers|mask_key")


def environment_name(key: str) -> str:
    """Return the name of the environment variable that sets a dotted key."""
    return key.upper().replace(".", SEPARATOR)


def missing(key: str) -> str:
    return f"the setting {key} is missing"


def cure(key: str) -> str:
    section, _, name = key.rpartition(".")
    file = "secrets.toml" if SECRET_KEYS.search(key) else "config.toml"
    return f"set {environment_name(key)}, or {name} under [{section}] in .dlt/{file}"
