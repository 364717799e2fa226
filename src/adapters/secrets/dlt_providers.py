"""dlt's configuration providers without dlt: environment, `secrets.toml`, then `config.toml`.

To read a setting must not cost the import of dlt, so this module repeats dlt's rules. A variable's
name is the path in upper case, joined by two underscores. The project's folder overrides the global
folder.
Source: dlt documentation, "Configuration: where dlt looks for values".
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.setting_names import SEPARATOR, environment_name
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SECRETS_FILE = "secrets.toml"
CONFIG_FILE = "config.toml"

KeyPath = tuple[str, ...]


class DltProviders:
    """The values that dlt would find, and the origin of each. Also a `Secrets` port."""

    def __init__(self, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """`layers` are pairs of a provider's name and its document; the first one has priority."""
        self._values: dict[KeyPath, Any] = {}
        self._origins: dict[KeyPath, str] = {}
        for origin, document in layers:
            for path, value in _leaves(document):
                if not self._shadowed(path):
                    self._values[path] = value
                    self._origins[path] = origin

    @classmethod
    def find(
        cls,
        sections: Sequence[str],
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> DltProviders:
        """Read the providers of this process.

        From the environment, only variables below one of the dotted `sections` are used.
        `overrides` are dotted keys with the highest priority (the command line's). Raises
        `SettingsError` for a file that cannot be read.
        """
        environ = os.environ if environ is None else environ
        files = [
            (str(file), _read(file))
            for name in (SECRETS_FILE, CONFIG_FILE)
            for folder in settings_folders(environ)
            if (file := folder / name).is_file()
        ]
        given = _nested((tuple(key.split(".")), value) for key, value in (overrides or {}).items())
        layers = [("the command line", given), *_environment(sections, environ), *files]
        for origin, document in layers:
            for section in sections:
                _check_section(section, document, origin)
        return cls(layers)

    def get(self, key: str) -> str | None:
        value = self._values.get(tuple(key.split(".")))
        return None if value is None else str(value)

    def value(self, key: str) -> Any:
        """Return the value of a dotted key, of any type; None if it is not set."""
        return self._values.get(tuple(key.split(".")))

    def origin(self, key: str) -> str | None:
        """Return the origin of a dotted key's value, for messages; None if it is not set."""
        path = tuple(key.split("."))
        own = self._origins.get(path)
        if own is not None:
            return own
        parts = {o for p, o in self._origins.items() if p[: len(path)] == path}
        others = " and others" if len(parts) > 1 else ""
        return f"{min(parts)}{others}" if parts else None

    def document(self) -> dict[str, Any]:
        """Return all values, nested by section."""
        return _nested(self._values.items())

    def _shadowed(self, path: KeyPath) -> bool:
        """Whether a provider with higher priority has set this key, or one above or below it."""
        return any(
            path[: len(known)] == known or known[: len(path)] == path for known in self._values
        )


def settings_folders(environ: Mapping[str, str]) -> list[Path]:
    """Return the project's settings folder, then dlt's global folder."""
    project = Path(environ.get("DLT_PROJECT_DIR", "."))
    name = environ.get("DLT_CONFIG_FOLDER", ".dlt")
    return [project / name, _global_folder(environ, name)]


def _global_folder(environ: Mapping[str, str], name: str) -> Path:
    """As `dlt.common.runtime.run_context.global_dir`."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/dlt")
    home = Path("~").expanduser()
    if not os.access(home, os.W_OK):
        return Path(tempfile.gettempdir()) / "dlt"
    if "XDG_DATA_HOME" in environ and not (home / name).is_dir():
        return Path(environ["XDG_DATA_HOME"]) / "dlt"
    return home / name


def _check_section(section: str, document: Mapping[str, Any], origin: str) -> None:
    """Raise `SettingsError` if a section is a plain value."""
    node: Any = document
    passed: list[str] = []
    for part in section.split("."):
        passed.append(part)
        node = node.get(part, {})
        if not isinstance(node, dict):
            name = ".".join(passed)
            raise SettingsError(
                f"{name} must be a section, in {origin}", f"write it as [{name}], its keys below"
            )


def _environment(
    sections: Sequence[str], environ: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    prefixes = tuple(environment_name(section) + SEPARATOR for section in sections)
    for variable, value in environ.items():
        if variable.startswith(prefixes):
            path = tuple(variable.lower().split(SEPARATOR))
            yield f"the environment variable {variable}", _nested([(path, value)])


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        # The parser's message can quote the wrong text, which can be a password.
        place = re.search(r"line \d+, column \d+", str(error))
        where = place.group() if place else "the end"
        raise SettingsError(
            f"{file} is not valid TOML at {where}", "correct that line; strings need quotes"
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}", "correct its permissions"
        ) from None


def _leaves(document: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _nested(values: Any) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for path, value in values:
        node = document
        for section in path[:-1]:
            node = node.setdefault(section, {})
        node[path[-1]] = value
    return document
