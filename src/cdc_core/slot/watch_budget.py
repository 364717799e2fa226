"""Watch how much WAL the slot retains, during a run."""

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
    """`lasting`: a limit was exceeded twice in a row, so reading further does not help."""

    source: ChangeSource
    max_retained_wal: int | None
    progress: Progress
    lasting: OperatorNeeded | None = None
    _last: OperatorNeeded | None = None
    _warned: bool = False

    def warn(self) -> None:
        """Warn once when most of a limit is used."""
        slot = self.source.slot()
        warning = budget_warning(slot, self.max_retained_wal) if slot is not None else ""
        if warning and not self._warned:
            self.progress.emit(Warned(warning))
        self._warned = bool(warning)

    def look(self) -> None:
        """Warn, and note whether a limit is exceeded although every committed change is loaded."""
        self.warn()
        now = self.exceeded()
        self.lasting = now if self._last is not None else None
        self._last = now

    @property
    def over(self) -> bool:
        """Whether a limit was exceeded when last checked."""
        return self._last is not None

    def exceeded(self) -> OperatorNeeded | None:
        slot = self.source.slot()
        return budget_exceeded(slot, self.max_retained_wal) if slot is not None else None
