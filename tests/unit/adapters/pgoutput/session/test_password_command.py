"""The password command with real processes: its output, and how it fails."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import pytest

from adapters.pgoutput.session.password_command import password_of
from cdc_core.values.errors import SettingsError


def script(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "ask"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return [str(file)]


@pytest.mark.parametrize("printed", ["pässwörd", "with space ", "$HOME `id` %s 'x'", "a" * 5000])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_output_is_the_password(printed: str, end: str) -> None:
    assert password_of(["printf", "%s", printed + end]) == printed


def test_no_shell_sees_the_arguments() -> None:
    assert password_of(["echo", "$(id)", ";", "|", "*"]) == "$(id) ; | *"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo first >&2; echo 'token expired' >&2; echo >&2; exit 7", "(exit code 7): token exp"),
        ("exit 3", "'ask' failed (exit code 3);"),
        ("kill -9 $$", "(ended by signal 9)"),
        ("true", "printed no password"),
        ("echo; echo", "printed no password"),
        ("echo s3cret; echo more", "printed more than one line"),
        (r"printf 's3cret\000'", "printed more than one line"),
        (r"printf 's3cret\377'", "printed no UTF-8 text"),
    ],
)
def test_a_command_that_gives_no_password(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as failed:
        password_of(script(tmp_path, text))
    assert said in str(failed.value)
    assert "sources.pg_replication.password_command" in failed.value.cure
    assert "s3cret" not in str(failed.value)


def test_a_failure_repeats_no_secret(tmp_path: Path) -> None:
    """Neither what the command printed nor what the connection string has."""
    command = script(tmp_path, "echo s3cret; echo 'bad s3cret for known' >&2; exit 1")
    with pytest.raises(SettingsError, match=r"bad \*\*\* for \*\*\*") as failed:
        password_of(command, ["known"])
    assert failed.value.__cause__ is None


@pytest.mark.parametrize("program", ["no-such-program", "/etc/passwd", "/"])
def test_a_program_that_cannot_be_run(program: str) -> None:
    with pytest.raises(SettingsError, match=r"the program '\S*' of the password command"):
        password_of([program, "s3cret"])


def test_a_command_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = script(tmp_path, f"sleep 60 & echo $! > {shlex.quote(str(pid))}; wait")
    began = time.monotonic()
    with pytest.raises(SettingsError, match=r"'ask' did not end within 0\.5 seconds"):
        password_of(command, timeout=0.5)
    assert time.monotonic() - began < 10
    # It may remain as a zombie of this container's init. A signal takes effect when it runs next.
    status = Path(f"/proc/{pid.read_text().strip()}/stat")
    while status.exists() and status.read_text().split()[2] not in "ZX":
        assert time.monotonic() - began < 10
        time.sleep(0.01)


def test_the_command_has_no_input_to_wait_for() -> None:
    read, write = os.pipe()
    try:
        assert password_of(["sh", "-c", "cat; echo x"]) == "x"
    finally:
        os.close(read)
        os.close(write)
