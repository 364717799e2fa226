"""The source's catalog: the tables, and which of them are published."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from cdc_core.values.table_rules import NO_RULES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cdc_core.values.errors import CdcError
    from cdc_core.values.fingerprint import Fingerprint
    from cdc_core.values.relation import Relation, TableName
    from cdc_core.values.table_rules import TableRules


@dataclass(frozen=True)
class SourceTable:
    """A table as the catalog describes it now.

    `relation.columns` are the columns that the stream sends, with their `attnum`. `fingerprint`
    shows whether something happened without row events. `published`: the publication contains it.
    `not_streamed`: why its changes cannot be published (empty: they can).
    """

    relation: Relation
    fingerprint: Fingerprint
    published: bool
    not_streamed: str = ""
    estimated_rows: int = 0
    total_bytes: int = 0
    #: It could not be added to the publication, because another session has locked it.
    locked: bool = False
    #: Why PostgreSQL refused to add it to the publication, with the statement to run.
    refused: CdcError | None = None
    #: What the settings say about it; the rules of its columns are in `relation`.
    rules: TableRules = NO_RULES


class Reason(Enum):
    """Why a relation is not read."""

    RESERVED = "its name begins with _dlt, as those of dlt's own tables do"
    EXCLUDED = "left out by sources.pg_replication.include or exclude"
    FOREIGN = "a foreign table: the server has neither its rows nor its WAL"
    VIEW = "a view"


@dataclass(frozen=True)
class PassedOver:
    """A relation of the settings' schemas that no run reads."""

    table: TableName
    reason: Reason


@dataclass(frozen=True)
class Schemas:
    """`chosen` are in the settings; `there` are all of the database, except PostgreSQL's own."""

    chosen: Sequence[str]
    there: Sequence[str]


class Catalog(Protocol):
    def schemas_found(self) -> Schemas: ...

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        """Return the tables of the settings' schemas, without excluded ones, sorted by name.

        A partitioned table is represented by its root. With `oids`, only these tables are described
        and the cost does not grow with the others.
        """
        ...

    def passed_over(self) -> Sequence[PassedOver]:
        """Return the relations that are not among `tables()`, sorted by name, without partitions
        and objects of extensions."""
        ...

    def publish(self) -> Sequence[SourceTable]:
        """Create or complete the publication, then return `tables()`.

        Adds the tables that can be streamed, except those that are `locked` or `refused`, and
        removes those whose updates PostgreSQL would refuse. A publication of another role is used
        as it is. If there is no publication and PostgreSQL refuses to create it with any of the
        tables: `OperatorNeeded`, with the statement to run.
        """
        ...

    def horizon(self) -> int:
        """Return a transaction number; every transaction of the source below it has ended."""
        ...

    def settled(
        self, moved: Collection[int], attached: Collection[int], horizon: int
    ) -> frozenset[int]:
        """Return the tables and partitions, by oid, that are known to have the rows they had.

        Of `moved`, which got new files since `horizon` (above 0): those that still have a row from
        before it, because no ALTER TABLE and no TRUNCATE leaves one. Of `attached`: those that
        never had a row. The result omits those that cannot be read.
        """
        ...

    def names(self, oids: Collection[int]) -> Mapping[int, TableName]:
        """Return the current names of tables that exist, whatever the settings say."""
        ...

    def drop_publication(self) -> bool:
        """Drop the publication; False if there is none, or if another role owns it."""
        ...
