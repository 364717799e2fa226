"""Run each command: load settings, build the container, run a use case, print the outcome."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdc_core.values.errors import CdcError, SettingsError
from entrypoints.cli import parameters
from entrypoints.cli.waiting import when_free
from entrypoints.output import log
from entrypoints.output.terminal import printable
from entrypoints.settings.environment import on_databricks
from entrypoints.settings.model import CREDENTIALS, Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from entrypoints.container import Container

logger = logging.getLogger("pgbronze")


class Declined(CdcError):
    """The operator declined; nothing was done."""


def run(chosen: argparse.Namespace) -> int:
    """Run the chosen command and return its exit code."""
    command: Callable[[argparse.Namespace], int] = _COMMANDS[chosen.command]
    with ExitStack() as opened:
        chosen.opened = opened
        return command(chosen)


def settings_of(
    chosen: argparse.Namespace, *, needs_source: bool = True, needs_destination: bool = True
) -> Settings:
    """Load the settings with the command line's on top. Output is redacted from here on."""
    destination = {"pipeline.destination": chosen.destination} if chosen.destination else {}
    settings = parameters.settings(
        {**chosen.options, **destination},
        needs_source=needs_source,
        needs_destination=needs_destination,
    )
    log.redact.add(settings.secret_values())
    return settings


def _container(
    chosen: argparse.Namespace, *, needs_source: bool = True, needs_destination: bool = True
) -> Container:
    settings = settings_of(chosen, needs_source=needs_source, needs_destination=needs_destination)
    if on_databricks():
        prepare_dlt(settings)
    container = open_container(settings)
    chosen.opened.callback(container.shutdown_resources)
    return container


def open_container(settings: Settings) -> Container:
    from entrypoints.container import Container
    from entrypoints.runtime.memory import prepare_arrow

    prepare_arrow()
    return Container.from_settings(settings)


def prepare_dlt(settings: Settings) -> None:
    """Import the right dlt, and put the source's credentials where its configuration finds them.

    They stay in memory: every child process would inherit the environment.
    """
    from adapters.dlt_import import import_dlt, where

    dlt: Any = import_dlt()
    logger.info("dlt %s from %s", dlt.__version__, where(dlt))
    if settings.source.credentials is not None:
        dlt.secrets[CREDENTIALS] = settings.source.dsn


def measuring(
    container: Container, *, port: int | None = None, file: str | None = None
) -> AbstractContextManager[None]:
    """Export the metrics of the runs in the block, if anything wants them."""
    from entrypoints.output import metrics

    return metrics.measuring(container.settings(), container.progress(), port=port, file=file)


def demo(chosen: argparse.Namespace) -> int:
    if chosen.destination not in (None, "duckdb"):
        raise SettingsError(
            f"the demo writes a DuckDB file, not {chosen.destination}",
            "run: pgbronze demo; for your own tables: pgbronze snapshot",
        )
    from entrypoints.demo.demo import run_demo

    return run_demo()


def snapshot(chosen: argparse.Namespace) -> int:
    container = _container(chosen)
    with measuring(container, file=chosen.metrics_file):
        return when_free(
            partial(take_snapshot, container, chosen.tables),
            container.settings().source.slot_wait_seconds,
        )


def take_snapshot(container: Container, tables: list[str]) -> int:
    from entrypoints.output.progress import open_progress

    with open_progress() as progress:
        container.progress().add(progress)
        report = container.take_snapshot().run(tables)
    if report.tables == 0:
        logger.warning(
            "no table was found; see sources.pg_replication.schemas, include and exclude, "
            "and run: pgbronze check"
        )
    kept = f" ({report.kept:,} of them read by an earlier run)" if report.kept else ""
    logger.info(
        "snapshot done: %s tables%s, %s rows at LSN %s",
        f"{report.tables:,}",
        kept,
        f"{report.rows:,}",
        report.lsn,
    )
    return 0


def cdc(chosen: argparse.Namespace) -> int:
    if chosen.metrics_port is not None and not chosen.follow:
        raise SettingsError(
            "--metrics-port serves while the run follows",
            "add --follow, or use --metrics-file",
        )
    container = _container(chosen)
    work = partial(stream_changes, container, chosen.stop)
    with measuring(container, port=chosen.metrics_port, file=chosen.metrics_file):
        return when_free(work, container.settings().source.slot_wait_seconds, chosen.stop)


def stream_changes(container: Container, stop: Callable[[], bool] | None = None) -> int:
    """Drain the slot, or follow it until `stop` returns true."""
    from entrypoints.output.progress import open_progress

    with open_progress() as progress:
        container.progress().add(progress)
        changes = container.stream_changes()
        report = changes.run() if stop is None else changes.run(follow=True, stop=stop)
    logger.info(
        "cdc done: %s changes of %s transactions, up to LSN %s",
        f"{report.changes:,}",
        f"{report.transactions:,}",
        report.lsn,
    )
    return 0


def check(chosen: argparse.Namespace) -> int:
    from entrypoints.output import report

    lines = _container(chosen).check_source().run()
    return report.show_check(lines, every_table=chosen.all)


def plan(chosen: argparse.Namespace) -> int:
    from entrypoints.output.plan import plan_as_json, show_plan

    found = _container(chosen).plan_run().run()
    if chosen.json:
        _print_json(plan_as_json(found))
    else:
        show_plan(found)
    return 0


def status(chosen: argparse.Namespace) -> int:
    from entrypoints.output import report

    if chosen.html:
        return _status_page(chosen)
    found = _container(chosen).show_status().run()
    if chosen.json:
        _print_json(report.status_as_json(found))
    else:
        report.show_status(found)
    return 0


