"""The arguments of the command `pgbronze`: each command with its options, help and example.

Nothing heavy is imported here: `--help`, `--version` and usage errors answer at once.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from adapters.dlt_destination.register import DESTINATIONS
from entrypoints.cli.parser import Parser

PROGRAM = "pgbronze"


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog=PROGRAM,
        description="PostgreSQL to Delta tables on Databricks: exact snapshots and CDC.",
        epilog="""\
example:
  pgbronze demo                              see it work, without any settings
  pgbronze snapshot --destination duckdb     read your database into a DuckDB file
  pgbronze cdc --destination duckdb          apply the changes since then

Settings come from the environment, .dlt/secrets.toml and .dlt/config.toml. Except for secrets, each
is also an option, such as --slot-name=VALUE. LOG_LEVEL is DEBUG, INFO, WARNING or ERROR.
Exit codes: 0 done, 1 failed (run again), 2 command line or setting wrong,
            3 an operator must act.""",
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
        "replicate an embedded PostgreSQL into a DuckDB file and compare both; needs no settings",
        "pgbronze demo",
    )
    check = command(
        "check",
        "find problems before a run, each with the SQL or setting that fixes it",
        "pgbronze check --destination duckdb",
        "pgbronze check --all",
    )
    check.add_argument(
        "--all",
        action="store_true",
        help="print a line for every table, including those without a finding",
    )
    plan = command(
        "plan",
        "show what the next run would do with each table and column; changes nothing",
        "pgbronze plan",
        "pgbronze plan --json",
    )
    _json(plan)
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
        "pgbronze cdc --follow --metrics-port 9187",
    )
    cdc.add_argument("--follow", action="store_true", help="continue until SIGTERM or Ctrl-C")
    cdc.add_argument(
        "--metrics-port",
        type=_port,
        metavar="PORT",
        help="with --follow: serve metrics for Prometheus on this port of 127.0.0.1",
    )
    cdc.set_defaults(stop=None)
    for measured in (snapshot, cdc):
        measured.add_argument(
            "--metrics-file",
            metavar="FILE",
            help="at the end, write metrics to a file for a textfile collector",
        )
    status = command(
        "status",
        "show slot, checkpoint, lag and tables; changes nothing",
        "pgbronze status",
        "pgbronze status --json",
        "pgbronze status --html status.html",
    )
    status.add_argument(
        "--html", metavar="FILE", help="write it with the last runs as one self-contained page"
    )
    _json(status)
    runs = command(
        "runs",
        "show the last runs from the table _cdc_runs, newest first",
        "pgbronze runs",
        "pgbronze runs --limit 100 --json",
    )
    runs.add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="number of runs (default: 20)"
    )
    _json(runs)
    verify = command(
        "verify",
        "compare source and destination, table by table; exit 1 if a row differs",
        "pgbronze verify",
        "pgbronze verify --tables orders --repair",
    )
    _tables(verify)
    verify.add_argument("--repair", action="store_true", help="rewrite only the rows that differ")
    _json(verify)
    simulate = command(
        "simulate",
        "write random transactions to the source; creates the demo tables if they do not exist",
        "pgbronze simulate 5 2 1",
    )
    for name in ("inserts", "updates", "deletes"):
        simulate.add_argument(name, type=_count, metavar=name.upper(), help=f"number of {name}")
    cleanup = command(
        "cleanup",
        "destructive reset: drop datasets with their volumes, slot, publication and local state",
        "pgbronze cleanup --yes",
    )
    cleanup.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    command("volumes", "list the staging volumes and the files in them", "pgbronze volumes")
    slot = command(
        "slot",
        "show, create or drop the replication slot; an unused slot fills the source's disk",
        "pgbronze slot show",
        "pgbronze slot create",
        "pgbronze slot drop",
    )
    slot.add_argument(
        "action", choices=("show", "create", "drop"), metavar="ACTION", help="show, create or drop"
    )
    record = command(
        "record",
        "write what the next cdc would read to a file, for a bug report; changes nothing",
        "pgbronze record bug.pgbronze --mask",
        "pgbronze record bug.pgbronze --mask --rows",
    )
    record.add_argument("file", metavar="FILE", help="the file to write")
    record.add_argument(
        "--mask", action="store_true", help="replace every value by one of its type and length"
    )
    record.add_argument(
        "--rows", action="store_true", help="record the rows that the changes apply to, too"
    )
    replay = command(
        "replay",
        "run a recording into a local destination, without the source; duckdb by default",
        "pgbronze replay bug.pgbronze",
        "pgbronze replay bug.pgbronze --destination delta",
    )
    replay.add_argument("file", metavar="FILE", help="a file that record wrote")
    for found in commands.choices.values():
        found.add_argument(
            "--destination",
            choices=DESTINATIONS,
            metavar="|".join(DESTINATIONS),
            help="destination (default: the setting pipeline.destination)",
        )
    return parser


def _tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tables",
        nargs="+",
        action="extend",
        default=[],
        metavar="GLOB",
        help="only tables whose schema.table or bare name matches",
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    number = _count(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return number


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a port from 1 to 65535")
    return int(text)


class _ShowVersion(argparse.Action):
    """Look up the version only when it is requested."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")  # noqa: T201
        parser.exit()
