"""The source's catalog: which tables there are, and which of them are published."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cdc_core.values.errors import CdcError
    from cdc_core.values.fingerprint import Fingerprint
    from cdc_core.values.relation import Relation, TableName


@dataclass(frozen=True)
class SourceTable:
    """A discovered table as the catalog describes it now.

    `relation.columns` are those the stream sends, with their `attnum`. `fingerprint` tells whether
    something happened that leaves no row events. `published` tells whether the publication holds
    it; `not_streamed` says why its changes cannot be (empty: they can).
    """

    relation: Relation
    fingerprint: Fingerprint
    published: bool
    not_streamed: str = ""
    estimated_rows: int = 0
    total_bytes: int = 0
    #: Another session has it locked, so that it could not be added to the publication.
    locked: bool = False
    #: Why PostgreSQL refused to add it to the publication, with the statement to run.
    refused: CdcError | None = None


class Reason(Enum):
    """Why what looks like a table is passed over."""

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
    """`chosen` are those of the settings, `there` all of the database but PostgreSQL's own."""

    chosen: Sequence[str]
    there: Sequence[str]


class Catalog(Protocol):
    def schemas_found(self) -> Schemas: ...

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        """Tables of the settings' schemas, less the excluded; a partitioned table by its root; by
        name. Of those with these `oids` only, if given, at a cost that does not grow with others.
        """
        ...

    def passed_over(self) -> Sequence[PassedOver]:
        """What is not among `tables()`, by name; without partitions and what extensions made."""
        ...

    def publish(self) -> Sequence[SourceTable]:
        """Create or complete the publication, then `tables()`.

        Adds tables that can be streamed, but for those that are `locked` or `refused`, and takes
        out those whose updates PostgreSQL would refuse. A publication that the role does not own is
        used as it is. Raises `OperatorNeeded` with the statement to run where the publication is
        missing and PostgreSQL refuses to create it with any of the tables.
        """
        ...

    def horizon(self) -> int:
        """Every transaction of the source that is numbered lower has ended by now."""
        ...

    def settled(
        self, moved: Collection[int], attached: Collection[int], horizon: int
    ) -> frozenset[int]:
        """Tables and partitions, by oid, that are known to have the rows that they had.

        Of those in `moved`, which got new files since a `horizon` (above 0), the ones that still
        have a row from before it: no ALTER TABLE and no TRUNCATE leaves one. Of those `attached`
        the ones that never had a row. One that cannot be looked into is not among them.
        """
        ...

    def names(self, oids: Collection[int]) -> Mapping[int, TableName]:
        """Names that tables have now, whatever the settings say; those that are gone have none."""
        ...

    def drop_publication(self) -> bool:
        """Drop the publication; False if there was none, or it is another role's and stays."""
        ...
