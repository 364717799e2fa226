"""The events of a run, for tests of what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.metrics.measures import Measures
from cdc_core.ports.change_source import SlotState
from cdc_core.ports.progress import (
    BatchLoaded,
    Checkpointed,
    ChunkRead,
    Note,
    RunStarted,
    SlotObserved,
    TableStarted,
)
from cdc_core.values.changes import Operations
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity, TableState
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import TableName

if TYPE_CHECKING:
    from cdc_core.ports.progress import Event

HOSTILE = 'public."a\\b"\n{x="y"}'
SLOT = SlotState("s", "pgoutput", "db", None, Lsn(1), Lsn(700), "reserved", 4096, 8192)
STATES = {
    1: TableState(1, TableName("public", "a"), "a", (), (), Lsn(1)),
    2: TableState(2, TableName("public", "b"), "b", (), (), Lsn(1)).needs_snapshot("why"),
}
CHECKPOINT = Checkpoint(SourceIdentity("1", "db", "s"), Lsn(700), STATES)
EVENTS: list[Event] = [
    RunStarted("cdc"),
    Checkpointed(CHECKPOINT),
    Note("nothing to count"),
    TableStarted("public.new", 10),
    ChunkRead("public.new", 7, 100),
    BatchLoaded(
        9, 2, 300, 0.3, 1000, Lsn(700), None,
        {"public.a": Operations(1, 2, 3, 0), HOSTILE: Operations(truncates=1)},
    ),
    BatchLoaded(1, 1, 0, 7.0, 50, Lsn(1000), None, {"public.a": Operations(1)}),
    SlotObserved(SLOT, Lsn(1700)),
]  # fmt: skip


def measured(*events: Event, **earlier: object) -> Measures:
    measures = Measures("p", "s", **earlier)  # type: ignore[arg-type]
    for event in events:
        measures.emit(event)
    return measures
