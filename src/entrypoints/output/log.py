"""Logging of the command line and of wheel tasks: one line an event, to standard error.

No output may hold a secret or a row's values. Our own messages hold none by rule; every handler
strikes out known secrets besides. What other libraries log may quote statements and rows, so it is
not shown at all; at DEBUG their records leave a line that says where, not what.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TextIO

from adapters.redaction import Redactor
from entrypoints.output.terminal import printable

#: Loggers of this project; all else is other people's.
OURS = ("pgbronze", "cdc_core", "adapters", "entrypoints")

redact = Redactor()


class _Safe(logging.Filter):
    """Makes a record safe to print: secrets struck out, one line, tracebacks left to `faults`."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_ours(record.name):
            record.msg = printable(redact(record.getMessage()))
        else:
            place = f"{record.module}:{record.lineno}"
            record.msg = f"{record.name} logged {record.levelname} at {place}"
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        record.args = ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


class _OthersAtDebugOnly(logging.Filter):
    def __init__(self, level: int) -> None:
        super().__init__()
        self._debug = level <= logging.DEBUG

    def filter(self, record: logging.LogRecord) -> bool:
        ours = _is_ours(record.name)
        return ours or (self._debug and record.levelno >= logging.WARNING)


class _PlainFormatter(logging.Formatter):
    """Time in UTC, as the task logs of several machines are read together; level; message."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created))
        return f"{clock}Z {record.levelname:<7} {record.getMessage()}"


def configure(level: str, stream: TextIO | None = None) -> None:
    """Set up the root logger of this process, and keep other libraries' warnings to themselves."""
    stream = stream or sys.stderr
    handler: logging.Handler = logging.StreamHandler(stream)
    if is_terminal(stream):
        handler = _terminal_handler()
    else:
        handler.setFormatter(_PlainFormatter())
    number = logging.getLevelNamesMapping()[level]
    handler.addFilter(_OthersAtDebugOnly(number))
    handler.addFilter(_Safe())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(number)
    # Python warnings are other people's words too.
    logging.captureWarnings(True)


def setup_logger(name: str) -> logging.Logger:
    """A logger under the project's name; configures logging at `LOG_LEVEL` if nobody has."""
    if not logging.getLogger().handlers:
        from entrypoints.settings.environment import log_level

        configure(log_level())
    return logging.getLogger(name if _is_ours(name) else f"pgbronze.{name}")


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in OURS


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _terminal_handler() -> logging.Handler:
    """rich's, so that lines appear above a progress bar and not through it."""
    from rich.highlighter import NullHighlighter
    from rich.logging import RichHandler

    from entrypoints.output.terminal import error_console

    return RichHandler(
        console=error_console(),
        show_path=False,
        omit_repeated_times=False,
        log_time_format="%X",
        highlighter=NullHighlighter(),
    )
