"""The commands `record` and `replay`: a bug report that anybody can run."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cdc_core.ports.progress import BatchLoaded
from cdc_core.values.changes import Operations
from cdc_core.values.errors import SettingsError
from entrypoints.cli import parameters
from entrypoints.output import log
from entrypoints.settings.model import SourceSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from adapters.pgoutput.recording.record import Recorder
    from adapters.pgoutput.recording.recording_file import Recording
    from cdc_core.ports.progress import Event
    from entrypoints.container import Container
    from entrypoints.settings import Settings

logger = logging.getLogger("pgbronze")

#: Settings of the source that say where it is or how to log in, not what a run makes of it.
_OF_THE_SOURCE = (
    "credentials",
    "dlt_scope",
    "failover",
    "mask_key",
    "mask_key_secret",
    "max_retained_wal",
    "parallelism",
    "password_command",
    "pg_connection_string",
    "slot_wait_seconds",
    "snapshot_reader",
    "spark_max_connections",
)
_SOURCE, _SCHEMA_CHANGES = "sources.pg_replication", "pipeline.schema_changes"
#: The settings of a recording, by dotted key.
_RECORDED = {
    _SCHEMA_CHANGES,
    *(f"{_SOURCE}.{name}" for name in SourceSettings.model_fields if name not in _OF_THE_SOURCE),
}


def record(container: Container, file: Path, *, mask: bool, with_rows: bool) -> int:
    from adapters.pgoutput.recording.record import Recorder
    from entrypoints.container import rule_set, source_settings

    settings = container.settings()
    recorder = Recorder(
        source_settings(settings),
        container.destination(),
        f"pgbronze {version('pgbronze')}",
        _run_settings(settings),
        rule_set(settings),
        settings.source.schemas[0],
        settings.pipeline.schema_changes == "freeze",
        mask=mask,
        with_rows=with_rows,
    )
    _report_recorded(recorder, file)
    return 0


def _report_recorded(recorder: Recorder, file: Path) -> None:
    recorded = recorder.run(file)
    rows = "" if recorded.rows is None else f" and {recorded.rows:,} rows"
    logger.info(
        "recorded %s messages%s of %s tables, from LSN %s to %s, in %s",
        f"{recorded.messages:,}",
        rows,
        f"{recorded.tables:,}",
        recorded.begin,
        recorded.end,
        file,
    )
    if recorder.mask:
        logger.info("values are masked; names of tables and columns are in the file")
    else:
        logger.warning(
            "the file contains row values as they are; to replace them: pgbronze record %s --mask",
            file,
        )


def replay(container: Container, recording: Recording) -> int:
    """Run a recording into the container's destination."""
    from adapters.pgoutput.recording.recorded_source import recorded_run
    from cdc_core.tables.catalog_with_rules import CatalogWithRules
    from cdc_core.use_cases.replay_changes import ReplayChanges
    from entrypoints.container import rule_set
    from entrypoints.output.progress import open_progress

    settings, index = container.settings(), recording.index
    logger.info(
        "replaying a recording by %s, of PostgreSQL %s, %s",
        index["written_by"],
        index["server_version"] // 10_000,
        "values masked" if index["masked"] else "values as they are",
    )
    recorded = recorded_run(recording, settings.source.batch_max_bytes)
    container.change_source.override(recorded.changes)
    container.catalog.override(CatalogWithRules(recorded.catalog, rule_set(settings)))
    container.snapshot_source.override(recorded.snapshots)
    counted = _Counted()
    with open_progress() as progress:
        container.progress().add(progress)
        container.progress().add(counted)
        run = ReplayChanges(
            container.destination(),
            container.stream_changes(),
            recorded.checkpoint,
            recorded.rows,
            _place(settings),
        )
        try:
            report = run.run()
        finally:
            _show_tables(container, counted.tables)
    logger.info(
        "replay done: %s changes of %s transactions, up to LSN %s, in %s",
        f"{report.changes:,}",
        f"{report.transactions:,}",
        report.lsn,
        _place(settings),
    )
    return 0


class _Counted:
    """Listens for the changes of each table."""

    def __init__(self) -> None:
        self.tables: dict[str, Operations] = {}

    def emit(self, event: Event) -> None:
        if isinstance(event, BatchLoaded):
            for table, operations in event.tables.items():
                self.tables[table] = self.tables.get(table, Operations()) + operations


def _show_tables(container: Container, changes: dict[str, Operations]) -> None:
    from entrypoints.output.report import show_replay

    with container.destination() as destination:
        checkpoint = destination.read_checkpoint()
        if checkpoint is None or not checkpoint.source.is_replay:
            return
        rows = destination.tables()
    show_replay(checkpoint, changes, rows)


def _run_settings(settings: Settings) -> dict[str, Any]:
    """What decides how changes are applied, by dotted key; no secrets."""
    source = settings.source
    found = {
        f"{_SOURCE}.{name}": value
        for name, value in source.model_dump(mode="json", exclude_none=True, by_alias=True).items()
        if f"{_SOURCE}.{name}" in _RECORDED
    }
    return {**found, _SCHEMA_CHANGES: settings.pipeline.schema_changes}


def replay_settings(
    options: Mapping[str, str], destination: str | None, recording: Recording
) -> Settings:
    """The recorded settings of the run, with the destination of this machine."""
    if destination not in (None, "duckdb", "delta"):
        raise SettingsError(
            f"replay writes to a local destination, not to {destination}",
            "run: pgbronze replay FILE --destination duckdb, or delta",
        )
    from adapters.pgoutput.recording.recorded_source import REPLAY_MASK_KEY
    from adapters.pgoutput.recording.recording_file import no_recording

    chosen = {
        "pipeline.destination": destination or "duckdb",
        f"{_SOURCE}.mask_key": REPLAY_MASK_KEY,
    }
    recorded = recording.index.get("settings")
    if not isinstance(recorded, dict):
        raise no_recording(recording.file, "it has no settings")
    # The file may come from a stranger: it must not say where to write.
    if others := recorded.keys() - _RECORDED:
        raise no_recording(recording.file, f"it has the setting {min(others)}")
    settings = parameters.settings({**options, **recorded, **chosen}, needs_source=False)
    log.redact.add(settings.secret_values())
    if "://" in _place(settings).removeprefix("file://"):
        raise SettingsError(
            f"replay writes to a local destination, not to {_place(settings)}",
            "name a folder: --bucket-url=replayed",
        )
    return settings


def _place(settings: Settings) -> str:
    dataset = settings.pipeline.dataset_name
    if settings.pipeline.destination == "delta":
        return f"{settings.destination.filesystem.bucket_url.rstrip('/')}/{dataset}"
    return f"{dataset} in {settings.destination.duckdb.credentials}"
