"""The command `pgbronze`: arguments, and the one boundary where errors become exit codes.

Nothing heavy is imported here: `--help`, `--version` and usage errors answer at once. What each
command does is in `commands`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, NoReturn

from adapters.dlt_destination.register import DESTINATIONS
from entrypoints.cli.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

PROGRAM = "pgbronze"


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog=PROGRAM,
        description="PostgreSQL to Delta tables on Databricks: exact snapshots and CDC.",
        epilog="""\
example:
  pgbronze demo                              the first minute, without any setting
  pgbronze snapshot --destination duckdb     your own database, into a DuckDB file
  pgbronze cdc --destination duckdb          what changed since

Settings: environment, .dlt/secrets.toml, .dlt/config.toml; all but secrets also as options, such as
--slot-name=VALUE. LOG_LEVEL = DEBUG|INFO|WARNING|ERROR.
Exit codes: 0 done, 1 failed (run again), 2 command line or setting wrong,
            3 the source needs an operator.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    def command(name: str, does: str, *examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            epilog="\n  ".join(("example:", *examples)),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    command(
        "demo",
        "see it work: an embedded PostgreSQL replicated into a DuckDB file; needs no settings",
        "pgbronze demo",
    )
    check = command(
        "check",
        "find what would go wrong, and the SQL or setting that mends it",
        "pgbronze check --destination duckdb",
        "pgbronze check --all",
    )
    check.add_argument(
        "--all", action="store_true", help="print a line for every table, also for one that is fine"
    )
    snapshot = command(
        "snapshot",
        "full load: read the tables at one LSN and replace them in the destination",
        "pgbronze snapshot --destination duckdb",
        "pgbronze snapshot --tables 'public.*' billing.invoices",
    )
    _tables(snapshot)
    cdc = command(
        "cdc",
        "apply every change committed before the run began",
        "pgbronze cdc --destination duckdb",
        "pgbronze cdc --follow",
    )
    cdc.add_argument("--follow", action="store_true", help="go on until SIGTERM or Ctrl-C")
    cdc.set_defaults(stop=None)
    status = command(
        "status",
        "slot, checkpoint, lag and tables; changes nothing",
        "pgbronze status",
        "pgbronze status --json",
    )
    _json(status)
    verify = command(
        "verify",
        "compare source and destination, table by table; exit 1 if a row differs",
        "pgbronze verify",
        "pgbronze verify --tables orders --repair",
    )
    _tables(verify)
    verify.add_argument("--repair", action="store_true", help="mend exactly the rows that differ")
    _json(verify)
    simulate = command(
        "simulate",
        "write random transactions to the source, creating its demo tables if there are none",
        "pgbronze simulate 5 2 1",
    )
    for name in ("inserts", "updates", "deletes"):
        simulate.add_argument(name, type=_count, metavar=name.upper(), help=f"how many {name}")
    cleanup = command(
        "cleanup",
        "destructive reset: datasets with their volumes, slot, publication, local state",
        "pgbronze cleanup --yes",
    )
    cleanup.add_argument("--yes", action="store_true", help="do not ask")
    command("volumes", "list the staging volumes and the files in them", "pgbronze volumes")
    slot = command(
        "slot",
        "the replication slot on its own; drop one that nobody reads, it fills the source's disk",
        "pgbronze slot show",
        "pgbronze slot create",
        "pgbronze slot drop",
    )
    slot.add_argument(
        "action", choices=("show", "create", "drop"), metavar="ACTION", help="show, create or drop"
    )
    for found in commands.choices.values():
        found.add_argument(
            "--destination",
            choices=DESTINATIONS,
            metavar="|".join(DESTINATIONS),
            help="where to (default: the setting pipeline.destination)",
        )
    return parser


def main(argv: Sequence[str] | None = None, told: list[str] | None = None) -> int:
    """Run one command; its exit code. An error's line is added to `told`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(arguments), told)


def guarded(work: Callable[[], int], told: list[str] | None = None) -> int:
    """Run `work`; an error becomes one line on standard error, and in `told`, and its exit code."""
    if sys.stderr is None:
        # It was closed before: what is told must not go to standard output instead.
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # Python allows handlers in its main thread only; a task may be run in another.
    handles = threading.current_thread() is threading.main_thread()
    # Raised within a driver's callback it may come out as that driver's error.
    interrupted: list[BaseException] = []

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        from entrypoints.runtime.error_boundary import Interrupted

        interrupted.append(Interrupted())
        raise interrupted[0]

    previous = signal.signal(signal.SIGTERM, interrupt) if handles else None
    try:
        return work()
    except SystemExit as end:
        # argparse ends so after --help and --version.
        return end.code if isinstance(end.code, int) else 0
    except BaseException as error:  # noqa: BLE001 - the one boundary
        return _told(interrupted[0] if interrupted else error, [] if told is None else told)
    finally:
        if handles:
            signal.signal(signal.SIGTERM, previous)


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    options: dict[str, str] = {}
    if any("=" in argument for argument in arguments):
        # Settings as options. Which there are says their model, which takes time to import.
        from entrypoints.cli import parameters

        given, arguments = parameters.split(arguments, PROGRAM)
        parameters.set_log_level(given)
        options = parameters.given(given)
    chosen = parser.parse_args(arguments)
    chosen.options = options
    if chosen.command is None:
        parser.print_help()
        return 0
    if chosen.command == "cdc" and chosen.follow:
        from entrypoints.runtime.stopping import stop_requests

        with stop_requests() as chosen.stop:
            return _run_command(chosen)
    return _run_command(chosen)


def _run_command(chosen: argparse.Namespace) -> int:
    from entrypoints.runtime.memory import collect_rarely

    collect_rarely()
    from entrypoints.cli import commands
    from entrypoints.output import log
    from entrypoints.runtime import error_boundary
    from entrypoints.settings.environment import log_level

    log.configure(log_level())
    error_boundary.silence_hooks()
    return commands.run(chosen)


def _told(error: BaseException, told: list[str]) -> int:
    from entrypoints.output.log import redact
    from entrypoints.output.terminal import printable
    from entrypoints.runtime import error_boundary

    if os.environ.get("LOG_LEVEL", "").strip().upper() == "DEBUG":
        _print(redact(error_boundary.safe_traceback(error)))
    line = printable(redact(f"{PROGRAM}: {error_boundary.one_line(error)}"))
    told.append(line)
    _print(line)
    if isinstance(error, BrokenPipeError):
        # Nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return error_boundary.exit_code(error)


def _print(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except (OSError, ValueError):
        # Standard error is gone: the exit code has to tell it alone.
        return


def _tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tables",
        nargs="+",
        action="extend",
        default=[],
        metavar="GLOB",
        help="only the tables that match, as schema.table or bare name",
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of 0 or more")
    return int(text)


class _ShowVersion(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")  # noqa: T201
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
