"""A catalog that describes the tables as they are once published, and publishes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog, PassedOver, Schemas, SourceTable
    from cdc_core.values.errors import CdcError
    from cdc_core.values.relation import TableName

#: The mark of a publication that a table gets only now.
_NEW_MARK = "to be published"


@dataclass(frozen=True)
class UnpublishedCatalog:
    """`Catalog` that changes nothing. `described` are its tables as they are now, `refusals` the
    errors of those that PostgreSQL would refuse to publish, by oid."""

    catalog: Catalog
    described: Sequence[SourceTable]
    refusals: Mapping[int, CdcError] = field(default_factory=dict)

    def schemas_found(self) -> Schemas:
        return self.catalog.schemas_found()

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        return self.catalog.tables(oids)

    def passed_over(self) -> Sequence[PassedOver]:
        return self.catalog.passed_over()

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

    def horizon(self) -> int:
        return self.catalog.horizon()

    def settled(
        self, moved: Collection[int], attached: Collection[int], horizon: int
    ) -> frozenset[int]:
        return self.catalog.settled(moved, attached, horizon)

    def names(self, oids: Collection[int]) -> Mapping[int, TableName]:
        return self.catalog.names(oids)

    def drop_publication(self) -> bool:
        raise NotImplementedError("a plan changes nothing")
