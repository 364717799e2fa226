"""A catalog that describes the tables as they are once published, and publishes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cdc_core.tables.catalog_wrapper import CatalogWrapper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.values.errors import CdcError

#: The mark of a publication that a table gets only now.
_NEW_MARK = "to be published"


@dataclass
class UnpublishedCatalog(CatalogWrapper):
    """`Catalog` that changes nothing. `described` are its tables as they are now, `refusals` the
    errors of those that PostgreSQL would refuse to publish, by oid."""

    described: Sequence[SourceTable]
    refusals: Mapping[int, CdcError] = field(default_factory=dict)

    def publish(self) -> Sequence[SourceTable]:
        """Return the tables, with those published that the next run would add."""
        return [self._published(table) for table in self.described]

    def _published(self, table: SourceTable) -> SourceTable:
        if table.published or table.not_streamed:
            return table
        refused = self.refusals.get(table.relation.oid)
        if refused is not None:
            return replace(table, refused=refused, not_streamed=str(refused))
        # Changes from before may be missing in the stream: the fingerprint shows it by this mark.
        fingerprint = replace(table.fingerprint, publication=_NEW_MARK)
        return replace(table, published=True, fingerprint=fingerprint)

    def drop_publication(self) -> bool:
        raise NotImplementedError("a plan changes nothing")
