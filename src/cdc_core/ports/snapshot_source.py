"""A consistent reading of whole tables at one LSN of the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from cdc_core.values.changes import Unrepresentable
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Relation


#: All of a table, as a part of it.
WHOLE = ""


class RowsRead(Protocol):
    """A piece of a table: `rows` has the relation's columns and Arrow types; values that their
    type cannot hold are null and listed."""

    @property
    def rows(self) -> pa.Table: ...

    @property
    def unrepresentable(self) -> tuple[Unrepresentable, ...]: ...


class Snapshot(Protocol):
    """An open snapshot; sees every commit at or before `lsn` and none after it."""

    @property
    def lsn(self) -> Lsn: ...

    @property
    def taken_at(self) -> int:
        """Microseconds since 1970-01-01 UTC, by the source's clock."""
        ...

    @property
    def horizon(self) -> int:
        """Every transaction of the source that is numbered lower had ended before this."""
        ...

    def parts(self, relation: Relation, read: Collection[str] = ()) -> Sequence[str]:
        """The parts in which a table is best read, in order; one, `WHOLE`, for a small one.

        With those of an earlier snapshot that need not be read again: what is beside them.
        """
        ...

    def unchanged(self, relation: Relation, part: str, rows: int, horizon: int) -> bool:
        """Whether a part has the very rows here that a snapshot of that horizon read in it, `rows`
        of them. Says no where it cannot know; the definition of the table is the caller's."""
        ...

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        """These parts will be read, in this order: their reading may begin, within bounds."""
        ...

    def read(self, relation: Relation, part: str = WHOLE) -> Iterator[RowsRead]:
        """The rows of a table, or of its part, in pieces of bounded size, each row once.

        A table is locked, ACCESS SHARE, only while rows of it are fetched: its definition may
        change between two pieces, and it may be emptied. Only the catalog tells, before and after
        (see `schema_change.redefined`).

        A table may be read again, and gives the same rows; a reading that is left early ends the
        snapshot. One that fails does not, but nothing is expected any more. Raises
        `OperatorNeeded` where reading is not allowed, `CdcError` for a table that is gone.
        """
        ...


class SnapshotSource(Protocol):
    def begin(self, *, create_slot: bool) -> AbstractContextManager[Snapshot]:
        """Open a snapshot that fits the stream exactly.

        With `create_slot` the slot is created, and its consistent point is the snapshot's LSN; a
        slot that exists is `OperatorNeeded` then, and the new one stays however the block ends.
        Without, a temporary slot gives the LSN and dies with the snapshot; no other slot moves.
        """
        ...
