"""History tables: the log of every change, and the versions of every row (SCD type 2).

Both are written before the table that they belong to, in the same load, in the order of
`LoadBatch.history`. Each value below is one atomic statement, and applying it again changes
nothing. A run that was killed can leave history that its checkpoint does not cover. The next run
reads the same events again, perhaps in other batches, and numbers them in the same way.

An *image* is a row of the log. The images numbered below n that are *live*:

- with a key: each key's last image, if it is an `insert` or an `update_postimage`;
- without: each content of the table's columns as often as it has more inserts and postimages than
  deletes and preimages. Contents are equal as in `MultisetMerge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.target_table import StagedRows, TargetTable

#: What an image is.
INSERT, DELETE_IMAGE = "insert", "delete"
PREIMAGE, POSTIMAGE = "update_preimage", "update_postimage"

#: Columns of a log, after the table's own. `_pg_xid` is null in the images of a full load.
CHANGE_TYPE_COLUMN, SORT_COLUMN = "_pg_change_type", "_sort_by"
LOG_FIELDS = (
    pa.field(CHANGE_TYPE_COLUMN, pa.string(), nullable=False),
    pa.field("_pg_lsn", pa.int64(), nullable=False),
    pa.field("_pg_xid", pa.int64()),
    pa.field("_timestamp", pa.timestamp("us", tz="UTC")),
    pa.field(SORT_COLUMN, pa.int64(), nullable=False),
)
#: Columns of a table of versions, after the table's own. A version is current if its end is null.
START_COLUMN, END_COLUMN = "__START_AT", "__END_AT"
START_LSN_COLUMN, END_LSN_COLUMN = "_cdc_lsn", "_cdc_end_lsn"
VERSION_FIELDS = (
    pa.field(START_COLUMN, pa.timestamp("us", tz="UTC")),
    pa.field(END_COLUMN, pa.timestamp("us", tz="UTC")),
    pa.field(START_LSN_COLUMN, pa.int64(), nullable=False),
    pa.field(END_LSN_COLUMN, pa.int64()),
)

#: Control columns of a `LogAppend`, in staging only.
BASE_COLUMN = "_cdc_base"
LOG_CONTROL_FIELDS = (
    pa.field("_cdc_unchanged", pa.string()),
    pa.field(BASE_COLUMN, pa.int64()),
)
#: `_cdc_op` of a `VersionMerge`'s base rows.
BASE = "B"

#: Numbers that a TRUNCATE and the difference of a full load keep for their images.
TRUNCATE_NUMBERS = 1 << 36
DIFFERENCE_NUMBERS = 1 << 40


def log_of(target: str) -> str:
    """Return the name of a table's log."""
    return f"{target}_history"


def versions_of(target: str) -> str:
    """Return the name of a table's versions."""
    return f"{target}_scd2"


@dataclass(frozen=True)
class Moment:
    """A commit, or a snapshot: its LSN, and its time in microseconds since 1970-01-01 UTC."""

    lsn: Lsn
    committed_at: int


@dataclass(frozen=True, eq=False)
class LogAppend:
    """Images of events, for the log `name` of `table`. Creates the log if it is missing.

    `rows` has the table's columns, `LOG_FIELDS` and `LOG_CONTROL_FIELDS`, ordered by `_sort_by`
    from `first` on. `staged` are more such rows. An image is written if the log has one with its
    `_sort_by`; all others are inserted.

    `_cdc_unchanged` lists the table's columns whose values are not in the row, as `.3.17.`
    (positions in `table.schema`); null for none. `_cdc_base` is then the `_sort_by` of a row of
    this append, the base: its key is in that row. The values are those of the first that exists:

    1. the log's image numbered `_cdc_base`;
    2. the log's last image with the base's key that is numbered from `batch_first` to below
       `_cdc_base`. There is none if `batch_first` equals `first`;
    3. the row of `table` with the base's key, as it is before this load (also if it is marked as
       deleted);
    4. null.

    `unchanged_columns` are the columns that any `_cdc_unchanged` names. A table without a key has
    none.
    """

    name: str
    table: TargetTable
    key: tuple[str, ...]
    rows: pa.Table
    first: int
    batch_first: int
    unchanged_columns: tuple[str, ...] = ()
    staged: tuple[StagedRows, ...] = ()


@dataclass(frozen=True, eq=False)
class LogTruncate:
    """A `delete` of each image that is live below number `first`, for the log `name` of `table`.

    The images are numbered from `first` on, below `first + TRUNCATE_NUMBERS`, in any order. If the
    log has a number in that range, they were written before and nothing is done. A log that does
    not exist has no images. `key` may be empty.
    """

    name: str
    table: TargetTable
    key: tuple[str, ...]
    first: int
    at: Moment
    xid: int | None


@dataclass(frozen=True, eq=False)
class VersionMerge:
    """New versions of rows, for the table of versions `name` of `table`, which has a key.

    `rows` has the table's columns, `METADATA_FIELDS`, `KEYED_CONTROL_FIELDS`. `staged` are more
    such rows. At most one row per key and `_cdc_lsn` has `_cdc_op` "U" or "D": the state of the key
    after the transaction that committed at `_cdc_lsn`.

    With `truncated`, every current version whose `_cdc_lsn` is below it ends there, before the
    rows count. Then, for each key, in the order of `_cdc_lsn`:

    - The version that begins before the first row of the key ends at that row, if it is current.
    - "U" begins a version, unless one with this key and `_cdc_lsn` exists. It ends at the key's
      next row, if there is one; an existing version only gets an end if it is current.
    - "D" only ends the version before it.

    `_cdc_unchanged` lists the columns whose values are not in a "U" row, as in `KeyedMerge`. They
    are those of the base: `_cdc_ref` numbers these rows, and a row with `_cdc_op` "B" and the same
    number has the base's key and an LSN in `_cdc_lsn`. The base is the version of that key with the
    greatest `_cdc_lsn` below this LSN, as it is before this merge. If there is none, the values are
    null. Several "U" rows may refer to one "B" row. "B" rows count for nothing else.
    """

    name: str
    table: TargetTable
    key: tuple[str, ...]
    rows: pa.Table
    truncated: Moment | None = None
    unchanged_columns: tuple[str, ...] = ()
    staged: tuple[StagedRows, ...] = ()


HistoryStep = LogAppend | LogTruncate | VersionMerge
"""A step of `LoadBatch.history`."""


@dataclass(frozen=True)
class HistoryDifference:
    """How rows that are read, not streamed, appear in the history of their table.

    The new rows are those of the `Replacement` or `KeyedMerge` that has this value. Of a merge, the
    history of its own keys alone is compared: "U" is the new row of the key, "D" means that the key
    has none.

    `log` names the log. The difference between its live images and the new rows is added, all at
    `at` and without `_pg_xid`: an `insert` for a new key, a `delete` for a key that is gone, a
    preimage and a postimage for a key with other values. Without a key (`key` of the `Replacement`
    is empty) contents are counted: deletes and inserts. The images are numbered from `first` on,
    below `first + DIFFERENCE_NUMBERS`, in any order, except that a preimage has the number before
    its postimage. `first` is greater than every number in the log.

    `versions` names the table of versions. Each current version whose content is not among the
    new rows ends at `at`; each new row whose content is not among the current versions begins one
    there. Of a merge, only current versions with its keys count.

    Contents are compared in the columns of the target, as in `MultisetMerge`. Both tables are
    created if they are missing.
    """

    at: Moment
    log: str | None = None
    first: int = 0
    versions: str | None = None
