"""The contract of `Progress` on every listener, and on the fake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import RecordedProgress
from adapters.metrics.measures import Measures
from cdc_core.ports.progress import (
    BatchLoaded,
    CaughtUp,
    Checkpointed,
    ChunkRead,
    Event,
    Listeners,
    Note,
    Progress,
    ReadingUpTo,
    RunEnded,
    RunStarted,
    SlotObserved,
    TableFinished,
    TableRepaired,
    TableStarted,
    Warned,
)
from cdc_core.runs.tally import Tally
from cdc_core.values.changes import Operations
from cdc_core.values.lsn import Lsn
from entrypoints.output.progress import LineProgress, TerminalProgress
from tests.support.run_events import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = st.sampled_from(["public.a", "public.b", 'odd."[/bold] näme'])
COUNTS = st.integers(0, 10**12)
EVENTS = st.lists(
    st.one_of(
        st.builds(TableStarted, TABLES, COUNTS),
        st.builds(ChunkRead, TABLES, COUNTS),
        st.builds(TableFinished, TABLES),
        st.builds(BatchLoaded, COUNTS, COUNTS, COUNTS),
        st.builds(RunStarted, st.just("cdc")),
        st.builds(TableRepaired, TABLES, st.builds(Operations, COUNTS)),
        st.builds(Checkpointed, st.sampled_from([None, CHECKPOINT])),
        st.builds(ReadingUpTo, st.builds(Lsn, COUNTS)),
        st.builds(CaughtUp, st.builds(Lsn, COUNTS), st.floats(0, 1e6)),
        st.builds(SlotObserved, st.none(), st.builds(Lsn, COUNTS)),
        st.builds(RunEnded, st.integers(0, 3)),
        st.builds(Note, st.sampled_from(["a note", "100 % of [x]", "%s {}"])),
        st.builds(Warned, st.sampled_from(["careful", "[/red] %d"])),
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    "progress_of",
    [
        Listeners,
        LineProgress,
        TerminalProgress,
        RecordedProgress,
        Tally,
        lambda: Measures("p", "s"),
    ],
)
@settings(max_examples=40)
@given(events=EVENTS)
def test_events_may_come_in_any_order(
    progress_of: Callable[[], Progress], events: list[Event]
) -> None:
    progress = progress_of()
    try:
        for event in events:
            progress.emit(event)
    finally:
        if isinstance(progress, TerminalProgress):
            progress.__exit__()


@given(events=EVENTS, count=st.integers(0, 3))
def test_every_listener_gets_every_event_in_order(events: list[Event], count: int) -> None:
    recorded = [RecordedProgress() for _ in range(count)]
    listeners = Listeners(*recorded[:1])
    for listener in recorded[1:]:
        listeners.add(listener)
    gone = RecordedProgress()
    listeners.add(gone)
    listeners.remove(gone)
    for event in events:
        listeners.emit(event)
    assert [listener.events for listener in recorded] == [events] * count
    assert gone.events == []


def test_the_fake_keeps_events_and_messages() -> None:
    progress = RecordedProgress()
    events: list[Event] = [TableStarted("t", 5), Note("n"), Warned("w")]
    for event in events:
        progress.emit(event)
    assert progress.events == events
    assert (progress.notes, progress.warnings) == (["n"], ["w"])
