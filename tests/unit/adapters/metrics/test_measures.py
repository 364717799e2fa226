"""Metrics from events: their values, the file for a textfile collector, and the server."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.metrics.measures import METRICS, Histogram, Measures
from adapters.metrics.prometheus import read_file, serving, write_file
from cdc_core.ports.progress import (
    BatchLoaded,
    CaughtUp,
    Checkpointed,
    ReadingUpTo,
    RunEnded,
)
from cdc_core.values.changes import Operations
from cdc_core.values.errors import SettingsError
from cdc_core.values.lsn import Lsn
from tests.support.ports import free_port
from tests.support.run_events import CHECKPOINT, EVENTS, HOSTILE, measured

if TYPE_CHECKING:
    from pathlib import Path

    from cdc_core.ports.progress import Event


def by_name(measures: Measures) -> dict[str, object]:
    return {
        "".join((name, *(f" {text}" for _, text in labels))): value
        for (name, labels), value in measures.values().items()
    }


def test_every_value_follows_from_events() -> None:
    found = by_name(measured(*EVENTS))
    assert found.pop("pgbronze_lag_seconds", None) is None
    assert found == {
        "pgbronze_lag_bytes": 1000,
        "pgbronze_retained_wal_bytes": 4096,
        "pgbronze_safe_wal_bytes": 8192,
        "pgbronze_confirmed_flush_lsn": 700,
        "pgbronze_transactions_total": 3,
        "pgbronze_batches_total": 2,
        "pgbronze_changes_total public.a insert": 2,
        "pgbronze_changes_total public.a update": 2,
        "pgbronze_changes_total public.a delete": 3,
        "pgbronze_changes_total public.a truncate": 0,
        f"pgbronze_changes_total {HOSTILE} insert": 0,
        f"pgbronze_changes_total {HOSTILE} update": 0,
        f"pgbronze_changes_total {HOSTILE} delete": 0,
        f"pgbronze_changes_total {HOSTILE} truncate": 1,
        "pgbronze_rows_read_total public.new": 7,
        "pgbronze_tables streaming": 1,
        "pgbronze_tables needs snapshot": 1,
        "pgbronze_tables not streamed": 0,
        "pgbronze_tables dropped": 0,
    }


def test_lag_grows_while_a_batch_takes_long_and_ends_when_all_is_loaded() -> None:
    measures = measured(Checkpointed(CHECKPOINT), CaughtUp(Lsn(700), 0.0))
    assert by_name(measures)["pgbronze_lag_seconds"] == 0
    time.sleep(0.05)
    measures.emit(ReadingUpTo(Lsn(900)))
    first = by_name(measures)["pgbronze_lag_seconds"]
    time.sleep(0.05)
    second = by_name(measures)["pgbronze_lag_seconds"]
    assert isinstance(first, float)
    assert isinstance(second, float)
    assert 0.05 <= first < first + 0.05 <= second < 10
    measures.emit(CaughtUp(Lsn(900), 0.0))
    assert by_name(measures)["pgbronze_lag_seconds"] == 0


@pytest.mark.parametrize(
    ("events", "succeeds"),
    [
        ([CaughtUp(Lsn(1), 0.0)], True),
        ([CaughtUp(Lsn(1), 0.0), RunEnded(0)], True),
        ([RunEnded(0)], True),
        ([CaughtUp(Lsn(1), 0.0), RunEnded(3, "an operator must act")], False),
        ([RunEnded(1, "gone")], False),
    ],
)
def test_a_run_that_fails_keeps_the_time_of_the_last_success(
    events: list[Event], succeeds: bool
) -> None:
    name = "pgbronze_last_success_timestamp_seconds"
    found = by_name(measured(*events, earlier={(name, ()): 5.0}))[name]
    assert (found != 5.0) == succeeds
    assert (found == pytest.approx(time.time(), abs=60)) == succeeds


def test_the_file_has_every_metric_and_counters_go_on(tmp_path: Path) -> None:
    file = tmp_path / "pgbronze.prom"
    measures = measured(*EVENTS, RunEnded(0))
    write_file(measures, file)
    assert [path.name for path in tmp_path.iterdir()] == ["pgbronze.prom"]
    families = {f.name: f for f in text_string_to_metric_families(file.read_text())}
    names = {metric.name.removesuffix("_total") for metric in METRICS}
    assert families.keys() == names | {"pgbronze_batch_seconds"}
    for family in families.values():
        for sample in family.samples:
            assert (sample.labels["pipeline"], sample.labels["slot"]) == ("p", "s")

    own = {"pipeline": "p", "slot": "s"}
    earlier, batches = read_file(file, own)
    again = Measures("p", "s", earlier)
    again.start_batches_at(batches)
    for event in EVENTS:
        again.emit(event)
    write_file(again, file)
    assert by_name(again)["pgbronze_transactions_total"] == 6
    assert by_name(again)[f"pgbronze_changes_total {HOSTILE} truncate"] == 2
    assert again.histogram().counts == [2 * count for count in measures.histogram().counts]
    assert again.histogram().total == pytest.approx(14.6)
    assert read_file(file, {**own, "slot": "other"}) == ({}, Histogram())


@pytest.mark.parametrize("text", ["", "no metrics {", 'pgbronze_batches_total{le="x"} x\n', "\0"])
def test_another_file_is_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    assert read_file(file, {"pipeline": "p", "slot": "s"}) == ({}, Histogram())
    write_file(measured(), file)
    assert "pgbronze_batches_total" in file.read_text()


def test_the_server_shows_what_is_now_and_ends_with_its_block() -> None:
    port, measures = free_port(), measured()
    address = f"http://127.0.0.1:{port}/metrics"
    # With a client that connects and asks nothing.
    with serving(measures, port), socket.create_connection(("127.0.0.1", port)):
        for count in (0, 1):
            with urllib.request.urlopen(address, timeout=10) as answer:
                text = answer.read().decode()
            assert f'pgbronze_batches_total{{pipeline="p",slot="s"}} {count}.0' in text
            measures.emit(BatchLoaded(1, 1, 0))
        second = serving(measures, port)
        with pytest.raises(SettingsError, match=rf"port {port} of 127\.0\.0\.1 is in use"):
            second.__enter__()
        began = time.monotonic()
    assert time.monotonic() - began < 5
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=10)
    with serving(measures, port):
        pass


def test_values_can_be_asked_for_while_events_arrive() -> None:
    measures, stop = measured(), threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not stop.is_set():
                measures.values()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for number in range(5000):
        tables = {f"t{number}": Operations(1)}
        measures.emit(BatchLoaded(1, 1, 0, 0.0, 0, None, None, tables))
        if number % 500 == 0:
            measures.values()
    stop.set()
    thread.join()
    assert not failures
