"""Metrics through OpenTelemetry's SDK, received by a server that speaks OTLP."""

from __future__ import annotations

import time

import pytest

from adapters.metrics import opentelemetry
from adapters.metrics.measures import METRICS
from cdc_core.ports.progress import RunEnded
from tests.support.otlp import Collector, collector
from tests.support.run_events import EVENTS, measured

__all__ = ["collector"]


def test_all_metrics_arrive_at_the_end(collector: Collector) -> None:
    assert opentelemetry.wanted()
    measures = measured(RunEnded(0))
    with opentelemetry.exporting(measures) as times:
        for event in EVENTS:
            measures.emit(event)
            times.emit(event)
    (sent,) = collector.requests[-1].resource_metrics
    service = {a.key: a.value.string_value for a in sent.resource.attributes}["service.name"]
    assert service == "pgbronze"
    metrics = {m.name: m for scope in sent.scope_metrics for m in scope.metrics}
    missing = {metric.name for metric in METRICS} - metrics.keys()
    assert missing == {"pgbronze_lag_seconds"}  # nothing has said how old the state is
    (transactions,) = metrics["pgbronze_transactions_total"].sum.data_points
    assert transactions.as_double == 3
    assert {a.key: a.value.string_value for a in transactions.attributes} == {
        "pipeline": "p",
        "slot": "s",
    }
    (batches,) = metrics["pgbronze_batch_seconds"].histogram.data_points
    assert (batches.count, batches.sum) == (2, pytest.approx(7.3))


def test_a_collector_that_does_not_answer_does_not_hold_the_run(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opentelemetry, "END_SECONDS", 0.3)
    collector.wait = 3.0
    measures = measured(*EVENTS)
    began = time.monotonic()
    with opentelemetry.exporting(measures):
        pass
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_nothing_is_exported_unless_the_environment_says_so(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert not opentelemetry.wanted()
