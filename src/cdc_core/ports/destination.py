"""Where tables end up: a dataset, its staging dataset, and the checkpoint beside the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.merges import LoadBatch, StagedRows, TargetTable
    from cdc_core.values.naming import TableNaming


class Destination(Protocol):
    """Opened (as a context manager) before use; opening starts clean of whatever a killed run left.

    Calls come from one thread. Each table changes by one atomic step per call, so that a reader
    sees it before or after, never between.
    """

    @property
    def naming(self) -> TableNaming:
        """What a table cannot be called there; known without opening."""
        ...

    def __enter__(self) -> Destination: ...

    def __exit__(self, *exc: object) -> None: ...

    def read_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint that `load` made durable; None before the first."""
        ...

    def stage(self, rows: pa.Table) -> StagedRows:
        """Keep rows of a batch that is too large for memory, until the next `load`, which may name
        them in its merges, has ended. What is not named there is gone.

        May also be called by what gives a `load` or `keep` its rows: until the load after it."""
        ...

    def keep(self, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:
        """Keep rows for a `Replacement` that names them, of this run or of a later one; how many.

        They are durable, in no table, and stay until a load whose checkpoint has no `reading`.
        `name` is of letters, digits, `-` and `_`.
        """
        ...

    def kept(self) -> frozenset[str]:
        """Names of what is kept, whole."""
        ...

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        """Apply the batch, then the checkpoint; return only when both are durable.

        Tables and columns that are missing are created; columns that the batch does not have stay
        and are NULL in rows written. Raises `DestinationUnavailable` or `DestinationFailed`: some
        tables of the batch may then be applied and others not, and the checkpoint is the one
        before, until the same changes are loaded again. Raises `DestinationRefused` where it is the
        definitions or rows of single tables that are refused: definitions before rows are taken.
        """
        ...

    def columns(
        self, tables: Collection[str], *, current: bool = False
    ) -> Mapping[str, Sequence[str]]:
        """Columns, metadata too, of those of these tables that the dataset has: as they were a
        while ago, or, `current`, as they are, which may take a question for each table."""
        ...

    def tables(self) -> Mapping[str, int]:
        """Rows of each table in the dataset by name, dlt's own left out."""
        ...

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Rows of a table in pieces of bounded size, in no order; nothing for a table that is
        missing."""
        ...

    def try_writing(self) -> None:
        """Find out whether what a run does would be allowed: make a table, write to it, drop it.

        Leaves nothing behind, nor a dataset or a volume that was not there. Raises as `load`.
        """
        ...

    def drop(self) -> Sequence[str]:
        """Drop dataset, staging dataset, volumes and local state; what was dropped, for people."""
        ...

    def volumes(self) -> Mapping[str, Sequence[str]] | None:
        """Staging volumes and the files in them; None where the destination has no volumes."""
        ...
