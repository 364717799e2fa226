"""What the catalog answered, as JSON: for a recording, and for the run that replays it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdc_core.ports.catalog import PassedOver, Reason, Schemas, SourceTable
from cdc_core.values.errors import OperatorNeeded
from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName
from cdc_core.values.table_rules import ColumnRule

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog

_Settled = tuple[frozenset[int], frozenset[int]]


class AnsweredCatalog:
    """The part of a `Catalog` that `answers` decide. It changes nothing at the source."""

    def __init__(self, answers: CatalogAnswers) -> None:
        self.answers = answers

    def schemas_found(self) -> Schemas:
        return self.answers.schemas

    def passed_over(self) -> Sequence[PassedOver]:
        return self.answers.passed_over

    def publish(self) -> Sequence[SourceTable]:
        return self.answers.published()

    def horizon(self) -> int:
        return self.answers.horizon

    def drop_publication(self) -> bool:
        return False


class ObservedCatalog(AnsweredCatalog):
    """`Catalog` that asks another one and remembers the answers."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        super().__init__(
            CatalogAnswers(
                catalog.schemas_found(), catalog.tables(), catalog.passed_over(), catalog.horizon()
            )
        )

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        return self.answers.chosen(oids)

    def settled(
        self, moved: Collection[int], attached: Collection[int], horizon: int
    ) -> frozenset[int]:
        found = self._catalog.settled(moved, attached, horizon)
        self.answers.settled[frozenset(moved), frozenset(attached)] = found
        return found

    def names(self, oids: Collection[int]) -> Mapping[int, TableName]:
        found = self._catalog.names(oids)
        self.answers.names |= found
        return found


@dataclass
class CatalogAnswers:
    """The answers. `settled` has an entry for each question that the run asks at its start."""

    schemas: Schemas
    tables: Sequence[SourceTable]
    passed_over: Sequence[PassedOver]
    horizon: int
    settled: dict[_Settled, frozenset[int]] = field(default_factory=dict)
    names: dict[int, TableName] = field(default_factory=dict)

    def chosen(self, oids: Collection[int] | None) -> Sequence[SourceTable]:
        return [table for table in self.tables if oids is None or table.relation.oid in oids]

    def published(self) -> Sequence[SourceTable]:
        """The tables as a run finds them that publishes all it can."""
        return [
            table if table.not_streamed else replace(table, published=True) for table in self.tables
        ]

    def to_json(self, mask: Callable[[Fingerprint], Fingerprint]) -> dict[str, Any]:
        return {
            "schemas": [list(self.schemas.chosen), list(self.schemas.there)],
            "tables": [_table_to_json(table, mask) for table in self.tables],
            "passed_over": [
                [each.table.schema, each.table.name, each.reason.name] for each in self.passed_over
            ],
            "horizon": self.horizon,
            "settled": [[*map(sorted, asked), sorted(of)] for asked, of in self.settled.items()],
            "names": [[oid, name.schema, name.name] for oid, name in self.names.items()],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> CatalogAnswers:
        return cls(
            Schemas(*found["schemas"]),
            [_table_from_json(each) for each in found["tables"]],
            [
                PassedOver(TableName(schema, name), Reason[reason])
                for schema, name, reason in found["passed_over"]
            ],
            found["horizon"],
            {
                (frozenset(moved), frozenset(attached)): frozenset(settled)
                for moved, attached, settled in found["settled"]
            },
            {oid: TableName(schema, name) for oid, schema, name in found["names"]},
        )


def _column_to_json(column: Column) -> dict[str, Any]:
    found = {each.name: getattr(column, each.name) for each in fields(column)}
    for name, value in found.items():
        if isinstance(value, pa.DataType):
            schema = pa.schema([(name, value)]).serialize().to_pybytes()
            found[name] = base64.b64encode(schema).decode()
    # Rules come from the settings.
    return {**found, "rule": ColumnRule.KEEP.value}


def _column_from_json(found: Mapping[str, Any]) -> Column:
    values = {**found, "rule": ColumnRule(found["rule"])}
    for name in ("arrow_type", "element_type"):
        if values[name] is not None:
            schema = pa.py_buffer(base64.b64decode(values[name]))
            values[name] = pa.ipc.read_schema(schema).field(0).type
    return Column(**values)


def _table_to_json(
    table: SourceTable, mask: Callable[[Fingerprint], Fingerprint]
) -> dict[str, Any]:
    relation = table.relation
    refused = table.refused
    return {
        "oid": relation.oid,
        "schema": relation.table.schema,
        "name": relation.table.name,
        "columns": [_column_to_json(column) for column in relation.columns],
        "identity": relation.identity.value,
        "key": list(relation.key),
        "fingerprint": mask(table.fingerprint).to_text(),
        "published": table.published,
        "not_streamed": table.not_streamed,
        "estimated_rows": table.estimated_rows,
        "total_bytes": table.total_bytes,
        "locked": table.locked,
        "refused": None if refused is None else [refused.what, refused.cure],
    }


def _table_from_json(found: Mapping[str, Any]) -> SourceTable:
    columns = tuple(map(_column_from_json, found["columns"]))
    name = TableName(found["schema"], found["name"])
    identity = ReplicaIdentity(found["identity"])
    return SourceTable(
        Relation(found["oid"], name, columns, identity, tuple(found["key"])),
        Fingerprint.from_text(found["fingerprint"]),
        found["published"],
        found["not_streamed"],
        found["estimated_rows"],
        found["total_bytes"],
        found["locked"],
        None if found["refused"] is None else OperatorNeeded(*found["refused"]),
    )
