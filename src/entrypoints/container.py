"""The composition root: connect each port to its adapter, and nothing else.

A service that embeds the library makes a container from settings, overrides its own parts, and
calls use cases: `Container.from_settings(settings).stream_changes().run()`. Parts are imported on
first use. Source: dependency-injector documentation, "Providers", "Overriding".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from dependency_injector import containers, providers

from cdc_core.ports.clock import Clock, SystemClock
from cdc_core.ports.progress import Listeners
from entrypoints.output import log
from entrypoints.runtime.error_boundary import outcome
from entrypoints.runtime.memory import peak_memory
from entrypoints.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.ports.catalog import Catalog
    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.snapshot_source import SnapshotSource
    from cdc_core.ports.source_inspector import SourceInspector
    from cdc_core.ports.source_monitor import SourceMonitor
    from cdc_core.runs.recorder import RunRecorder
    from cdc_core.tables.table_rules import RuleSet
    from cdc_core.use_cases.check_source import CheckSource
    from cdc_core.use_cases.plan_run import PlanRun
    from cdc_core.use_cases.reset import Reset
    from cdc_core.use_cases.show_status import ShowStatus
    from cdc_core.use_cases.stream_changes import StreamChanges
    from cdc_core.use_cases.take_snapshot import TakeSnapshot
    from cdc_core.use_cases.verify_parity import VerifyParity


def source_settings(settings: Settings) -> SourceSettings:
    """Return the source adapter's settings: each field of the model that it names alike."""
    from dataclasses import fields

    from adapters.pgoutput.session.settings import SourceSettings

    source = dict(settings.source)
    alike = {f.name: source[f.name] for f in fields(SourceSettings) if f.name in source}
    return SourceSettings(
        conninfo=settings.source.dsn,
        read_again=lambda: settings.read_again("source").source.dsn,
        redact=log.redact.add_token,
        text_format=any(rule.reads_text for rule in settings.source.tables),
        **alike,
    )


def rule_set(settings: Settings) -> RuleSet:
    """Return the rules for single tables."""
    from cdc_core.tables.table_rules import RuleSet
    from cdc_core.values.masks import Hasher

    key = settings.source.mask_key
    hasher = Hasher(key.get_secret_value().encode()) if key is not None else None
    keeps_text = settings.section.variant_keeps_text
    rules = [rule.value(keeps_text=keeps_text) for rule in settings.source.tables]
    return RuleSet(rules, hasher)


def _destination(settings: Settings) -> Destination:
    from adapters.dlt_destination.register import build
    from adapters.dlt_destination.settings import PipelineSettings

    pipeline = PipelineSettings(settings.pipeline.name, settings.pipeline.dataset_name)
    return build(
        settings.pipeline.destination,
        pipeline,
        settings.section.for_dlt(),
        partial(_destination_keys_again, settings),
    )


def _destination_keys_again(settings: Settings) -> Mapping[str, Any]:
    """Read the destination's settings again, and redact a new secret from output too."""
    again = settings.read_again("destination")
    log.redact.add(again.secret_values())
    return again.section.for_dlt()


def _change_source(settings: Settings) -> ChangeSource:
    from adapters.pgoutput.changes.change_source import PgChangeSource

    return PgChangeSource(source_settings(settings))


def _source_monitor(settings: Settings) -> SourceMonitor:
    from adapters.pgoutput.monitor import PgSourceMonitor

    return PgSourceMonitor(source_settings(settings))


def _source_inspector(settings: Settings) -> SourceInspector:
    from adapters.pgoutput.inspector import PgSourceInspector

    return PgSourceInspector(source_settings(settings))


def _snapshot_source(settings: Settings) -> SnapshotSource:
    match settings.source.snapshot_reader:
        case "copy":
            from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource

            return PgSnapshotSource(source_settings(settings))
        case "spark":
            from adapters.spark.snapshot_source import SparkSnapshotSource

            return SparkSnapshotSource(
                source_settings(settings), settings.source.spark_max_connections
            )
        case "sql_database":
            from adapters.pgoutput.snapshot.sql_database import SqlDatabaseSnapshotSource

            return SqlDatabaseSnapshotSource(source_settings(settings))


def _catalog(settings: Settings) -> Iterator[Catalog]:
    from adapters.pgoutput.catalog.catalog import PgCatalog
    from cdc_core.tables.catalog_with_rules import CatalogWithRules

    catalog = PgCatalog(source_settings(settings))
    yield CatalogWithRules(catalog, rule_set(settings))
    catalog.close()


