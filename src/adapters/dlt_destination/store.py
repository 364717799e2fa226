"""The contract of a table store: what each kind of destination does in its own way.

Every call gets `client`, dlt's open job client for the dataset. It carries the credentials, names
and connections that dlt's configuration found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import pyarrow as pa

    from adapters.dlt_destination.run import Run
    from adapters.dlt_destination.settings import PipelineSettings
    from adapters.dlt_destination.table_steps import FilesOfWorkers, Step
    from cdc_core.values.errors import CdcError
    from cdc_core.values.merges import Rename, Replacement, TargetTable
    from cdc_core.values.naming import TableNaming
    from cdc_core.values.row_files import RowFiles
    from cdc_core.values.runs import RunReceipt, RunTable
    from cdc_core.values.table_rules import ClusterBy


#: The only column of the table that `TableStore.try_writing` makes and drops.
PROBE_COLUMN = "written"


def probe_name() -> str:
    """Return a name for that table: no other check uses it, and no list of tables shows it."""
    return f"_dlt_write_test_{uuid4().hex[:12]}"


@dataclass(frozen=True)
class Refusal:
    """Why a table was refused, in one line without values of a row. `common`: the cause can affect
    several tables at once, such as a missing privilege. If it refuses all tables, the run fails
    instead of setting each table aside."""

    why: str
    common: bool = False


class Dataset(Protocol):
    """A dataset that is read and written, with or without dlt."""

    @property
    def begins(self) -> bool:
        """Whether the dataset has no checkpoint yet."""
        ...

    def checkpoint(self) -> Mapping[str, Any] | None: ...

    def store(self, checkpoint: Mapping[str, Any]) -> None:
        """Make the checkpoint durable, as dlt pipeline state."""
        ...

    def client(self) -> Any:
        """Return a job client, or something like it, not yet opened."""
        ...


class StoredReceipts(Protocol):
    """Both methods as in `cdc_core.ports.run_log.RunLog`."""

    def write_receipt(
        self, receipt: RunReceipt, tables: Sequence[RunTable], forget_before: datetime | None
    ) -> None: ...

    def receipts(self, limit: int) -> Sequence[RunReceipt]: ...


class SharedFolders(Protocol):
    """The part of a store whose statements read files that workers of a cluster have written."""

    def shared_folder(self, client: Any, name: str) -> str:
        """As `Destination.shared_folder`."""
        ...

    def take_files(self, client: Any, name: str, files: RowFiles) -> None:
        """Store `files` under `name`, as `TableStore.write` does."""
        ...

    def stage_files(self, client: Any, files: RowFiles) -> FilesOfWorkers:
        """As `Destination.stage_files`."""
        ...


class TableStore(Protocol):
    """One kind of destination. Names are exact; a change of a table is one atomic step."""

    #: The name in error messages, and the section of the settings.
    kind: str
    section: str
    #: Names that a table cannot have.
    naming: TableNaming

    @property
    def shared(self) -> SharedFolders | None:
        """None if statements cannot read files that workers have written. This process then reads
        them and writes their rows like any others."""
        ...

    @property
    def statements(self) -> int:
        """Return how many statements were sent so far, or commits were made."""
        ...

    def factory(self, run: Run) -> Any:
        """Return dlt's destination factory; its clients know the run."""
        ...

    def without_dlt(self, settings: PipelineSettings) -> Dataset | None:
        """Return the dataset if this store can open it without dlt, whose import takes long; None:
        only dlt can. The store gets the clients of such a dataset in its calls, except in
        `try_writing`, `drop` and `volumes`."""
        ...

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:
        """Return the name of the type that a column gets; `variant`: JSON in a type of its own."""
        ...

    def columns(self, client: Any) -> MutableMapping[str, pa.Schema]:
        """Return the columns of every table in the dataset except dlt's own; {} without a dataset.

        A column whose type this library never writes gets the type `null`.
        """
        ...

    def current(self, client: Any, table: str) -> pa.Schema | None:
        """Return the columns of a table at this moment; None if it does not exist. `columns` can
        lag behind."""
        ...

    def make_fit(self, client: Any, replacement: Replacement) -> None:
        """Change the table's definition so that the replacement fits, if the table can be kept.
        This happens before any table is replaced. Does nothing for a table that does not exist."""
        ...

    def create(
        self, client: Any, table: str, fields: Sequence[pa.Field], cluster_by: ClusterBy
    ) -> None:
        """Create an empty table with these columns."""
        ...

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None: ...

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Give existing columns a wider type."""
        ...

    def rename_column(self, client: Any, table: str, old: str, new: str) -> None: ...

    def rename_table(self, client: Any, old: str, new: str) -> None: ...

    def forget_unrepresentable(self, client: Any, table: str) -> None:
        """Remove a table's rows from the table of unrepresentable values."""
        ...

    def rename_unrepresentable(self, client: Any, rename: Rename) -> None:
        """Change the name of the table or column in the table of unrepresentable values."""
        ...

    def write(self, client: Any, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:
        """Store rows under `name`, where no reader of tables sees them, until `forget`; return
        their number. They need not outlive the run. If `rows` raises, its error is passed on."""
        ...

    def make_durable(self, client: Any, names: Collection[str]) -> None:
        """Make sure that stored rows outlive the run."""
        ...

    def written(self, client: Any) -> Collection[str]:
        """Return the names of the rows that are stored completely."""
        ...

    def forget(self, client: Any, names: Collection[str]) -> None:
        """Delete the rows stored under these names, if there are any."""
        ...

    def sweep(self, client: Any, needed: Collection[str]) -> None:
        """Delete everything that a killed run left, except the rows stored under the names
        `needed`. Called once in a run, before anything is written."""
        ...

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        """Apply the steps to the table, in order. Other threads can apply those of other tables.

        A load that failed is repeated: steps that were applied before change nothing."""
        ...

    def count(self, client: Any, tables: Sequence[str], column: str = "") -> dict[str, int]:
        """Return how many rows each table has, or how many values in a column: nulls do not
        count."""
        ...

    def greatest(self, client: Any, table: str, column: str) -> int | None:
        """Return the greatest value of an integer column; None if the table has no rows."""
        ...

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]: ...

    def run_log(self, client: Any) -> StoredReceipts:
        """Return the receipts of a dataset that exists."""
        ...

    def try_writing(self, client: Any, file: Path) -> None:
        """Do what a load does, on a table of its own: create it, write the file's row, drop it.

        Leaves no table, dataset or volume behind. Raises the same errors as a load.
        """
        ...

    def drop(self, client: Any) -> list[str]:
        """Drop the dataset and its staging dataset; return the names of what was dropped."""
        ...

    def volumes(self, client: Any) -> Mapping[str, Sequence[str]] | None: ...

    def close(self) -> None:
        """Release what the store holds for the run. The store can be used again."""
        ...

    def failure(self, error: BaseException, where: str) -> CdcError:
        """Return the error to show to the user, without values of a row."""
        ...

    def refusal(self, error: BaseException) -> Refusal | None:
        """Return why one table's definition or row was refused; None for any other error."""
        ...


class StoreDefaults:
    """What a simple store does: it prepares no replacement, has no volumes, keeps nothing open, and
    refuses no single table."""

    def make_fit(self, client: Any, replacement: Replacement) -> None:
        pass

    def volumes(self, client: Any) -> None:  # noqa: ARG002
        return None

    def close(self) -> None:
        pass

    def refusal(self, error: BaseException) -> Refusal | None:  # noqa: ARG002
        return None
