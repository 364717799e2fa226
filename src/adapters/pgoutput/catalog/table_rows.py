"""Rows of the system catalog that describe tables, as values.

Manual: `pg_class`, `pg_attribute`, `pg_index`, `pg_inherits`, `pg_enum`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.values.relation import ReplicaIdentity, TableName

if TYPE_CHECKING:
    from cdc_core.values.fingerprint import Attributes, Label
    from cdc_core.values.partition_bounds import Bound


@dataclass(frozen=True)
class ColumnRow:
    """A live column. `generated` is `pg_attribute.attgenerated`: "", "s" (stored) or "v"."""

    attnum: int
    name: str
    type_oid: int
    typmod: int
    pg_type: str
    generated: str
    has_default: bool


@dataclass(frozen=True)
class StoredRow:
    """A table or leaf partition: its files and its replica identity.

    - `attached`: it was a separate table before it became a partition.
    - `primary_key` and `identity_index`: columns in their order. `deferrable_key`: its primary key
      is deferrable, so it identifies no row.
    - `unique_index` could be its replica identity (empty: none); `unique_columns` are its columns.
    - `persistence`: "p", "u" (unlogged) or "f" (a foreign table).
    - `definition` changes when the catalog row of a column is written.
    - `path` changes when the leaf or a partition above it is attached again.
    - `toast`: the OID of its TOAST table, 0 if none. A rewriting ALTER TABLE creates another one;
      VACUUM FULL does not.
    - `bounds` of a leaf, one per level; empty if a level has several columns.
    """

    oid: int
    table: TableName
    filenode: int
    identity: ReplicaIdentity
    primary_key: tuple[str, ...]
    identity_index: tuple[str, ...]
    persistence: str
    definition: str = ""
    toast: int = 0
    attached: bool = False
    path: str = ""
    deferrable_key: bool = False
    unique_index: str = ""
    unique_columns: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()

    @property
    def stream_key(self) -> tuple[str, ...]:
        """Columns by which the stream identifies a row; empty if none."""
        match self.identity:
            case ReplicaIdentity.DEFAULT | ReplicaIdentity.FULL:
                return self.primary_key
            case ReplicaIdentity.INDEX:
                return self.identity_index
            case ReplicaIdentity.NOTHING:
                return ()


@dataclass(frozen=True)
class ColumnTypes:
    """Enums and composite types in columns. The fields are those of `Fingerprint`."""

    labels: frozenset[Label] = frozenset()
    attributes: frozenset[Attributes] = frozenset()
    enums: frozenset[tuple[int, int]] = frozenset()
    within: frozenset[int] = frozenset()

    def __or__(self, other: ColumnTypes) -> ColumnTypes:
        return ColumnTypes(
            self.labels | other.labels,
            self.attributes | other.attributes,
            self.enums | other.enums,
            self.within | other.within,
        )


@dataclass(frozen=True)
class TableRow:
    """An ordinary table, or a partitioned one with its leaf partitions."""

    stored: StoredRow
    partitioned: bool
    schema_oid: int
    columns: tuple[ColumnRow, ...]
    leaves: tuple[StoredRow, ...]
    estimated_rows: int
    total_bytes: int
    #: Enums and composite types in its columns.
    types: ColumnTypes = ColumnTypes()
    #: Changes when the table is moved to another schema.
    place: str = ""
    #: The greatest number that a column has ever had.
    last_column: int = 0
