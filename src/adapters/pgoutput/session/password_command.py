"""A command whose output is the password of a connection: a token of a cloud, or a vault's secret.

The command runs without a shell. Its output is a secret: it is in no message. Of a command that
fails, messages have the program's name and the last line of its standard error, redacted.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.redaction import Redactor
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PASSWORD_COMMAND_KEY = "sources.pg_replication.password_command"  # noqa: S105 - its key

#: Tools of the clouds take a few seconds.
TIMEOUT_SECONDS = 30.0
#: A token is about 2 kB. PostgreSQL refuses a longer password message.
_MOST_BYTES = 60_000
_MOST_SHOWN = 300


def password_of(
    command: Sequence[str], secrets: Iterable[str] = (), timeout: float | None = None
) -> str:
    """Run the command and return its output without the line break at the end.

    `secrets` are removed from what the command says about a failure. `timeout` is in
    seconds.
    Raises `SettingsError`.
    """
    name = Path(command[0]).name
    cure = f"correct {PASSWORD_COMMAND_KEY}, or what the command needs"
    code, output, said = _run(command, name, TIMEOUT_SECONDS if timeout is None else timeout)
    if code:
        line = Redactor([*secrets, *output.decode(errors="replace").split()])(_last_line(said))
        ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        reason = f": {line}" if line else ""
        raise SettingsError(f"the password command {name!r} failed ({ended}){reason}", cure)
    try:
        password = output.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SettingsError(f"the password command {name!r} printed no UTF-8 text", cure) from None
    if not password.strip():
        raise SettingsError(f"the password command {name!r} printed no password", cure)
    if len(output) > _MOST_BYTES or any(c in password for c in "\0\r\n"):
        raise SettingsError(
            f"the password command {name!r} printed more than one line",
            f"let it print the password alone: correct {PASSWORD_COMMAND_KEY}",
        )
    return password


def _run(command: Sequence[str], name: str, timeout: float) -> tuple[int, bytes, bytes]:
    """Run the command; return its exit code, standard output and standard error."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the command of the settings, without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = "was not found" if missing else f"cannot be run ({error.strerror})"
        raise SettingsError(
            f"the program {name!r} of the password command {why}",
            f"install it, or correct {PASSWORD_COMMAND_KEY}: the program and its arguments, "
            "each a text of its own",
        ) from None
    try:
        output, said = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"the password command {name!r} did not end within {timeout:g} seconds",
            f"run it by hand, or correct {PASSWORD_COMMAND_KEY}",
        ) from None
    finally:
        _end(process)
    return process.returncode, output, said


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and what it started; nothing if it has ended by itself."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last if len(last) <= _MOST_SHOWN else f"{last[:_MOST_SHOWN]}..."
