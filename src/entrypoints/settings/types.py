"""Types of settings: what each kind of value may look like, on top of pydantic's own checks.

A message is the end of a sentence that begins with the setting's name. It never quotes the value.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from adapters.dlt_destination.section import not_bool
from entrypoints.settings import connection_string

_UNITS = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


#: The message for anything else than a list of names.
_A_LIST = 'must be a list of names: "a, b" or ["a", "b"]'


def _names(value: Any) -> Any:
    """Accept a list, JSON, or names separated by commas.

    Refuse other JSON and quoted names: they would match nothing, so that a table meant to be
    excluded would be replicated.
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
    # Text that begins like JSON, or is quoted, is not meant as a name.
    if text.startswith("[") or any(name.startswith(("{", '"', "'")) for name in names):
        raise ValueError(_A_LIST)
    return names


def _command(value: Any) -> Any:
    """Accept a list, or JSON. A text would need the rules of a shell to become a list."""
    if isinstance(value, str):
        import json

        with suppress(json.JSONDecodeError):
            value = json.loads(value)
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError('must be a list of texts: ["program", "argument"]')
    if not value or not value[0].strip():
        raise ValueError("names no program")
    if any("\0" in part for part in value):
        raise ValueError("holds a NUL character")
    return value


def _size(value: Any) -> Any:
    """Accept bytes, or a number with one of PostgreSQL's units (powers of 1024)."""
    if not isinstance(value, str):
        return not_bool(value)
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


Names = Annotated[tuple[str, ...], BeforeValidator(_names), AfterValidator(_distinct)]
OneOrMoreNames = Annotated[Names, Field(min_length=1)]
Command = Annotated[tuple[str, ...], BeforeValidator(_command)]
Identifier = Annotated[str, AfterValidator(_identifier)]
PipelineName = Annotated[str, AfterValidator(_pipeline_name)]
DatasetName = Annotated[str, AfterValidator(_dataset_name)]
SlotName = Annotated[str, AfterValidator(_slot_name)]
Number = Annotated[float, BeforeValidator(not_bool)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=1)]
ConnectionString = BeforeValidator(_credentials)
