"""Read-only access to the source's state: takes no lock, reads no slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.checkpoint import SourceIdentity
    from cdc_core.values.lsn import Lsn


class SourceMonitor(Protocol):
    """Open it as a context manager. It never blocks a run, and no run blocks it."""

    def __enter__(self) -> SourceMonitor: ...

    def __exit__(self, *exc: object) -> None: ...

    def identity(self) -> SourceIdentity: ...

    def left_timeline(self, timeline: int) -> Lsn | None:
        """Return where the source's WAL left an earlier timeline; None if it was never on it."""
        ...

    def slot(self) -> SlotState | None: ...

    def current_lsn(self) -> Lsn:
        """Return a position at or past every commit that is durable now. Writes nothing."""
        ...

    def now(self) -> int:
        """Return the source's clock, in microseconds since 1970-01-01 UTC."""
        ...
