"""How messages word a wrong value."""

from __future__ import annotations

from typing import Any

from adapters.setting_names import SECRET_KEYS


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
