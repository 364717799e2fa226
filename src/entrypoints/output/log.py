"""Logging of the command line and of wheel tasks: one line per event, to standard error.

Output never holds a secret or a row's values. Our own messages hold none by rule, and every handler
redacts known secrets. Other libraries may log statements and rows, so their records are not shown;
at DEBUG a line names only the place.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TextIO

from adapters.redaction import Redactor
from entrypoints.output.terminal import printable

#: Loggers of this project; all others belong to other libraries.
OURS = ("pgbronze", "cdc_core", "adapters", "entrypoints")

redact = Redactor()


class _Safe(logging.Filter):
    """Make a record safe to print: secrets redacted, one line, no traceback."""

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
    """Time in UTC, because logs of several machines are read together; level; message."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created))
        return f"{clock}Z {record.levelname:<7} {record.getMessage()}"


def configure(level: str, stream: TextIO | None = None) -> None:
    """Set up the root logger of this process and silence other libraries' warnings."""
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
    # Python warnings come from other libraries too.
    logging.captureWarnings(True)


def setup_logger(name: str) -> logging.Logger:
    """Return a logger under the project's name. Configures logging if nothing else has."""
    if not logging.getLogger().handlers:
        from entrypoints.settings.environment import log_level

        configure(log_level())
    return logging.getLogger(name if _is_ours(name) else f"pgbronze.{name}")


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in OURS


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _terminal_handler() -> logging.Handler:
    """rich's handler, which prints lines above a progress bar."""
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
