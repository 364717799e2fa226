"""HTML elements. Every text is escaped, unless it is an element already.

Names and errors come from other people's databases. Invisible characters, such as those that turn
the direction of text, are shown escaped.
"""

from __future__ import annotations

from html import escape

from entrypoints.output.terminal import printable

_VOID = frozenset({"input", "meta"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: str) -> Html:
    return Html(escape(printable(value)))


def tag(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Html:
    """Return an element. `_` in an attribute's name stands for `-`; a trailing one is dropped. None
    and False leave an attribute or child out, True gives it no value."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str | None) -> Html:
    return Html(
        "".join(
            child if isinstance(child, Html) else text(child)
            for child in children
            if child is not None
        )
    )


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(printable(str(value)))}"'
