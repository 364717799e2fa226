"""A catalog whose tables have their rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.tables.catalog_wrapper import CatalogWrapper

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.tables.table_rules import RuleSet


@dataclass
class CatalogWithRules(CatalogWrapper):
    """`Catalog` that adds the rules of the settings to each table.

    Raises `RulesError` for a table that its rules do not fit, before anything is published.
    """

    rules: RuleSet
    _fits: bool = False

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        return [self.rules.apply(table) for table in self.catalog.tables(oids)]

    def publish(self) -> Sequence[SourceTable]:
        if self.rules.rules and not self._fits:
            self.tables()
            self._fits = True
        return [self.rules.apply(table) for table in self.catalog.publish()]