def _status_page(chosen: argparse.Namespace) -> int:
    from entrypoints.cli.status_page import write_page
    from entrypoints.output import report
    from entrypoints.output.atomic_file import AtomicFile

    file = AtomicFile(chosen.html, "--html")
    found = write_page(_container(chosen), file)
    if chosen.json and found.report is not None:
        _print_json(report.status_as_json(found.report))
    if found.error is not None:
        raise found.error
    return 0


def runs(chosen: argparse.Namespace) -> int:
    from entrypoints.output.runs import runs_as_json, show_runs

    with _container(chosen, needs_source=False).destination() as destination:
        found = destination.receipts(chosen.limit)
    if chosen.json:
        _print_json(runs_as_json(found))
    else:
        show_runs(found)
    return 0


def verify(chosen: argparse.Namespace) -> int:
    container = _container(chosen)
    return when_free(
        partial(_verify, container, chosen), container.settings().source.slot_wait_seconds
    )


def _verify(container: Container, chosen: argparse.Namespace) -> int:
    from entrypoints.output import report
    from entrypoints.output.progress import open_progress

    with open_progress() as progress:
        container.progress().add(progress)
        found = container.verify_parity().run(chosen.tables, repair=chosen.repair)
    if chosen.json:
        _print_json(report.verify_as_json(found))
    else:
        report.show_verify(found)
    return found.exit_code


def simulate(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen, needs_destination=False)
    from entrypoints.container import source_settings
    from entrypoints.demo.simulate import simulate as write_to

    done = write_to(
        source_settings(settings),
        settings.source.schemas[0],
        inserts=chosen.inserts,
        updates=chosen.updates,
        deletes=chosen.deletes,
    )
    logger.info(
        "wrote %s inserts, %s updates, %s deletes in %s transactions",
        done.inserts,
        done.updates,
        done.deletes,
        done.transactions,
    )
    return 0


def cleanup(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen)
    dataset = settings.pipeline.dataset_name
    targets = (
        f"{settings.pipeline.destination}: {dataset} and {dataset}_staging with all tables; "
        f"replication slot {settings.source.slot_name}, publication {settings.source.pub_name}"
    )
    if not chosen.yes:
        _confirm(targets)
    from entrypoints.container import Container

    dropped = Container.from_settings(settings).reset().run()
    for what in dropped or ["nothing: there was nothing to drop"]:
        logger.info("dropped: %s", what)
    return 0


def _confirm(targets: str) -> None:
    question = f"This drops: {printable(targets)}.\nDrop it all? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)  # noqa: T201
    answer = sys.stdin.readline() if sys.stdin and not sys.stdin.closed else ""
    if not answer:
        # No answer has ended the question's line.
        print(file=sys.stderr)  # noqa: T201
        raise SettingsError("cleanup asks first, and got no answer", "to skip the question: --yes")
    if answer.strip().lower() not in ("y", "yes"):
        raise Declined("nothing was dropped")


def volumes(chosen: argparse.Namespace) -> int:
    container = _container(chosen, needs_source=False)
    with container.destination() as destination:
        found = destination.volumes()
    if found is None:
        name = container.settings().pipeline.destination
        print(f"the destination {name} has no volumes")  # noqa: T201
        return 0
    if not found:
        print("no staging volumes yet; the first run creates them")  # noqa: T201
    for volume, files in sorted(found.items()):
        print(f"{volume}: {len(files)} files")  # noqa: T201
        for file in files:
            print(f"  {file}")  # noqa: T201
    return 0


def slot(chosen: argparse.Namespace) -> int:
    from entrypoints.output import report

    container = _container(chosen, needs_destination=False)
    name = container.settings().source.slot_name
    match chosen.action:
        case "show":
            with container.source_monitor() as monitor:
                report.show_slot(name, monitor.slot())
        case "create":
            with container.change_source() as source:
                if source.slot() is not None:
                    raise SettingsError(
                        f"replication slot {name} exists already", "see: pgbronze slot show"
                    )
                logger.info("created replication slot %s at %s", name, source.create_slot())
        case "drop":
            with container.change_source() as source:
                dropped = source.drop_slot()
            logger.info("replication slot %s %s", name, "dropped" if dropped else "does not exist")
    return 0


def record(chosen: argparse.Namespace) -> int:
    from entrypoints.cli.recording import record

    container = _container(chosen)
    work = partial(record, container, Path(chosen.file), mask=chosen.mask, with_rows=chosen.rows)
    return when_free(work, container.settings().source.slot_wait_seconds)


def replay(chosen: argparse.Namespace) -> int:
    from adapters.pgoutput.recording.recording_file import open_recording
    from entrypoints.cli.recording import replay, replay_settings

    recording = chosen.opened.enter_context(open_recording(Path(chosen.file)))
    container = open_container(replay_settings(chosen.options, chosen.destination, recording))
    chosen.opened.callback(container.shutdown_resources)
    return replay(container, recording)


def _print_json(document: Any) -> None:
    # Escapes of JSON, not of Python, where the output's encoding is not Unicode.
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(document, indent=2, ensure_ascii=not utf8))  # noqa: T201


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": demo,
    "check": check,
    "plan": plan,
    "snapshot": snapshot,
    "cdc": cdc,
    "status": status,
    "runs": runs,
    "verify": verify,
    "simulate": simulate,
    "cleanup": cleanup,
    "volumes": volumes,
    "slot": slot,
    "record": record,
    "replay": replay,
}
