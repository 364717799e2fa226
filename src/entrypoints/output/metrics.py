"""Export the metrics of a command's runs: by HTTP, as a file, through OpenTelemetry."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.metrics.measures import Measures
    from cdc_core.ports.progress import Listeners
    from entrypoints.settings.model import Settings

logger = logging.getLogger("pgbronze")


@contextmanager
def measuring(
    settings: Settings, progress: Listeners, *, port: int | None = None, file: str | None = None
) -> Iterator[None]:
    """Measure the runs in the block if anything wants their metrics.

    Raises `SettingsError` if the port is in use, or the file cannot be written.
    """
    from adapters.metrics import opentelemetry

    otel = opentelemetry.wanted()
    if port is None and file is None and not otel:
        yield
        return
    from adapters.metrics import prometheus
    from adapters.metrics.measures import Measures

    path = None if file is None else _writable(file)
    for option, value in (("--metrics-port", port), ("--metrics-file", file)):
        if value is not None:
            prometheus.require_client(option)
    labels = {"pipeline": settings.pipeline.name, "slot": settings.source.slot_name}
    earlier, batches = ({}, None) if path is None else prometheus.read_file(path, labels)
    measures = Measures(settings.pipeline.name, settings.source.slot_name, earlier)
    if batches is not None:
        measures.start_batches_at(batches)
    progress.add(measures)
    try:
        with ExitStack() as opened:
            if port is not None:
                opened.enter_context(prometheus.serving(measures, port))
            if otel:
                progress.add(opened.enter_context(opentelemetry.exporting(measures)))
            if path is not None:
                opened.callback(_write, measures, path)
            yield
    finally:
        progress.remove(measures)


def _writable(file: str) -> Path:
    path = Path(file).absolute()
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise SettingsError(
            f"--metrics-file: {path} cannot be written", "name a file in a writable folder"
        )
    return path


def _write(measures: Measures, path: Path) -> None:
    from adapters.metrics import prometheus

    try:
        prometheus.write_file(measures, path)
    except OSError as error:
        logger.warning("the metrics file %s was not written: %s", path, error.strerror)
