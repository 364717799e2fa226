"""Metrics by OpenTelemetry's own SDK, configured by its environment variables.

Source: OpenTelemetry documentation, "OTLP Exporter Configuration", "General SDK Configuration".
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from adapters.metrics.measures import BATCH_SECONDS, BATCH_SECONDS_HELP, BUCKETS, METRICS
from cdc_core.ports.progress import BatchLoaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.metrics.measures import Measures, Metric
    from cdc_core.ports.progress import Event

_log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

#: How long the end of a run waits for the last export.
END_SECONDS = 5.0


def wanted() -> bool:
    """Whether the environment names a collector, and the packages are installed."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return False
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("OTEL_METRICS_EXPORTER", "otlp") != "otlp":
        return False
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        _log.warning("no metrics are exported: OTLP over %s is not supported", protocol)
        return False
    try:
        version("opentelemetry-sdk")
        version("opentelemetry-exporter-otlp-proto-http")
    except PackageNotFoundError:
        _log.info("no metrics are exported to OpenTelemetry without: pip install 'pgbronze[otel]'")
        return False
    return True


class BatchTimes:
    """A listener that records the time of each batch."""

    def __init__(self, histogram: Any, labels: dict[str, str]) -> None:
        self._histogram = histogram
        self._labels = labels

    def emit(self, event: Event) -> None:
        if isinstance(event, BatchLoaded):
            self._histogram.record(event.seconds, self._labels)


@contextmanager
def exporting(measures: Measures) -> Iterator[BatchTimes]:
    """Export the metrics while the block lasts, and once more at its end. Yields a listener for
    the same events. A collector that does not answer never fails or holds the run."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    provider = MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter())],
        resource=Resource.create({} if named else {"service.name": "pgbronze"}),
        shutdown_on_exit=False,
    )
    meter = provider.get_meter("pgbronze")
    for metric in METRICS:
        counts = metric.kind == "counter"
        make = meter.create_observable_counter if counts else meter.create_observable_gauge
        observe = partial(_observe, measures, metric)
        make(metric.name, [observe], unit=metric.unit, description=metric.help)
    histogram = meter.create_histogram(
        BATCH_SECONDS,
        "s",
        BATCH_SECONDS_HELP,
        explicit_bucket_boundaries_advisory=list(BUCKETS),
    )
    try:
        yield BatchTimes(histogram, measures.labels)
    finally:
        end = threading.Thread(target=provider.shutdown, daemon=True)
        end.start()
        end.join(END_SECONDS)


def _observe(measures: Measures, metric: Metric, _options: Any) -> Iterator[Any]:
    from opentelemetry.metrics import Observation

    for (name, labels), value in measures.values().items():
        if name == metric.name:
            yield Observation(value, {**measures.labels, **dict(labels)})
