"""A consistent view of whole tables at one LSN of the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from cdc_core.values.changes import Unrepresentable
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Relation
    from cdc_core.values.row_files import WrittenFiles


#: The page range that is the whole table.
WHOLE = ""


class RowChunk(Protocol):
    """Some rows of a table, with the columns of the relation that are read, and their Arrow types.

    A column whose rule reads text has PostgreSQL's own text. Values that their type cannot hold are
    null in `rows` and listed in `unrepresentable`."""

    @property
    def rows(self) -> pa.Table: ...

    @property
    def unrepresentable(self) -> tuple[Unrepresentable, ...]: ...


class LaidOutRows(Protocol):
    """How rows are laid out for their target, under the rules of columns. Can be pickled."""

    @property
    def schema(self) -> pa.Schema: ...

    def laid_out(self, chunk: RowChunk) -> tuple[pa.Table, pa.Table]:
        """Return rows of `schema`, and the rows of `UNREPRESENTABLE_SCHEMA` that belong to them."""
        ...


class Snapshot(Protocol):
    """An open snapshot: every commit at or before `lsn` is visible, none after it."""

    @property
    def lsn(self) -> Lsn: ...

    @property
    def taken_at(self) -> int:
        """Microseconds since 1970-01-01 UTC, by the source's clock."""
        ...

    @property
    def horizon(self) -> int:
        """Every transaction of the source numbered below this had ended before the snapshot."""
        ...

    def page_ranges(self, relation: Relation, read: Collection[str] = ()) -> Sequence[str]:
        """Return the page ranges by which to read a table, in order; `WHOLE` for a small one.

        `read` are ranges of an earlier snapshot that need not be read again; the result then covers
        the rest of the table.
        """
        ...

    def unchanged(self, relation: Relation, page_range: str, rows: int, horizon: int) -> bool:
        """Whether a page range has exactly the rows that a snapshot with `horizon` read in it.

        `rows` is their count. Returns False in case of doubt. The caller compares the table's
        definition.
        """
        ...

    def expect(self, ranges: Sequence[tuple[Relation, str]]) -> None:
        """Announce the page ranges to read, in this order, so that a bounded number of them can be
        read ahead."""
        ...

    def read(self, relation: Relation, page_range: str = WHOLE) -> Iterator[RowChunk]:
        """Yield the rows of a table, or of one of its page ranges, in chunks of limited size.

        Each row is in one chunk. The table is locked (ACCESS SHARE) only while its rows are
        fetched. Between two chunks its definition may change and its rows may disappear, so compare
        the catalog before and after (see `schema_change.redefined`).

        A second call yields the same rows. An iterator that is closed early ends the snapshot. One
        that fails does not, but it cancels what was announced by `expect`. Raises `OperatorNeeded`
        without permission to read, `CdcError` for a table that no longer exists.
        """
        ...

    def write_files(
        self,
        relation: Relation,
        page_range: str,
        rows: LaidOutRows,
        new_folder: Callable[[], str],
        /,
    ) -> WrittenFiles | None:
        """Let workers read a page range and write its rows, laid out, in files; return these.

        None if nothing was written: use `read`. `new_folder` is `Destination.shared_folder`; a
        second attempt needs another folder. Locks and errors are those of `read`.
        """
        ...


class SnapshotSource(Protocol):
    def begin(self, *, create_slot: bool) -> AbstractContextManager[Snapshot]:
        """Open a snapshot from which the stream continues exactly.

        With `create_slot` this creates the slot, and the slot's consistent point is the snapshot's
        LSN. The slot stays however the block ends. If it exists already: `OperatorNeeded`.
        Without, a temporary slot gives the LSN and ends with the snapshot; no other slot moves.
        """
        ...
