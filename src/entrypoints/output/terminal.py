"""The two consoles of this process: results on standard output, everything else on standard error.

Names come from other people's databases and are printed as they are: without markup or emoji codes,
and without characters that end a line or control the terminal.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def printable(text: str) -> str:
    """Return the text on one line, with invisible characters escaped like `repr` does."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@cache
def console() -> Console:
    # Programs read piped output: use a wide console, so that no name is cut.
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
        """Raise on a broken pipe; rich would end the process silently."""

        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    return OneBoundary(highlight=False, emoji=False, **options)