def _run_recorder(settings: Settings, **parts: Any) -> RunRecorder:
    from importlib.metadata import version

    from cdc_core.runs.recorder import RunRecorder

    return RunRecorder(
        receipts=settings.pipeline.receipts,
        keep_days=settings.pipeline.receipts_keep_days,
        version=version("pgbronze"),
        describe=outcome,
        peak_memory=peak_memory,
        **parts,
    )


def _take_snapshot(settings: Settings, **parts: Any) -> TakeSnapshot:
    from cdc_core.use_cases.take_snapshot import TakeSnapshot

    return TakeSnapshot(first_schema=settings.source.schemas[0], **parts)


def _stream_changes(settings: Settings, **parts: Any) -> StreamChanges:
    from cdc_core.use_cases.stream_changes import StreamChanges

    return StreamChanges(
        first_schema=settings.source.schemas[0],
        freeze_schema=settings.pipeline.schema_changes == "freeze",
        max_retained_wal=settings.source.max_retained_wal,
        **parts,
    )


def _show_status(settings: Settings, **parts: Any) -> ShowStatus:
    from cdc_core.use_cases.show_status import ShowStatus

    return ShowStatus(
        first_schema=settings.source.schemas[0],
        max_retained_wal=settings.source.max_retained_wal,
        **parts,
    )


def _check_source(settings: Settings, **parts: Any) -> CheckSource:
    from cdc_core.use_cases.check_source import CheckSource

    return CheckSource(
        rules=rule_set(settings),
        first_schema=settings.source.schemas[0],
        max_retained_wal=settings.source.max_retained_wal,
        **parts,
    )


def _plan_run(settings: Settings, **parts: Any) -> PlanRun:
    from cdc_core.use_cases.plan_run import PlanRun

    return PlanRun(
        first_schema=settings.source.schemas[0],
        freeze_schema=settings.pipeline.schema_changes == "freeze",
        **parts,
    )


def _verify_parity(**parts: Any) -> VerifyParity:
    from cdc_core.use_cases.verify_parity import VerifyParity

    return VerifyParity(**parts)


def _reset(**parts: Any) -> Reset:
    from cdc_core.use_cases.reset import Reset

    return Reset(**parts)


class Container(containers.DeclarativeContainer):
    """Ports first, then use cases. Replace any of them with `.override(…)`."""

    settings: providers.Provider[Settings] = providers.Singleton(load_settings)

    clock: providers.Provider[Clock] = providers.Singleton(SystemClock)
    #: `container.progress().add(…)` takes any number of listeners.
    progress: providers.Provider[Listeners] = providers.Singleton(Listeners)
    change_source: providers.Provider[ChangeSource] = providers.Factory(_change_source, settings)
    source_monitor: providers.Provider[SourceMonitor] = providers.Factory(_source_monitor, settings)
    source_inspector: providers.Provider[SourceInspector] = providers.Factory(
        _source_inspector, settings
    )
    snapshot_source: providers.Provider[SnapshotSource] = providers.Factory(
        _snapshot_source, settings
    )
    catalog: providers.Provider[Catalog] = providers.Resource(_catalog, settings)
    destination: providers.Provider[Destination] = providers.Factory(_destination, settings)

    #: It writes the receipts of runs; override it with `RunRecorder()` for none.
    runs: providers.Provider[RunRecorder] = providers.Factory(
        _run_recorder, settings, clock=clock, progress=progress
    )

    #: Arguments that most use cases share, and those that a run adds.
    _reading: ClassVar[dict[str, Any]] = {"catalog": catalog, "destination": destination}
    _running: ClassVar[dict[str, Any]] = {
        **_reading,
        "source": change_source,
        "snapshots": snapshot_source,
        "progress": progress,
        "runs": runs,
    }
    take_snapshot: providers.Provider[TakeSnapshot] = providers.Factory(
        _take_snapshot, settings, **_running
    )
    stream_changes: providers.Provider[StreamChanges] = providers.Factory(
        _stream_changes, settings, clock=clock, **_running
    )
    verify_parity: providers.Provider[VerifyParity] = providers.Factory(_verify_parity, **_running)
    show_status: providers.Provider[ShowStatus] = providers.Factory(
        _show_status, settings, monitor=source_monitor, **_reading
    )
    check_source: providers.Provider[CheckSource] = providers.Factory(
        _check_source, settings, inspector=source_inspector, **_reading
    )
    plan_run: providers.Provider[PlanRun] = providers.Factory(
        _plan_run, settings, monitor=source_monitor, inspector=source_inspector, **_reading
    )
    reset: providers.Provider[Reset] = providers.Factory(_reset, source=change_source, **_reading)

    @classmethod
    def from_settings(cls, settings: Settings) -> Container:
        """Return a container for these settings. `shutdown_resources()` closes its parts."""
        container = cls()
        container.settings.override(settings)
        return container
