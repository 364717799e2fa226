"""A catalog whose tables have their rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog, PassedOver, Schemas, SourceTable
    from cdc_core.tables.table_rules import RuleSet
    from cdc_core.values.relation import TableName


@dataclass
class CatalogWithRules:
    """`Catalog` that adds the rules of the settings to each table.

    Raises `RulesError` for a table that its rules do not fit, before anything is published.
    """

    catalog: Catalog
    rules: RuleSet
    first_schema: str = "public"
    _fits: bool = False

    def schemas_found(self) -> Schemas:
        return self.catalog.schemas_found()

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        tables = [self.rules.apply(table) for table in self.catalog.tables(oids)]
        if oids is None:
            self.rules.require_free_names(tables, self.first_schema)
        return tables

    def passed_over(self) -> Sequence[PassedOver]:
        return self.catalog.passed_over()

    def publish(self) -> Sequence[SourceTable]:
        if self.rules.rules and not self._fits:
            self.tables()
            self._fits = True
        tables = [self.rules.apply(table) for table in self.catalog.publish()]
        self.rules.require_free_names(tables, self.first_schema)
        return tables

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
