"""A consistent reading of whole tables at one LSN of the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from cdc_core.changes import Unrepresentable
    from cdc_core.lsn import Lsn
    from cdc_core.relation import Relation


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

    def expect(self, relations: Sequence[Relation]) -> None:
        """These will be read, in this order: their reading may begin, within bounds."""
        ...

    def read(self, relation: Relation) -> Iterator[RowsRead]:
        """The table's rows in pieces of bounded size, each row once; no locks beyond ACCESS
        SHARE.

        A table may be read again, and gives the same rows; a reading that is left early ends the
        snapshot. Raises `OperatorNeeded` where reading is not allowed, `CdcError` for a table that
        is gone.
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
