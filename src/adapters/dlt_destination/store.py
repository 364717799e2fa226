"""Where tables are kept: what one kind of table store does in its own way, the rest being common.

A store has no state of a run. Every call gets `client`, dlt's job client for the dataset, opened;
it brings credentials, names and connections that dlt's configuration found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from adapters.dlt_destination.table_steps import Run, StagedReplacement, Step
    from cdc_core.values.errors import CdcError
    from cdc_core.values.merges import SchemaStep, TargetTable
    from cdc_core.values.naming import TableNaming


#: The only column of the table that `TableStore.try_writing` makes and drops.
PROBE_COLUMN = "written"


def probe_name() -> str:
    """Return a name for that table: no other check uses it, and no list of tables shows it."""
    return f"_dlt_write_test_{uuid4().hex[:12]}"


@dataclass(frozen=True)
class Refusal:
    """Why a table was refused, in one line without a row's values. `common`: a cause that tables
    have together, such as a privilege; when all are refused for it, it is none of theirs alone."""

    why: str
    common: bool = False


class TableStore(Protocol):
    """One kind of destination. Names are exact; a change of a table is one atomic step."""

    #: What errors call it, and where its settings are.
    kind: str
    section: str
    #: What a table cannot be called.
    naming: TableNaming

    def factory(self, run: Run) -> Any:
        """dlt's destination factory, whose clients know the run."""
        ...

    def columns(self, client: Any) -> MutableMapping[str, pa.Schema]:
        """Columns of every table in the dataset, dlt's own left out; {} for no dataset.

        A column of a foreign type has the type `null`.
        """
        ...

    def current(self, client: Any, table: str) -> pa.Schema | None:
        """Columns of a table as they are at this moment, which `columns` may show later; None for
        no table."""
        ...

    def make_fit(self, client: Any, replacement: StagedReplacement) -> None:
        """Before its rows are read: change the table's definition, where it can be kept, so that
        the replacement fits it. Nothing for a table that is not there."""
        ...

    def create(self, client: Any, target: TargetTable, key: Sequence[str]) -> None:
        """Create an empty table with the target's columns and the metadata columns."""
        ...

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None: ...

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Give existing columns a wider type."""
        ...

    def rename_column(self, client: Any, table: str, old: str, new: str) -> None: ...

    def rename_table(self, client: Any, old: str, new: str) -> None: ...

    def rename_cells(self, client: Any, rename: SchemaStep) -> None:
        """Have the table of unrepresentable values name the table or column as it will be."""
        ...

    def fill(self, client: Any, replacement: StagedReplacement, rows: pa.RecordBatchReader) -> bool:
        """Replace the whole table by rows as they come, in one step; they have the metadata
        columns. False, and no row taken, where this kind of store takes files only."""
        ...

    def keep(self, client: Any, name: str, files: Sequence[Path]) -> None:
        """Take the files, durably and out of sight; they are found under the name."""
        ...

    def kept(self, client: Any) -> Mapping[str, Sequence[str]]:
        """Places of the files that are kept, by name; names of which a file is missing left out.
        A step that has them reads them there."""
        ...

    def forget_kept(self, client: Any) -> None:
        """Remove all that is kept."""
        ...

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        """Bring the steps into the table, in order. May run beside other tables' in a thread."""
        ...

    def count(self, client: Any, tables: Sequence[str]) -> dict[str, int]: ...

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]: ...

    def try_writing(self, client: Any, file: Path) -> None:
        """Do with a table of its own what a load does: make it, write the file's row, drop it.

        Leaves neither table nor dataset nor volume that was not there. Raises what a load would.
        """
        ...

    def drop(self, client: Any) -> list[str]:
        """Drop what the dataset and its staging dataset hold; names of what there was."""
        ...

    def volumes(self, client: Any) -> Mapping[str, Sequence[str]] | None: ...

    def close(self) -> None:
        """Let go of what was kept for the run; the store can be used again."""
        ...

    def failure(self, error: BaseException, where: str) -> CdcError:
        """The error for people: what kind it is, without a row's values."""
        ...

    def refusal(self, error: BaseException) -> Refusal | None:
        """What a definition or row of a single table was refused for; None for anything else."""
        ...
