"""A listener that keeps every event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdc_core.ports.progress import Note, Warned

if TYPE_CHECKING:
    from cdc_core.ports.progress import Event


@dataclass
class RecordedProgress:
    """`notes` and `warnings` are the messages of those events."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    @property
    def notes(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Note)]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]
