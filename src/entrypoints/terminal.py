"""The two consoles of this process: results on standard output, all else on standard error."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console


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

    return OneBoundary(highlight=False, **options)
