"""What a destination is asked to apply to one of its tables, already folded.

Two shapes of change (`KeyedMerge`, `MultisetMerge`) and one of a full load (`Replacement`).
Applying
any of them twice, or after a later one, leaves the table as applying it once in order: the guard is
each target row's `_cdc_lsn`, the commit LSN of the last change that made it. A row without one,
which somebody else wrote, is older than any change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdc_core.values.lsn import Lsn

#: Metadata columns of every destination table, after the table's own.
LSN_COLUMN = "_cdc_lsn"
COMMITTED_AT_COLUMN = "_cdc_committed_at"
METADATA_FIELDS = (
    pa.field(LSN_COLUMN, pa.int64(), nullable=False),
    pa.field(COMMITTED_AT_COLUMN, pa.timestamp("us", tz="UTC")),
)

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

UPSERT, DELETE, HOP = "U", "D", "H"


@dataclass(frozen=True)
class TargetTable:
    """A destination table: its name there and its own columns, metadata columns left out."""

    name: str
    schema: pa.Schema


class StagedRows(Protocol):
    """Rows that wait at the destination, out of memory, until a load names them."""

    def __len__(self) -> int: ...

    def read(self) -> pa.Table:
        """The rows as they were staged."""
        ...


@dataclass(frozen=True, eq=False)
class KeyedMerge:
    """At most one final change per key.

    More rows of the same columns may be in `staged`, of other keys.

    `rows` has the target's columns, `METADATA_FIELDS`, `KEYED_CONTROL_FIELDS`:

    - `_cdc_op` = "U": the key's row becomes this one, unless the target's row has a `_cdc_lsn` at
      or
      past this row's. `_cdc_unchanged` names the target columns whose value the source did not
      send,
      as `.3.17.` (positions in `target.schema`); null for none. Their value is the target row's
      own,
      or, where hops refer to this row, that of the latest hop which the target still holds.
    - "D": the key's row goes, under the same guard.
    - "H": a hop; its key is an earlier key of the row numbered `_cdc_ref`, and counts only if the
      target's row under that key has a `_cdc_lsn` at or past the hop's (the first hop has 0).
      `_cdc_ref` numbers the "U" rows that have hops; null elsewhere.

    With `truncated_at`, target rows whose `_cdc_lsn` is below it go first.
    """

    target: TargetTable
    key: tuple[str, ...]
    rows: pa.Table
    truncated_at: Lsn | None = None
    #: Target columns named by any `_cdc_unchanged`; with `has_hops`, what the merge must look up.
    unchanged_columns: tuple[str, ...] = ()
    has_hops: bool = False
    staged: tuple[StagedRows, ...] = ()


@dataclass(frozen=True, eq=False)
class MultisetMerge:
    """Inserts and deletes of a table without a key, every one of them, in order.

    `rows` has the target's columns, `METADATA_FIELDS`, `MULTISET_CONTROL_FIELDS`. `_cdc_op` "U" is
    one row more of that content, "D" one less; `_cdc_ref` is the order. Rows are equal when every
    column of `content` is (NULL equals NULL, NaN equals NaN; 0.0 is not -0.0). Let l be the
    greatest `_cdc_lsn` among the target's rows of a content and c their count (0 when absent, and
    then l = 0). Events at or before l are applied already; walking the others from c, never below
    0, gives the new count; all copies then carry the `_cdc_lsn` of the content's last event.
    Columns outside `content` are those that the source has dropped: copies in the target keep them.
    With `truncated_at`, target rows whose `_cdc_lsn` is below it go first. More rows of the same
    columns may be in `staged`; `_cdc_ref` orders all.
    """

    target: TargetTable
    rows: pa.Table
    content: tuple[str, ...]
    truncated_at: Lsn | None = None
    staged: tuple[StagedRows, ...] = ()


@dataclass(frozen=True, eq=False)
class Replacement:
    """The whole content of a table.

    `rows` yields tables of the target's columns + `METADATA_FIELDS`; what the destination keeps
    under the names `kept` comes on top. `key` is for destinations that lay out a new table by it;
    may be empty. Columns that only the table before had stay, and are left out of what is written,
    so that they get their defaults; but for those that are `gone` (None: all of them).
    """

    target: TargetTable
    rows: Iterable[pa.Table]
    key: tuple[str, ...] = ()
    gone: frozenset[str] | None = frozenset()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnRename:
    """Done unless the old name is missing or the new one is there: then it was done before.

    The cells of the column in `UNREPRESENTABLE_TABLE` take the name too.
    """

    table: str
    old: str
    new: str


@dataclass(frozen=True)
class TableRename:
    """Done under the same condition as `ColumnRename`."""

    old: str
    new: str


Merge = KeyedMerge | MultisetMerge
SchemaStep = ColumnRename | TableRename


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
    """Everything of one batch: applied in the order steps, replacements and merges, checkpoint."""

    merges: tuple[Merge, ...] = ()
    steps: tuple[SchemaStep, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    #: Rows of `UNREPRESENTABLE_SCHEMA`.
    unrepresentable: tuple[pa.Table | StagedRows, ...] = ()


EMPTY_BATCH = LoadBatch()
