"""The destination: a dataset, its staging dataset, and the checkpoint next to the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cdc_core.ports.run_log import RunLog

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.merges import LoadBatch, StagedRows, TargetTable
    from cdc_core.values.naming import TableNaming
    from cdc_core.values.row_files import RowFiles


class Destination(RunLog, Protocol):
    """Open it (as a context manager) before use; opening removes whatever a killed run left.

    All calls come from one thread. A call changes each table in one atomic step: a reader sees the
    table before or after it, never in between.
    """

    @property
    def naming(self) -> TableNaming:
        """Which table names it does not accept; known without opening."""
        ...

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:
        """Return the name of the type that a column gets in a table; known without opening.

        `variant`: it is one of `TargetTable.variants`.
        """
        ...

    def __enter__(self) -> Destination: ...

    def __exit__(self, *exc: object) -> None: ...

    def read_checkpoint(self) -> Checkpoint | None:
        """Return the last checkpoint that `load` made durable; None before the first."""
        ...

    def stage(self, rows: pa.Table) -> StagedRows:
        """Store rows of a batch that is too large for memory until the next `load` has ended.

        That load may name them in its merges; rows that it does not name are removed. An iterator
        that provides the rows of a `write` may also stage rows.
        """
        ...

    def write(self, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:
        """Store rows under `name` for a later `Replacement`. Returns the row count.

        `rows` yields tables with the target's columns and `METADATA_FIELDS`. The stored rows are in
        no table. They wait for the next `load` that succeeds. That load removes them, unless its
        checkpoint names them in `reading`: those are durable when it returns, and stay until a load
        whose checkpoint does not name them. Rows that no durable checkpoint names do not outlive
        the run.

        Rows stored before under the same name are replaced. An error that `rows` raises is passed
        on, and nothing is stored. `name` consists of letters, digits, `-` and `_`.
        """
        ...

    def shared_folder(self, name: str) -> str:
        """Return the path of a new folder, which need not exist yet, for files of rows `name`.

        Others can write there, on whichever machine this path leads to the same folder. It stays
        until the next `load` has ended, or as long as the rows stored from it.
        """
        ...

    def store_files(self, name: str, target: TargetTable, files: RowFiles) -> None:
        """Store the rows of files in a shared folder under `name`, as `write` does."""
        ...

    def stage_files(self, files: RowFiles) -> Sequence[StagedRows]:
        """Stage files in a shared folder that have rows of `UNREPRESENTABLE_SCHEMA`."""
        ...

    def written(self) -> frozenset[str]:
        """Return the names under which rows are stored completely."""
        ...

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        """Apply the batch, then the checkpoint; return only when both are durable.

        The history of a table (`cdc_core.values.history`) is written before the table, in steps of
        its own; some of it may remain after an error. Missing tables and columns are created.
        Columns that the batch does not have stay, and are NULL in the rows written. After
        `DestinationUnavailable` or `DestinationFailed`, some tables of the batch may be applied and
        others not; the checkpoint is the previous one until the same changes are loaded again.
        Raises `DestinationRefused` if the destination refuses the definitions or rows of single
        tables; it checks definitions before it accepts rows. After an error, the same run can load
        the same replacements again.
        """
        ...

    def columns(
        self, tables: Collection[str], *, current: bool = False
    ) -> Mapping[str, Sequence[str]]:
        """Return the columns (metadata columns too) of those of these tables that exist.

        The answer may be out of date, unless it has to be `current`; that may take a query for each
        table.
        """
        ...

    def last_numbers(self, logs: Collection[str]) -> Mapping[str, int]:
        """Return the greatest `_sort_by` of each of these logs that exists and has images."""
        ...

    def marked_rows(self, tables: Collection[str]) -> Mapping[str, int]:
        """Return how many rows of each of these tables are marked as deleted. The tables have soft
        deletes; the result omits those that do not exist."""
        ...

    def tables(self) -> Mapping[str, int]:
        """Return the row count of each table in the dataset, by name, without dlt's own tables and
        those of `RunLog`."""
        ...

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of a table in chunks of limited size, in no order; none if it does not
        exist."""
        ...

    def try_writing(self) -> None:
        """Check the privileges that a run needs: create a table, write to it, drop it.

        Leaves nothing behind, including datasets and volumes. Raises as `load` does.
        """
        ...

    def drop(self) -> Sequence[str]:
        """Drop dataset, staging dataset, volumes and local state; return what was dropped, in
        words."""
        ...

    def volumes(self) -> Mapping[str, Sequence[str]] | None:
        """Return the staging volumes and their files; None if the destination has no volumes."""
        ...
