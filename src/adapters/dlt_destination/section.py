"""The settings of a destination: one pydantic model in its own folder, in the module `section`.

The model of all settings and the options of the command line follow from it. The message of an
error is the end of a sentence that begins with the setting's name. It never quotes the value.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from adapters.setting_names import SECRET_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping


class Keys(BaseModel):
    """Keys of the settings. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def for_dlt(self) -> dict[str, Any]:
        """Return the keys that are set, with secrets in plain text."""
        return {key: _plain(value) for key, value in self if value is not None}

    def secret_values(self) -> set[str]:
        """Return every value that must not appear in output: secrets, and in tables that are not
        printed (`repr=False`) the values whose key names a secret."""
        found: set[str] = set()
        for name, field in type(self).model_fields.items():
            match getattr(self, name):
                case Keys() as keys:
                    found |= keys.secret_values()
                case SecretStr() as secret:
                    found.add(secret.get_secret_value())
                case dict() as table if not field.repr:
                    found |= {str(value) for key, value in table.items() if _is_secret(key)}
        return found


class Section(Keys):
    """The section of a destination; its class is named `Settings` in the module `section`."""

    #: Why rules cannot have json = "variant", as the end of a sentence; None if they can.
    no_variant: ClassVar[str | None] = None
    #: Whether the type for JSON keeps the text of values. If not, they are sent as canonical JSON.
    variant_keeps_text: ClassVar[bool] = True

    def check(self, dataset: str, environ: Mapping[str, str]) -> None:
        """Raise `SettingsError` for what is wrong without a connection. Called if this destination
        is the chosen one; `dataset` is the name of its dataset."""

    def scope_keys(self) -> dict[str, str]:
        """Return the settings that the secret scope of Databricks holds, with their keys there."""
        return {}


def _plain(value: Any) -> Any:
    if isinstance(value, Keys):
        return value.for_dlt()
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _is_secret(key: str) -> bool:
    return SECRET_KEYS.search(key.lower()) is not None or "key" in key.lower()


def _table(value: Any) -> Any:
    """Accept a table, or JSON from the environment."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError("is not a JSON object") from None


def not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _given_secret(value: SecretStr) -> SecretStr:
    _not_blank(value.get_secret_value())
    return value


def _no_indexes(value: bool) -> bool:
    if value:
        raise ValueError("has no effect: destination tables are made without keys")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]
Secret = Annotated[SecretStr, AfterValidator(_given_secret)]
Count = Annotated[int, BeforeValidator(not_bool), Field(ge=1)]
FromJson = BeforeValidator(_table)
Table = Annotated[dict[str, Any], FromJson]
NoIndexes = Annotated[bool, AfterValidator(_no_indexes)]
