"""The command line: help, version, exit codes and what a failing run may print."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import threading
from importlib.metadata import version

import pytest

from cdc_core.values.errors import OperatorNeeded, SourceUnavailable
from entrypoints.cli.arguments import build_parser
from entrypoints.cli.boundary import guarded
from entrypoints.cli.main import main
from entrypoints.runtime.stopping import stop_requests, stops_after
from tests.unit.entrypoints.conftest import DSN, PASSWORD

COMMANDS = (
    "demo check snapshot cdc status verify simulate cleanup volumes slot".split()  # noqa: SIM905
)


def test_commands_are_those_of_the_contract(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n    {command}" in told for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_an_example(command, capsys):
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"example:\n  pgbronze {command}" in told
    assert "--destination databricks|duckdb|delta" in told


def test_help_is_quick():
    fastest = min(_seconds("--help") for _ in range(3))
    assert fastest < 0.3


def _seconds(*arguments):
    """The processor's, which other processes do not prolong much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "entrypoints.cli.main", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pgbronze {version('pgbronze')}\n"


def test_no_command_shows_help(capsys):
    assert main([]) == 0
    assert "COMMAND" in capsys.readouterr().out


def test_tables_may_be_given_several_times():
    chosen = build_parser().parse_args(["snapshot", "--tables", "a", "b", "--tables", "c"])
    assert chosen.tables == ["a", "b", "c"]


def test_examples_in_the_help_are_commands_that_parse():
    import shlex

    for name, command in build_parser()._subparsers._group_actions[0].choices.items():
        for example in command.epilog.splitlines()[1:]:
            assert build_parser().parse_args(shlex.split(example)[1:]).command == name


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (SourceUnavailable("PostgreSQL went away", "run again"), 1, "went away; run again"),
        (OperatorNeeded("slot lost", "run: pgbronze snapshot"), 3, "slot lost; run: pgbronze"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "/data/x"), 1, "No space left on device: /data/x"),
        (ModuleNotFoundError("no", name="deltalake"), 1, "pip install 'pgbronze[delta]'"),
        (MemoryError(), 1, "batch_max_rows"),
        (ValueError("row value: 4711"), 1, "unexpected ValueError"),
        (KeyError("4711"), 1, "unexpected KeyError"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(error, code, told, capsys):
    assert guarded(lambda: _raise(error)) == code
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1
    assert "4711" not in line


def test_sigterm_ends_a_command_without_traceback():
    code = (
        "import time; from entrypoints.cli.boundary import guarded\n"
        "def work():\n    print('ready', flush=True)\n"
        # A signal just before a sleep begins does not shorten it.
        "    for _ in range(1200):\n        time.sleep(0.05)\n"
        "raise SystemExit(guarded(work))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert error.count("\n") == 1
    assert "interrupted" in error


def test_a_stop_counts_before_anything_heavy_is_imported(monkeypatch):
    """The signal comes where the first of the heavy modules would be imported."""
    code = """
import os, signal, sys
from entrypoints.cli import main as cli
class Stops:
    def find_spec(self, name, path=None, target=None):
        if name in ("entrypoints.runtime.memory", "pydantic", "pyarrow"):
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGNUMBER)
sys.meta_path.insert(0, Stops())
code = cli.main(sys.argv[1:])
print("still here")
sys.exit(code)
"""
    for name in ("SIGTERM", "SIGINT"):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("SIGNUMBER", name), "cdc", "--follow"],
            capture_output=True,
            text=True,
            env={**os.environ, "LOG_LEVEL": "nonsense"},
        )
        assert done.stdout == "still here\n"
        assert done.returncode == 2, done.stderr
        first, last = done.stderr.splitlines()
        assert first.startswith("stopping after the current batch")
        assert "LOG_LEVEL" in last


def test_first_stop_asks_and_second_insists(caplog):
    with stop_requests() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert "stopping after the current batch" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_run_in_a_thread_has_no_signals_and_ends_by_time():
    asked = []

    def work():
        for seconds in (math.inf, 0):
            with stop_requests() as stop:
                asked.append(stops_after(seconds, stop)())
        return 7

    thread = threading.Thread(target=lambda: asked.append(guarded(work)))
    thread.start()
    thread.join()
    assert asked == [False, True, 7]


def test_unreachable_source_is_exit_1_in_one_line(monkeypatch):
    environ = {**os.environ, "SOURCES__PG_REPLICATION__CREDENTIALS": DSN, "LOG_LEVEL": "DEBUG"}
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints.cli.main", "simulate", "1", "1", "1"],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr.splitlines()[-1]
    assert "connection.py" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def _in_a_shell(arguments):
    return subprocess.run(
        f"{sys.executable} -m entrypoints.cli.main {arguments}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )


def test_broken_pipe_is_no_traceback():
    done = _in_a_shell("--help | true")
    assert "Traceback" not in done.stderr


def test_tables_too_survive_a_closed_pipe():
    code = (
        "from entrypoints.cli.boundary import guarded\n"
        "from entrypoints.output.terminal import console\n"
        "raise SystemExit(guarded(lambda: console().print('x')))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == "pgbronze: the reader of the output went away\n"


def test_without_standard_error_only_the_exit_code_reports_it():
    done = _in_a_shell("slot show 2>&-")
    assert (done.returncode, done.stdout) == (2, "")


def test_an_interrupt_inside_a_driver_is_still_an_interrupt(capsys):
    def work() -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("a callback failed") from None
        return 0

    assert guarded(work) == 143
    assert "interrupted" in capsys.readouterr().err
