"""Stores of one place, as they are or as a test breaks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.dlt_destination.store import TableStore


@dataclass(frozen=True)
class Store:
    """Makes stores of one place, of the class itself or of one that fails."""

    base: type
    place: Any
    others: tuple[Any, ...] = ()

    def __call__(self, base: type | None = None) -> TableStore:
        made: TableStore = (base or self.base)(self.place, *self.others)
        return made
