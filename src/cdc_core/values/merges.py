"""Folded changes for a destination to apply to one of its tables.

There are two kinds of merge (`KeyedMerge`, `MultisetMerge`), and `Replacement` for a full load.
Applying one twice, or after a later one, has the same result as applying it once and in order. The
guard is the `_cdc_lsn` of each target row: the commit LSN of the last change that made it. A row
without one was written by somebody else and is older than any change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

# Merges consist of these: whoever imports one, imports them from here too.
from cdc_core.values.target_table import StagedRows as StagedRows  # noqa: PLC0414, TC001
from cdc_core.values.target_table import TargetTable as TargetTable  # noqa: PLC0414, TC001

if TYPE_CHECKING:
    from cdc_core.values.history import HistoryDifference, HistoryStep, Moment
    from cdc_core.values.lsn import Lsn

#: Metadata columns of every destination table, after the table's own.
LSN_COLUMN = "_cdc_lsn"
COMMITTED_AT_COLUMN = "_cdc_committed_at"
METADATA_FIELDS = (
    pa.field(LSN_COLUMN, pa.int64(), nullable=False),
    pa.field(COMMITTED_AT_COLUMN, pa.timestamp("us", tz="UTC")),
)
#: The third metadata column, of tables with soft deletes alone: when the row was deleted. It is not
#: in the rows that a destination receives.
DELETED_AT_COLUMN = "_cdc_deleted_at"
DELETED_AT_FIELD = pa.field(DELETED_AT_COLUMN, pa.timestamp("us", tz="UTC"))

#: Control columns, in staging only.
OP_COLUMN = "_cdc_op"
UNCHANGED_COLUMN = "_cdc_unchanged"
REF_COLUMN = "_cdc_ref"
KEYED_CONTROL_FIELDS = (
    pa.field(OP_COLUMN, pa.string(), nullable=False),
    pa.field(UNCHANGED_COLUMN, pa.string()),
    pa.field(REF_COLUMN, pa.int64()),
)
MULTISET_CONTROL_FIELDS = (
    pa.field(OP_COLUMN, pa.string(), nullable=False),
    pa.field(REF_COLUMN, pa.int64(), nullable=False),
)

UPSERT, DELETE, SOFT_DELETE, HOP = "U", "D", "S", "H"


@dataclass(frozen=True, eq=False)
class KeyedMerge:
    """At most one final change per key.

    `staged` may hold more rows with the same columns and other keys.

    `rows` has the target's columns, `METADATA_FIELDS`, `KEYED_CONTROL_FIELDS`:

    - `_cdc_op` = "U": this row replaces the key's row, unless the target's row has a `_cdc_lsn` at
      or past this row's. `_cdc_unchanged` lists the target columns whose values the source did not
      send, as `.3.17.` (positions in `target.schema`); null for none. Their value is the target
      row's own or, if hops refer to this row, that of the latest hop which the target still holds.
      If the target holds neither, the row is not written: a later change, which the target has
      already, deleted it.
    - "D": the key's row is deleted, under the same guard.
    - "S": only with `soft_deletes`. As "U", with the last values that the row had, and the row is
      deleted. It is written as deleted, too, if the target has no row with the key.
    - "H": a hop. Its key is an earlier key of the row numbered `_cdc_ref`. It counts only if the
      target's row under that key has a `_cdc_lsn` at or past the hop's (the first hop has 0).
      `_cdc_ref` numbers the "U" and "S" rows that have hops; null elsewhere.

    With `truncated_at`, target rows whose `_cdc_lsn` is below it are deleted first.

    With `soft_deletes` the target has `DELETED_AT_FIELD` after its other metadata columns. A row is
    deleted by setting `_cdc_deleted_at` and `_cdc_committed_at` to the time of the delete, and
    `_cdc_lsn` to its LSN; all else stays. "D" marks the key's row, live or not, and adds none if
    there is none. TRUNCATE (at `truncated_time`, in microseconds since 1970-01-01 UTC) marks only
    live rows, whose `_cdc_deleted_at` is null, and only those whose key is in no row of the merge.
    "U" sets `_cdc_deleted_at` to null. The guards are the same. Of several truncations,
    `truncated_at` is the first: "S" rows have what the others delete.

    With `history`, the rows are content that was read: see `HistoryDifference`. None has
    `_cdc_unchanged`, and there are no hops and no `truncated_at`.
    """

    target: TargetTable
    key: tuple[str, ...]
    rows: pa.Table
    truncated_at: Lsn | None = None
    #: Target columns named by any `_cdc_unchanged`; with `has_hops`, what the merge must look up.
    unchanged_columns: tuple[str, ...] = ()
    has_hops: bool = False
    staged: tuple[StagedRows, ...] = ()
    soft_deletes: bool = False
    truncated_time: int | None = None
    history: HistoryDifference | None = None


@dataclass(frozen=True, eq=False)
class MultisetMerge:
    """All inserts and deletes of a table without a key, in order.

    `rows` has the target's columns, `METADATA_FIELDS`, `MULTISET_CONTROL_FIELDS`. `_cdc_op` "U"
    adds one row with this content, "D" removes one; `_cdc_ref` is the order. Rows are equal if
    every column of `content` is (NULL equals NULL, NaN equals NaN; 0.0 is not -0.0).

    Let l be the greatest `_cdc_lsn` among the target's rows with a content, and c their count (both
    0 if there are none). Events at or before l are applied already. Counting the others from c,
    never below 0, gives the new count. All copies then get the `_cdc_lsn` of the last event.

    Columns outside `content` are those that the source has dropped: copies in the target keep them.
    With `truncated_at`, target rows whose `_cdc_lsn` is below it are deleted first. `staged` may
    hold more rows with the same columns; `_cdc_ref` orders all of them.
    """

    target: TargetTable
    rows: pa.Table
    content: tuple[str, ...]
    truncated_at: Lsn | None = None
    staged: tuple[StagedRows, ...] = ()


@dataclass(frozen=True)
class Replacement:
    """The whole content of a table: the rows that `Destination.write` has stored under the names in
    `written`.

    `key` is for destinations that lay out a new table by it; it may be empty. Columns of the
    existing table that `target` does not have stay and get their defaults, except those in `gone`
    (None: all of them).

    With `soft_deletes` the table has `DELETED_AT_FIELD` after its other metadata columns, null in
    the new rows. Rows whose key is not among the new ones stay: those that are live are marked as
    deleted at this moment, as in `KeyedMerge`, the others are not changed. Rows without a value for
    the key, because the table had another key, are not kept. In rows that stay, the columns in
    `emptied` become null. If one of them is of the key, which then identifies none of them, no row
    stays. All in one atomic step.

    With `history`, the history tables get the difference, before the table changes.
    """

    target: TargetTable
    written: tuple[str, ...]
    key: tuple[str, ...] = ()
    gone: frozenset[str] | None = frozenset()
    soft_deletes: Moment | None = None
    history: HistoryDifference | None = None
    emptied: frozenset[str] = frozenset()

    @property
    def keeps_rows(self) -> bool:
        """Whether rows of the table stay."""
        return self.soft_deletes is not None and self.emptied.isdisjoint(self.key)

    def has(self, column: str) -> bool:
        """Whether the new content has a column of that name, in any case."""
        names = [*self.target.schema.names, *(field.name for field in METADATA_FIELDS)]
        if self.soft_deletes is not None:
            names.append(DELETED_AT_COLUMN)
        return column.casefold() in {name.casefold() for name in names}

    def keeps(self, column: str) -> bool:
        """Whether the table keeps a column that the new content does not have."""
        return self.gone is not None and column not in self.gone and not self.has(column)


@dataclass(frozen=True)
class ColumnRename:
    """Skipped if the old name is missing or the new one exists: then it was done before.

    Rows of the column in `UNREPRESENTABLE_TABLE` get the new name too.
    """

    table: str
    old: str
    new: str


@dataclass(frozen=True)
class TableRename:
    """Skipped under the same condition as `ColumnRename`."""

    old: str
    new: str


@dataclass(frozen=True)
class ForgetUnrepresentable:
    """Remove the rows of a table from `UNREPRESENTABLE_TABLE`, some of which rules hide now."""

    table: str


Merge = KeyedMerge | MultisetMerge
Rename = ColumnRename | TableRename
SchemaStep = Rename | ForgetUnrepresentable


UNREPRESENTABLE_TABLE = "_cdc_unrepresentable"
UNREPRESENTABLE_SCHEMA = pa.schema(
    [
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("column_name", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("value_text", pa.string(), nullable=False),
        *METADATA_FIELDS,
    ]
)


@dataclass(frozen=True, eq=False)
class LoadBatch:
    """One batch, applied in this order: steps, history, replacements and merges, checkpoint.

    Within `history`, values for the same table are applied in order. Each replacement and merge
    writes its own `history` before its table.
    """

    merges: tuple[Merge, ...] = ()
    steps: tuple[SchemaStep, ...] = ()
    history: tuple[HistoryStep, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    #: Rows of `UNREPRESENTABLE_SCHEMA`.
    unrepresentable: tuple[pa.Table | StagedRows, ...] = ()


EMPTY_BATCH = LoadBatch()
