"""The rules of a table in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def rules_text(rules: Mapping[str, Any]) -> str:
    words = []
    for key, value in rules.items():
        if key == "columns":
            words += [f"{column} {rule}" for column, rule in value.items()]
        else:
            text = value if isinstance(value, str) else ", ".join(value)
            words.append(f"{key.replace('_', ' ')} {text}")
    return "; ".join(words)
