"""What `LoadsBehind` does when, and what it raises of two errors."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from adapters.fakes import InMemoryDestination
from cdc_core.checkpoint import Checkpoint, SourceIdentity
from cdc_core.errors import DestinationUnavailable, SourceUnavailable
from cdc_core.lsn import Lsn
from cdc_core.staging import EMPTY_BATCH
from cdc_core.use_cases.loads_behind import LoadsBehind


class Told(InMemoryDestination):
    """Tells in `events` when a load is begun and waited for; a load in `broken` fails."""

    def __init__(self, *broken: int) -> None:
        super().__init__()
        self.broken = broken
        self.events: list[str] = []

    def begin_load(self, batch: Any, checkpoint: Checkpoint) -> Any:
        del batch
        number = int(checkpoint.lsn)
        self.events.append(f"begin {number}")
        return partial(self._wait, number)

    def _wait(self, number: int) -> None:
        self.events.append(f"end {number}")
        if number in self.broken:
            raise DestinationUnavailable("gone")


def run(destination: Told, *numbers: int, then: Any = None, error: str = "") -> None:
    """Load batches of these numbers, then fail if `error` says how."""
    with LoadsBehind(destination) as loads:
        for number in numbers:
            checkpoint = Checkpoint(SourceIdentity("1", "shop", "slot"), Lsn(number))
            told = partial(destination.events.append, f"then {number}")
            loads.begin(EMPTY_BATCH, checkpoint, then or told)
            destination.events.append("read")
        if error:
            raise SourceUnavailable(error)


def test_the_caller_goes_on_beside_each_load_and_what_follows_one_beside_the_next() -> None:
    destination = Told()
    run(destination, 1, 2)
    assert destination.events == [
        "begin 1", "read", "end 1", "begin 2", "then 1", "read", "end 2", "then 2",
    ]  # fmt: skip


def test_no_load_begins_after_one_that_failed() -> None:
    destination = Told(1)
    with pytest.raises(DestinationUnavailable):
        run(destination, 1, 2)
    assert destination.events == ["begin 1", "read", "end 1"]


def test_an_error_of_reading_comes_after_the_load_that_was_under_way() -> None:
    destination = Told()
    with pytest.raises(SourceUnavailable):
        run(destination, 1, error="gone")
    assert destination.events == ["begin 1", "read", "end 1", "then 1"]


def test_an_error_of_the_load_is_told_rather_than_one_of_reading() -> None:
    with pytest.raises(DestinationUnavailable):
        run(Told(1), 1, error="gone")


def test_an_error_of_reading_is_told_rather_than_one_of_what_follows_a_load() -> None:
    def refuse() -> None:
        raise SourceUnavailable("confirming")

    with pytest.raises(SourceUnavailable, match="reading"):
        run(Told(), 1, then=refuse, error="reading")
