"""Settings as options of a command line: `--slot-name=…` sets `sources.pg_replication.slot_name`.

The options follow from the model of the settings. Secrets have no option, because everybody can see
the parameters of a task on its page, and the arguments of a process on its machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, SecretStr

from adapters.dlt_destination.register import DESTINATIONS
from entrypoints.settings import Settings, load_settings
from entrypoints.settings.model import SECTIONS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo

    from entrypoints.cli.parser import Parser

#: Options whose names are not the last parts of their keys, by the last two.
_NAMES = {
    "pipeline.name": "pipeline-name",
    "pg_replication.pg_connection_string": "secret-key",
    "pg_replication.tables": "table-rules",
}
#: Keys of dlt that have no effect here.
_LEFT_OUT = ("create_indexes",)
_SCOPE = ("sources.pg_replication.dlt_scope", "sources.pg_replication.pg_connection_string")


def _model(section: str) -> type[BaseModel]:
    model: Any = Settings
    for part in section.split("."):
        model = model.model_fields[part].annotation
    return model  # type: ignore[no-any-return]


def _fields(section: str) -> Iterator[tuple[str, FieldInfo]]:
    """The fields of a section and of the sections within, by dotted key; secrets are left out."""
    for name, field in _model(section).model_fields.items():
        key = f"{section}.{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(key)
        elif field.repr and name not in _LEFT_OUT and not _is_secret(field.annotation):
            yield key, field


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def _named(keys: Iterable[str]) -> dict[str, str]:
    """Return the keys by the names of their options.

    The section is in front if the key is `credentials`, or if another key has the name already.
    """
    found: dict[str, str] = {}
    for key in keys:
        *_, section, last = key.split(".")
        name = _NAMES.get(f"{section}.{last}") or last.replace("_", "-")
        if last == "credentials" or name in found:
            name = f"{section.replace('_', '-')}-{name}"
        found[name] = key
    return found


#: The options, by name, with the dotted key that each sets.
OPTIONS = _named(key for section in SECTIONS for key, _ in _fields(section))
_DESCRIPTIONS = {key: field.description for section in SECTIONS for key, field in _fields(section)}


def add_to(parser: Parser) -> None:
    """Add all options and `--log-level`. An empty value does not count: a job cannot omit one."""
    parser.add_argument("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR")
    for name, key in OPTIONS.items():
        choices = (*DESTINATIONS, "") if name == "destination" else None
        parser.add_argument(
            f"--{name}", choices=choices, metavar="VALUE", help=f"{_DESCRIPTIONS[key]} ({key})"
        )


def split(arguments: Sequence[str], program: str) -> tuple[argparse.Namespace, list[str]]:
    """Separate options given as `--name=value` from a command's other arguments."""
    from entrypoints.cli.parser import Parser

    names = {f"--{name}" for name in (*OPTIONS, "log-level")} - {"--destination"}
    options = [text for text in arguments if "=" in text and text.partition("=")[0] in names]
    parser = Parser(prog=program, allow_abbrev=False, add_help=False)
    add_to(parser)
    return parser.parse_args(options), [text for text in arguments if text not in options]


def given(chosen: argparse.Namespace) -> dict[str, str]:
    """Return the values that the options set, by dotted key."""
    values = {key: getattr(chosen, name.replace("-", "_")) for name, key in OPTIONS.items()}
    return {key: value for key, value in values.items() if value}


def set_log_level(chosen: argparse.Namespace) -> None:
    if chosen.log_level:
        os.environ["LOG_LEVEL"] = chosen.log_level


def settings(
    options: Mapping[str, str], *, needs_source: bool = True, needs_destination: bool = True
) -> Settings:
    """Load the settings with the options on top. A secret scope named there has the credentials."""
    from entrypoints.settings.load import databricks_scope

    named = any(key in options for key in _SCOPE)
    return load_settings(
        options,
        scope=databricks_scope if named else None,
        needs_source=needs_source,
        needs_destination=needs_destination,
    )
