"""The contract of `Progress` on every listener, and on the fake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import RecordedProgress
from cdc_core.ports.progress import (
    BatchLoaded,
    ChunkRead,
    Event,
    Listeners,
    Note,
    Progress,
    TableFinished,
    TableStarted,
    Warned,
)
from entrypoints.output.progress import LineProgress, TerminalProgress

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
        st.builds(Note, st.sampled_from(["a note", "100 % of [x]", "%s {}"])),
        st.builds(Warned, st.sampled_from(["careful", "[/red] %d"])),
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    "progress_of", [Listeners, LineProgress, TerminalProgress, RecordedProgress]
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
    for event in events:
        listeners.emit(event)
    assert [listener.events for listener in recorded] == [events] * count


def test_the_fake_keeps_events_and_messages() -> None:
    progress = RecordedProgress()
    events: list[Event] = [TableStarted("t", 5), Note("n"), Warned("w")]
    for event in events:
        progress.emit(event)
    assert progress.events == events
    assert (progress.notes, progress.warnings) == (["n"], ["w"])
