"""The one boundary where errors become a line on standard error and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, NoReturn

from entrypoints.cli.arguments import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def guarded(work: Callable[[], int], lines: list[str] | None = None) -> int:
    """Run `work` and return its exit code.

    An error becomes one line on standard error, appended to `lines` too, and its exit code.
    """
    if sys.stderr is None:
        # It is closed. Messages must not reach standard output instead.
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - lives as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error does: a name that the locale's encoding lacks must not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # Python allows signal handlers in the main thread only; a task may run in another.
    handles = threading.current_thread() is threading.main_thread()
    # A driver's callback may turn it into an error of that driver.
    interrupted: list[BaseException] = []

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        from entrypoints.runtime.error_boundary import Interrupted

        interrupted.append(Interrupted())
        raise interrupted[0]

    previous = signal.signal(signal.SIGTERM, interrupt) if handles else None
    try:
        return work()
    except SystemExit as end:
        # argparse raises it after --help and --version.
        return end.code if isinstance(end.code, int) else 0
    except BaseException as error:  # noqa: BLE001 - the one boundary
        return _report(interrupted[0] if interrupted else error, [] if lines is None else lines)
    finally:
        if handles:
            signal.signal(signal.SIGTERM, previous)


def _report(error: BaseException, lines: list[str]) -> int:
    from entrypoints.output.log import redact
    from entrypoints.output.terminal import printable
    from entrypoints.runtime import error_boundary

    if os.environ.get("LOG_LEVEL", "").strip().upper() == "DEBUG":
        _print(redact(error_boundary.safe_traceback(error)))
    line = printable(redact(f"{PROGRAM}: {error_boundary.one_line(error)}"))
    lines.append(line)
    _print(line)
    if isinstance(error, BrokenPipeError):
        # Python would flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return error_boundary.exit_code(error)


def _print(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except (OSError, ValueError):
        # Standard error is gone; only the exit code is left.
        return
