"""Metrics for Prometheus, by `prometheus-client`: served over HTTP, or as a file.

Source: `prometheus_client`; node_exporter's documentation, "Textfile Collector".
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from adapters.metrics.measures import (
    BATCH_SECONDS,
    BATCH_SECONDS_HELP,
    BUCKETS,
    METRICS,
    Histogram,
    Labels,
)
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from adapters.metrics.measures import Measures

#: The address of the server: metrics name tables, so other machines do not get them.
ADDRESS = "127.0.0.1"

_BOUNDS = (*(f"{bound:g}" if bound % 1 else f"{bound:.1f}" for bound in BUCKETS), "+Inf")


def require_client(option: str) -> None:
    """Raise `SettingsError` if the package is missing."""
    try:
        import prometheus_client  # noqa: F401
    except ModuleNotFoundError:
        raise SettingsError(
            f"{option} needs the package prometheus-client", "run: pip install 'pgbronze[metrics]'"
        ) from None


@contextmanager
def serving(measures: Measures, port: int) -> Iterator[None]:
    """Serve the metrics while the block lasts, in threads that never keep the process alive."""
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, ADDRESS, _registry(measures))
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error})"
        raise SettingsError(
            f"--metrics-port: port {port} of {ADDRESS} {why}", "choose another port"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_file(measures: Measures, file: Path) -> None:
    """Replace the file by one with the current values, in one step."""
    from prometheus_client import generate_latest

    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_bytes(generate_latest(_registry(measures)))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def read_file(
    file: Path, own: Mapping[str, str]
) -> tuple[dict[tuple[str, Labels], float], Histogram]:
    """Return the counters, the time of the last success and the histogram of a file that
    `write_file` wrote for these labels. Nothing if it is missing or is no such file."""
    from prometheus_client.parser import text_string_to_metric_families

    kept = {metric.name for metric in METRICS if metric.kind == "counter"}
    kept.add("pgbronze_last_success_timestamp_seconds")
    orders = {metric.name: metric.labels for metric in METRICS}
    values: dict[tuple[str, Labels], float] = {}
    buckets: dict[str, float] = {}
    total = 0.0
    try:
        families = list(text_string_to_metric_families(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return {}, Histogram()
    for sample in (sample for family in families for sample in family.samples):
        labels = dict(sample.labels)
        if any(labels.pop(name, None) != value for name, value in own.items()):
            continue
        if sample.name in kept and labels.keys() == {*orders[sample.name]}:
            in_order = tuple((name, labels[name]) for name in orders[sample.name])
            values[sample.name, in_order] = sample.value
        elif sample.name == f"{BATCH_SECONDS}_bucket":
            buckets[labels.get("le", "")] = sample.value
        elif sample.name == f"{BATCH_SECONDS}_sum":
            total = sample.value
    if buckets.keys() != {*_BOUNDS}:
        return values, Histogram()
    cumulative = [0.0, *(buckets[bound] for bound in _BOUNDS)]
    counts = [after - before for before, after in pairwise(cumulative)]
    return values, Histogram(counts, total)


def _registry(measures: Measures) -> Any:
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    class Collected(Collector):
        def collect(self) -> Iterator[Any]:
            return _families(measures)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return registry


def _families(measures: Measures) -> Iterator[Any]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    own, values = measures.labels, measures.values()
    for metric in METRICS:
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=[*own, *metric.labels])
        for (name, labels), value in values.items():
            if name == metric.name:
                family.add_metric([*own.values(), *(text for _, text in labels)], value)
        yield family
    batches = measures.histogram()
    histogram = HistogramMetricFamily(BATCH_SECONDS, BATCH_SECONDS_HELP, labels=[*own])
    cumulative = list(zip(_BOUNDS, accumulate(batches.counts), strict=True))
    histogram.add_metric([*own.values()], cumulative, batches.total)
    yield histogram
