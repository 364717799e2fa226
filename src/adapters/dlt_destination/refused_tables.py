"""Tables that the destination refused, while a load goes on with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.store import Refusal
from cdc_core.values.errors import DestinationFailed, DestinationRefused

if TYPE_CHECKING:
    from adapters.dlt_destination.store import TableStore


class UnfitTable(DestinationFailed):
    """A column of a table in the destination cannot hold the source's values."""


class RefusedTables(dict[str, Refusal]):
    """By their names; `tables` is how many the load has."""

    def __init__(self, store: TableStore, tables: int) -> None:
        super().__init__()
        self._store = store
        self._tables = tables

    def add(self, table: str, error: BaseException) -> bool:
        """Add the table if it was refused; False if the error is another one."""
        refusal = self._store.refusal(root_cause(error))
        if isinstance(error, UnfitTable):
            refusal = Refusal(error.what)
        if refusal is not None:
            self[table] = refusal
        return refusal is not None

    @property
    def for_a_common_cause(self) -> bool:
        """Whether more than one table is refused, all of them for a common cause."""
        return len(self) == self._tables > 1 and all(refusal.common for refusal in self.values())

    def require_none(self) -> None:
        if self:
            raise DestinationRefused({table: refusal.why for table, refusal in self.items()})
