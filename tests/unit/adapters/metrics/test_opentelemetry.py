"""Metrics through OpenTelemetry's SDK, received by a server that speaks OTLP."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from adapters.metrics import opentelemetry
from adapters.metrics.measures import METRICS
from cdc_core.ports.progress import RunEnded
from tests.support.run_events import EVENTS, measured

if TYPE_CHECKING:
    from collections.abc import Iterator


class Collector:
    """What was received, with the answer that it gives to each request."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.wait = 0.0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                time.sleep(collector.wait)
                collector.requests.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    for name in ("OTEL_SDK_DISABLED", "OTEL_METRICS_EXPORTER", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
    yield found
    found.server.shutdown()
    found.server.server_close()


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
