"""Watching, from within a run, how much WAL the slot retains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.ports.progress import Warned
from cdc_core.slot.wal_budget import budget_exceeded, budget_warning

if TYPE_CHECKING:
    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.progress import Progress
    from cdc_core.values.errors import OperatorNeeded


@dataclass
class BudgetWatch:
    """`lasting`: a limit was exceeded at two looks in a row, so that reading on does not help."""

    source: ChangeSource
    max_retained_wal: int | None
    progress: Progress
    lasting: OperatorNeeded | None = None
    _last: OperatorNeeded | None = None
    _warned: bool = False

    def warn(self) -> None:
        """Say so, once, when most of a limit is used."""
        slot = self.source.slot()
        warning = budget_warning(slot, self.max_retained_wal) if slot is not None else ""
        if warning and not self._warned:
            self.progress.emit(Warned(warning))
        self._warned = bool(warning)

    def look(self) -> None:
        """Warn, and note whether a limit is exceeded while all that was committed is loaded."""
        self.warn()
        now = self.exceeded()
        self.lasting = now if self._last is not None else None
        self._last = now

    @property
    def over(self) -> bool:
        """Whether a limit was exceeded at the last look."""
        return self._last is not None

    def exceeded(self) -> OperatorNeeded | None:
        slot = self.source.slot()
        return budget_exceeded(slot, self.max_retained_wal) if slot is not None else None
