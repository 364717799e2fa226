"""Scripts of the wheel for Lakeflow's `python_wheel_task`, with settings as parameters.

`pipeline_main --mode snapshot|cdc`; `full_load` and `cdc_load` are the same with the mode fixed.
`command` is the command line, for tasks that run `check`, `status` or `verify`. The right dlt is
imported before anything else can import the wrong one, and the source's credentials are put where
dlt's configuration finds them.

A task calls the script as a function in an interactive Python, where any `SystemExit` is a failure:
success returns. Source: Databricks documentation, "Python wheel task for jobs"; `ipykernel`.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from cdc_core.values.errors import SettingsError
from entrypoints.cli.arguments import PROGRAM
from entrypoints.cli.boundary import guarded
from entrypoints.cli.main import main
from entrypoints.cli.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class TaskFailed(SystemExit):
    """Ends the process with an exit code; its text is the line that a job's page shows."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(line)
        self.code = code


def pipeline_main() -> None:
    """Run the mode that `--mode` names."""
    run("pipeline_main", sys.argv[1:])


def full_load() -> None:
    """`pipeline_main --mode snapshot`."""
    run("full_load", sys.argv[1:], mode="snapshot")


def cdc_load() -> None:
    """`pipeline_main --mode cdc`."""
    run("cdc_load", sys.argv[1:], mode="cdc")


def command() -> None:
    """Run one command of the command line, with settings as options."""
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        _write_plain_lines()
    lines: list[str] = []
    _end(main(lines=lines), lines)


def run(program: str, arguments: Sequence[str], mode: str | None = None) -> None:
    """Run one mode with task parameters. Raises `TaskFailed` to fail the task."""
    lines: list[str] = []
    parse = build_parser(program, mode).parse_args
    _end(guarded(lambda: _run(parse(list(arguments))), lines), lines)


def _end(code: int, lines: list[str]) -> None:
    if code != 0:
        raise TaskFailed(code, "".join(lines) or f"{PROGRAM}: exit code {code}; the log says why")


def _write_plain_lines() -> None:
    """Use neither colors nor bars: a task's log has plain lines."""
    os.environ["TERM"] = "dumb"


def build_parser(program: str, mode: str | None = None) -> Parser:
    example = "--mode cdc --follow 3600" if mode is None else "--destination delta"
    parser = Parser(
        prog=program,
        allow_abbrev=False,
        description=f"{__doc__}".partition("\n")[0],
        epilog=f"example: {program} {example}",
    )
    if mode is None:
        parser.add_argument(
            "--mode",
            required=True,
            choices=("snapshot", "cdc"),
            help="snapshot replaces the tables, cdc applies changes",
        )
    else:
        parser.set_defaults(mode=mode)
    if mode != "cdc":
        parser.add_argument(
            "--tables",
            nargs="+",
            action="extend",
            default=[],
            metavar="GLOB",
            help="only tables that match",
        )
    if mode != "snapshot":
        parser.add_argument(
            "--follow",
            nargs="?",
            type=_seconds,
            default=0.0,
            const=math.inf,
            metavar="SECONDS",
            help="cdc: continue for SECONDS, or until stopped",
        )
        parser.add_argument(
            "--await-snapshot",
            action="store_true",
            help="cdc: wait for the first snapshot while following; exit 0 without one",
        )
    from entrypoints.cli import parameters

    parameters.add_to(parser)
    return parser


def _seconds(text: str) -> float:
    if not (text.isascii() and (text.isdigit() or not text)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of seconds")
    return float(text or 0)


def _run(chosen: argparse.Namespace) -> int:
    if chosen.mode == "cdc" and chosen.follow:
        from entrypoints.runtime.stopping import stop_requests

        with stop_requests() as asked:
            return _run_mode(chosen, asked)
    return _run_mode(chosen)


def _run_mode(chosen: argparse.Namespace, asked: Callable[[], bool] | None = None) -> int:
    from entrypoints.cli import commands, parameters
    from entrypoints.output import log
    from entrypoints.runtime import error_boundary
    from entrypoints.runtime.memory import collect_rarely
    from entrypoints.settings.environment import log_level

    parameters.set_log_level(chosen)
    _write_plain_lines()
    collect_rarely()
    log.configure(log_level())
    error_boundary.silence_hooks()
    tables, follow = _tables(chosen), getattr(chosen, "follow", 0.0)
    if (chosen.mode == "cdc" and tables) or (chosen.mode == "snapshot" and follow):
        raise SettingsError(
            f"--{'tables' if tables else 'follow'} does not go with --mode {chosen.mode}",
            "leave it out: one mode a run",
        )
    settings = parameters.settings(parameters.given(chosen))
    log.redact.add(settings.secret_values())
    commands.prepare_dlt(settings)

    from entrypoints.cli.waiting import once_loaded, when_free
    from entrypoints.runtime.stopping import stops_after

    container = commands.open_container(settings)
    stop = stops_after(follow, asked) if asked is not None else None

    def work() -> int:
        if chosen.mode == "snapshot":
            return commands.take_snapshot(container, tables)
        return commands.stream_changes(container, stop)

    try:
        run_it = partial(when_free, work, settings.source.slot_wait_seconds, asked)
        with commands.measuring(container):
            if getattr(chosen, "await_snapshot", False):
                return once_loaded(run_it, container, stop)
            return run_it()
    finally:
        container.shutdown_resources()


def _tables(chosen: argparse.Namespace) -> list[str]:
    """The globs. One parameter may hold several, separated by commas."""
    parts = [part.strip() for given in getattr(chosen, "tables", []) for part in given.split(",")]
    return [glob for glob in parts if glob]
