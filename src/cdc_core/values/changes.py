"""Row changes as columns: what the stream says about one table, without an object per row.

Order is (commit LSN, ordinal in the transaction); within a `TableChanges` the row index is that
order. NULL, unchanged TOAST and a value are three things: a NULL is null in Arrow, an unchanged
TOAST value is marked in `unchanged` (and null in `rows`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Relation


class Op(IntEnum):
    """What a row of a `TableChanges` does. The values are pgoutput's message bytes."""

    INSERT = ord("I")
    UPDATE = ord("U")
    DELETE = ord("D")
    TRUNCATE = ord("T")


@dataclass(frozen=True, slots=True)
class Operations:
    """Number of changes of each kind."""

    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    truncates: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            self.inserts + other.inserts,
            self.updates + other.updates,
            self.deletes + other.deletes,
            self.truncates + other.truncates,
        )


@dataclass(frozen=True, eq=False)
class TableChanges:
    """Changes of one relation under one schema version, `n` of them, oldest first.

    - `rows`: Arrow table of n rows with exactly those of the relation's columns that are read. A
      DELETE has its key columns (every column under REPLICA IDENTITY FULL), the rest null. A
      TRUNCATE row is all null.
    - An UPDATE never changes the key: one that does arrives as DELETE of the old key followed by an
      UPDATE of the new one, whose `moved_from` is the index of that DELETE (-1 for all other rows).
    - Of a relation without key (a multiset) an update is a DELETE of the old row and an INSERT,
      whose `moved_from` is the index of that DELETE.
    - `op` uint8, `commit_lsn` uint64, `committed_at` int64 (microseconds since 1970-01-01 UTC),
      `xid` uint32 (of the top-level transaction).
    - `unchanged`: column name -> bool mask of rows whose value the source did not send.
    """

    relation: Relation
    rows: pa.Table
    op: npt.NDArray[np.uint8]
    commit_lsn: npt.NDArray[np.uint64]
    committed_at: npt.NDArray[np.int64]
    xid: npt.NDArray[np.uint32]
    moved_from: npt.NDArray[np.int64]
    unchanged: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    #: Values that their Arrow type cannot hold, null in `rows`.
    unrepresentable: tuple[Unrepresentable, ...] = ()

    def __len__(self) -> int:
        return len(self.op)

    def between(self, start: int, stop: int) -> TableChanges:
        """Return the changes from `start` to before `stop`, without their unrepresentable values.

        No update that has two rows may begin before `start`.
        """
        moved = self.moved_from[start:stop]
        return TableChanges(
            relation=self.relation,
            rows=self.rows.slice(start, stop - start),
            op=self.op[start:stop],
            commit_lsn=self.commit_lsn[start:stop],
            committed_at=self.committed_at[start:stop],
            xid=self.xid[start:stop],
            moved_from=np.where(moved >= 0, moved - start, -1),
            unchanged={name: mask[start:stop] for name, mask in self.unchanged.items()},
        )

    @property
    def operations(self) -> Operations:
        """An update counts as one, also of the key and of a row without a key."""
        of = np.bincount(self.op, minlength=Op.UPDATE + 1)
        moved = self.moved_from >= 0
        new = int(np.count_nonzero(moved & (self.op == Op.INSERT)))
        return Operations(
            int(of[Op.INSERT]) - new,
            int(of[Op.UPDATE]) + new,
            int(of[Op.DELETE]) - int(np.count_nonzero(moved)),
            int(of[Op.TRUNCATE]),
        )


@dataclass(frozen=True, slots=True)
class Unrepresentable:
    """A value that its destination type cannot hold: `text` is PostgreSQL's own, exact.

    `row` is the index in the rows it came with; `repr` shows neither key nor value.
    """

    column: str
    row: int
    text: str = field(repr=False)


@dataclass(frozen=True, eq=False)
class ChangeBatch:
    """Whole transactions, in commit order; or, not `complete`, a part of such a batch that is too
    large to be held: what comes next, up to and with a complete one, belongs to the same batch.

    `tables` holds the changes of each relation in order, in one `TableChanges` or several: one at
    least for each schema version. `end_lsn` is the position to confirm once the batch is durable:
    the end of its last transaction, or for a batch without changes a position before which nothing
    is left to send; of a part it means nothing. `wire_bytes` counts what was read, for progress.
    """

    tables: Sequence[TableChanges]
    end_lsn: Lsn
    last_commit_lsn: Lsn | None = None
    last_committed_at: int | None = None
    transactions: int = 0
    wire_bytes: int = 0
    complete: bool = True

    @property
    def changes(self) -> int:
        return sum(len(table) for table in self.tables)
