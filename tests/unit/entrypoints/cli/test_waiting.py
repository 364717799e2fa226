"""Runs that meet on one slot, and streams that were never loaded."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import pytest

from adapters.fakes import (
    InMemoryDestination,
    InMemoryMonitor,
    InMemoryPostgres,
    InMemorySource,
    Lake,
)
from cdc_core.values.errors import NeverLoaded, OperatorNeeded, WriterBusy
from entrypoints.cli import commands, waiting
from entrypoints.container import Container
from entrypoints.settings.model import Settings


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.001)


@pytest.fixture
def postgres():
    found = InMemoryPostgres()
    orders = found.create_table("orders", {"id": pa.int64()})
    with found.transaction() as transaction:
        transaction.insert(orders, id=1)
    return found


@pytest.fixture
def lake():
    return Lake()


@pytest.fixture
def container(postgres, lake):
    made = Container.from_settings(Settings())
    source = InMemorySource(postgres)
    for port in (made.change_source, made.snapshot_source, made.catalog):
        port.override(source)
    made.source_monitor.override(InMemoryMonitor(postgres))
    made.destination.override(InMemoryDestination(lake))
    return made


def _busy(times):
    left = iter(range(times))

    def work():
        if next(left, None) is not None:
            raise WriterBusy("another run holds slot 'a'")
        return 0

    return work


def test_a_run_waits_for_the_one_that_holds_the_slot():
    assert waiting.when_free(_busy(3), 60) == 0


def test_it_ends_at_once_where_there_is_no_wait():
    with pytest.raises(WriterBusy):
        waiting.when_free(_busy(1), 0)


def test_it_ends_when_it_is_asked_to():
    with pytest.raises(WriterBusy):
        waiting.when_free(_busy(10**9), 60, lambda: True)


def test_a_stream_that_was_never_loaded_ends_well_and_makes_nothing(container, postgres):
    stream = partial(commands.stream_changes, container)
    with pytest.raises(NeverLoaded, match="no snapshot was taken yet"):
        stream()
    assert waiting.once_loaded(stream, container, None) == 0
    assert waiting.once_loaded(stream, container, lambda: True) == 0
    assert postgres.slot is None


def test_it_streams_once_it_was_loaded(container, lake):
    looks = []

    def stop():
        looks.append(1)
        if len(looks) == 3:
            container.take_snapshot().run()
        return len(looks) > 1000

    assert waiting.once_loaded(partial(commands.stream_changes, container), container, stop) == 0
    assert len(looks) == 3
    assert lake.rows("orders", "id") == [{"id": 1}]


def test_a_first_load_that_is_at_work_is_waited_for(container):
    """By its slot's holder; a holder beside a checkpoint is another run."""
    stream = _busy(1)
    assert waiting.once_loaded(stream, container, None) == 0
    container.take_snapshot().run()
    with pytest.raises(WriterBusy):
        waiting.once_loaded(_busy(1), container, None)


def test_a_slot_without_a_checkpoint_is_a_loss(container, lake):
    container.take_snapshot().run()
    container.destination.override(InMemoryDestination(Lake()))
    with pytest.raises(OperatorNeeded, match="no checkpoint") as lost:
        waiting.once_loaded(partial(commands.stream_changes, container), container, None)
    assert not isinstance(lost.value, NeverLoaded)
