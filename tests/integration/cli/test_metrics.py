"""`--metrics-port` and `--metrics-file` of the real command."""

from __future__ import annotations

import socket
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.otlp import Collector, collector
from tests.support.ports import free_port

__all__ = ["collector"]

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.integration.cli.conftest import Shop

SETUP = "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2)"


def samples(text: str) -> dict[str, float]:
    """Values by name and labels other than those of every metric."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("pipeline") == "pgbronze"
            assert labels.pop("slot")
            texts = (labels[name] for name in sorted(labels, reverse=True))
            found[" ".join((sample.name, *texts))] = sample.value
    return found


def metrics(port: int, until: Mapping[str, float]) -> dict[str, float]:
    """The metrics once they have these values, or what they are after a while."""
    deadline, found = time.monotonic() + 60, {}
    while time.monotonic() < deadline and not until.items() <= found.items():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                found = samples(answer.read().decode())
        except urllib.error.URLError:
            found = {}
        time.sleep(0.2)
    assert until.items() <= found.items()
    return found


def test_a_run_that_follows_serves_its_metrics(shop: Shop) -> None:
    shop.sql(SETUP)
    shop.run("snapshot")
    port = free_port()
    process = shop.spawn("cdc", "--follow", "--metrics-port", str(port))
    try:
        metrics(port, {"pgbronze_tables streaming": 1, "pgbronze_batches_total": 0})
        shop.sql("INSERT INTO orders VALUES (3); ")
        shop.sql("UPDATE orders SET id = 4 WHERE id = 3; DELETE FROM orders WHERE id = 1")
        found = metrics(
            port,
            {
                "pgbronze_changes_total public.orders insert": 1,
                "pgbronze_changes_total public.orders update": 1,
                "pgbronze_changes_total public.orders delete": 1,
                "pgbronze_lag_seconds": 0,
            },
        )
        assert found["pgbronze_last_success_timestamp_seconds"] == pytest.approx(
            time.time(), abs=30
        )
        second = shop.run("cdc", "--follow", "--metrics-port", str(port), code=2)
        assert f"port {port} of 127.0.0.1 is in use" in second.line
        # Not on the addresses that other machines reach.
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))
    finally:
        process.terminate()
        _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_a_file_is_written_at_the_end(shop: Shop) -> None:
    shop.sql(SETUP)
    file = shop.folder / "pgbronze.prom"
    shop.run("snapshot", "--metrics-file", str(file))
    found = samples(file.read_text())
    assert found["pgbronze_rows_read_total public.orders"] == 2
    assert found["pgbronze_tables streaming"] == 1
    assert found["pgbronze_retained_wal_bytes"] >= 0
    assert found["pgbronze_confirmed_flush_lsn"] > 0
    shop.sql("INSERT INTO orders VALUES (3)")
    shop.run("cdc", "--metrics-file", "pgbronze.prom")
    found = samples(file.read_text())
    assert found["pgbronze_rows_read_total public.orders"] == 2
    assert found["pgbronze_changes_total public.orders insert"] == 1
    assert found["pgbronze_batch_seconds_count"] == found["pgbronze_batches_total"] == 1
    succeeded = found["pgbronze_last_success_timestamp_seconds"]
    shop.sql(f"SELECT pg_drop_replication_slot('{shop.database}')")
    shop.run("cdc", "--metrics-file", str(file), code=3)
    found = samples(file.read_text())
    assert found["pgbronze_last_success_timestamp_seconds"] == succeeded


def test_opentelemetry_gets_the_metrics_of_a_run(shop: Shop, collector: Collector) -> None:
    shop.sql(SETUP)
    shop.run("snapshot")
    metrics = {
        metric.name: metric
        for sent in collector.requests[-1].resource_metrics
        for scope in sent.scope_metrics
        for metric in scope.metrics
    }
    (rows,) = metrics["pgbronze_rows_read_total"].sum.data_points
    assert rows.as_double == 2
    labels = {attribute.key: attribute.value.string_value for attribute in rows.attributes}
    assert labels == {"pipeline": "pgbronze", "slot": shop.database, "table": "public.orders"}


def test_wrong_options_end_with_2(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.sql(SETUP)
    assert "--follow" in shop.run("cdc", "--metrics-port", "9187", code=2).line
    for port in ("0", "65536", "x", "-1"):
        shop.run("cdc", "--follow", "--metrics-port", port, code=2)
    nowhere = str(shop.folder / "no" / "file")
    assert nowhere in shop.run("snapshot", "--metrics-file", nowhere, code=2).line
    assert "cannot be written" in shop.run("cdc", "--metrics-file", str(shop.folder), code=2).line
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for arguments in (
        ("cdc", "--follow", "--metrics-port", "9187"),
        ("snapshot", "--metrics-file", "f"),
    ):
        line = shop.run(*arguments, code=2).line
        assert "pip install 'pgbronze[metrics]'" in line
        assert arguments[-2] in line
    assert not shop.lake.exists()
