"""Reset: drop everything that this pipeline created, at the destination and at the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdc_core.ports.catalog import Catalog
    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.destination import Destination


@dataclass(frozen=True)
class Reset:
    """Destructive. Drops the slot first: if it belongs to another database or is in use, this is
    refused before anything is lost. What a killed reset leaves is refused by `cdc`."""

    source: ChangeSource
    catalog: Catalog
    destination: Destination

    def run(self) -> list[str]:
        """Drop it all; return what was dropped, in words."""
        with self.source:
            with self.destination:
                slot = ["replication slot"] if self.source.drop_slot() else []
                dropped = list(self.destination.drop()) + slot
            if self.catalog.drop_publication():
                dropped.append("publication")
        return dropped
