"""The two consoles of this process: results on standard output, all else on standard error.

Names come from other people's databases, so what is printed is what they are: no markup where names
are, no emoji codes, and nothing that would end a line or steer the terminal.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def printable(text: str) -> str:
    """The text on one line: what is no character to be seen is escaped as `repr` does."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@cache
def console() -> Console:
    # Output that is piped is for programs: full width, so that no name is cut.
    found = _made(soft_wrap=False)
    if not found.is_terminal:
        found.width = 160
    return found


@cache
def error_console() -> Console:
    return _made(stderr=True)


def _made(**options: Any) -> Console:
    from rich.console import Console

    class OneBoundary(Console):
        """rich would end the process by itself, without a word."""

        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    return OneBoundary(highlight=False, emoji=False, **options)
