"""The two consoles of this process: results on standard output, all else on standard error."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    from rich.console import Console

    # Output that is piped is for programs: full width, so that no name is cut.
    found = Console(highlight=False, soft_wrap=False)
    if not found.is_terminal:
        found.width = 160
    return found


@cache
def error_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)
