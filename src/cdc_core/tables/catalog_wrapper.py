"""A catalog in front of another one, for those that change a few answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog, PassedOver, Schemas, SourceTable
    from cdc_core.values.relation import TableName


@dataclass
class CatalogWrapper:
    """`Catalog` that passes every call on to `catalog`."""

    catalog: Catalog

    def schemas_found(self) -> Schemas:
        return self.catalog.schemas_found()

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        return self.catalog.tables(oids)

    def passed_over(self) -> Sequence[PassedOver]:
        return self.catalog.passed_over()

    def publish(self) -> Sequence[SourceTable]:
        return self.catalog.publish()

    def horizon(self) -> int:
        return self.catalog.horizon()

    def settled(
        self, moved: Collection[int], attached: Collection[int], horizon: int
    ) -> frozenset[int]:
        return self.catalog.settled(moved, attached, horizon)

    def names(self, oids: Collection[int]) -> Mapping[int, TableName]:
        return self.catalog.names(oids)

    def drop_publication(self) -> bool:
        return self.catalog.drop_publication()
