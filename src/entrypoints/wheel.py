"""Scripts of the wheel for Lakeflow's `python_wheel_task`: parameters instead of environment.

`pipeline_main --mode snapshot|cdc`; `full_load` and `cdc_load` are the same with the mode fixed.
The right dlt is imported before anything else can import the wrong one, and the source's
credentials are put where dlt's configuration finds them.

A task calls the script as a function in an interactive Python, where any `SystemExit` is a failure:
success returns. Source: Databricks documentation, "Python wheel task for jobs"; `ipykernel`.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from typing import TYPE_CHECKING, Any

from cdc_core.errors import SettingsError
from entrypoints.cli import DESTINATIONS, Parser, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from entrypoints.settings import Settings

logger = logging.getLogger("wal2delta")

#: Parameters that are settings, by the dotted key that each sets.
PARAMETERS = {
    "destination": "pipeline.destination",
    "dataset-name": "pipeline.dataset_name",
    "pipeline-name": "pipeline.name",
    "schema-changes": "pipeline.schema_changes",
    "dlt-scope": "sources.pg_replication.dlt_scope",
    "secret-key": "sources.pg_replication.pg_connection_string",
    "slot-name": "sources.pg_replication.slot_name",
    "pub-name": "sources.pg_replication.pub_name",
    "schemas": "sources.pg_replication.schemas",
    "include": "sources.pg_replication.include",
    "exclude": "sources.pg_replication.exclude",
    "snapshot-reader": "sources.pg_replication.snapshot_reader",
    "parallelism": "sources.pg_replication.parallelism",
    "batch-max-rows": "sources.pg_replication.batch_max_rows",
    "batch-max-bytes": "sources.pg_replication.batch_max_bytes",
    "batch-max-seconds": "sources.pg_replication.batch_max_seconds",
    "max-retained-wal": "sources.pg_replication.max_retained_wal",
    "failover": "sources.pg_replication.failover",
    "catalog": "destination.databricks.credentials.catalog",
    "http-path": "destination.databricks.credentials.http_path",
    "server-hostname": "destination.databricks.credentials.server_hostname",
    "client-id": "destination.databricks.credentials.client_id",
    "client-secret-key": "destination.databricks.client_secret_key",
    "staging-volume-name": "destination.databricks.staging_volume_name",
    "keep-staged-files": "destination.databricks.keep_staged_files",
    "multi-table-transaction": "destination.databricks.multi_table_transaction",
    "duckdb-credentials": "destination.duckdb.credentials",
    "bucket-url": "destination.filesystem.bucket_url",
}


class TaskFailed(SystemExit):
    """Ends the process with an exit code; its text is the line that a job's page shows."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(line)
        self.code = code


def pipeline_main() -> None:
    """One mode a run, and it must be named."""
    run("pipeline_main", sys.argv[1:])


def full_load() -> None:
    """`pipeline_main --mode snapshot`."""
    run("full_load", sys.argv[1:], mode="snapshot")


def cdc_load() -> None:
    """`pipeline_main --mode cdc`."""
    run("cdc_load", sys.argv[1:], mode="cdc")


def run(program: str, arguments: Sequence[str], mode: str | None = None) -> None:
    """Run one mode with task parameters; raises `TaskFailed`, which fails the task."""
    told: list[str] = []
    code = guarded(lambda: _run(build_parser(program, mode).parse_args(list(arguments))), told)
    if code != 0:
        raise TaskFailed(code, "".join(told))


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
            help="one of them a run: snapshot replaces the tables, cdc applies changes",
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
            help="snapshot only these",
        )
    if mode != "snapshot":
        parser.add_argument(
            "--follow",
            nargs="?",
            type=_seconds,
            default=0.0,
            const=math.inf,
            metavar="SECONDS",
            help="cdc: go on for so long, or until stopped",
        )
    parser.add_argument("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR")
    for name, key in PARAMETERS.items():
        # An empty parameter is none.
        choices = (*DESTINATIONS, "") if name == "destination" else None
        parser.add_argument(
            f"--{name}", choices=choices, metavar="VALUE", help=f"the setting {key}"
        )
    return parser


def _seconds(text: str) -> float:
    if not (text.isascii() and (text.isdigit() or not text)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of seconds")
    return float(text or 0)


def _run(chosen: argparse.Namespace) -> int:
    if chosen.mode == "cdc" and chosen.follow:
        from entrypoints.stopping import stop_requests

        with stop_requests() as asked:
            return _run_mode(chosen, asked)
    return _run_mode(chosen)


def _run_mode(chosen: argparse.Namespace, asked: Callable[[], bool] | None = None) -> int:
    if chosen.log_level:
        os.environ["LOG_LEVEL"] = chosen.log_level
    # A task's log has lines, whatever it is read through: no colours, no bars.
    os.environ["TERM"] = "dumb"
    from entrypoints.memory import collect_rarely

    collect_rarely()
    from entrypoints import faults, log
    from entrypoints.settings import log_level

    log.configure(log_level())
    faults.silence_hooks()
    tables, follow = _tables(chosen), getattr(chosen, "follow", 0.0)
    if (chosen.mode == "cdc" and tables) or (chosen.mode == "snapshot" and follow):
        raise SettingsError(
            f"--{'tables' if tables else 'follow'} does not go with --mode {chosen.mode}",
            "leave it out: one mode a run",
        )
    settings = _settings(chosen)
    log.redact.add(settings.secret_values())
    _prepare_dlt(settings)

    from entrypoints import commands
    from entrypoints.container import Container
    from entrypoints.memory import prepare_arrow
    from entrypoints.stopping import stops_after

    prepare_arrow()
    container = Container.from_settings(settings)
    try:
        match chosen.mode:
            case "snapshot":
                return commands.take_snapshot(container, tables)
            case _:
                if asked is not None:
                    return commands.stream_changes(container, stops_after(follow, asked))
                return commands.stream_changes(container)
    finally:
        container.shutdown_resources()


def _tables(chosen: argparse.Namespace) -> list[str]:
    """The globs; one parameter may hold several, as a job's parameters are single texts."""
    parts = [part.strip() for given in getattr(chosen, "tables", []) for part in given.split(",")]
    return [glob for glob in parts if glob]


def _settings(chosen: argparse.Namespace) -> Settings:
    """The settings with the parameters on top; a scope that is named holds the credentials.

    An empty parameter is none: a job cannot leave one out.
    """
    from entrypoints.settings import databricks_scope, load_settings

    given = {
        key: value
        for name, key in PARAMETERS.items()
        if (value := getattr(chosen, name.replace("-", "_")))
    }
    named = bool(chosen.dlt_scope or chosen.secret_key)
    return load_settings(given, scope=databricks_scope if named else None)


def _prepare_dlt(settings: Settings) -> None:
    """Import the right dlt, and put the source's credentials where its configuration finds them.

    In memory: the environment would hand them to every child process.
    """
    from adapters.dlt_import import import_dlt, where
    from entrypoints.settings import CREDENTIALS

    dlt: Any = import_dlt()
    logger.info("dlt %s from %s", dlt.__version__, where(dlt))
    dlt.secrets[CREDENTIALS] = settings.source.dsn
