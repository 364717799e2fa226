"""Looking at the source without taking part: no lock, no slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.checkpoint import SourceIdentity
    from cdc_core.values.lsn import Lsn


class SourceMonitor(Protocol):
    """Opened as a context manager; never blocks a run that is under way, nor is it blocked."""

    def __enter__(self) -> SourceMonitor: ...

    def __exit__(self, *exc: object) -> None: ...

    def identity(self) -> SourceIdentity: ...

    def left_timeline(self, timeline: int) -> Lsn | None:
        """Where the source's WAL left an earlier timeline; None if it never was on it."""
        ...

    def slot(self) -> SlotState | None: ...

    def current_lsn(self) -> Lsn:
        """A position at or past every commit that is durable by now; writes nothing to learn it."""
        ...

    def now(self) -> int:
        """The source's clock, microseconds since 1970-01-01 UTC."""
        ...
