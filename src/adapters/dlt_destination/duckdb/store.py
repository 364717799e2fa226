"""Tables in a DuckDB file.

The steps of a table are one transaction. DuckDB reads staged rows from their Parquet files.
Sources: DuckDB documentation, "DELETE", "INSERT", "CREATE TABLE", "ALTER TABLE", "Parquet".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import (
    JSON,
    plain,
)
from adapters.dlt_destination.dlt.duckdb_client import OpensFile, absent_file
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.dlt.state_keeping import StateInTables
from adapters.dlt_destination.duckdb import transaction_sql, without_dlt
from adapters.dlt_destination.duckdb.definitions import qualified
from adapters.dlt_destination.duckdb.memory import VECTOR_ROWS, out_of_disk, out_of_memory
from adapters.dlt_destination.duckdb.run_log import DuckDbRunLog
from adapters.dlt_destination.duckdb.stored_rows import RowsInTables
from adapters.dlt_destination.failures import scrubbed
from adapters.dlt_destination.files.bounded_chunks import SCAN_BYTES, SCAN_ROWS, cut, gathered
from adapters.dlt_destination.sql.dialect import DUCKDB
from adapters.dlt_destination.store import Refusal, StoreDefaults, probe_name
from adapters.dlt_destination.table_steps import StagedHistory, StagedMerge, Step
from cdc_core.values.errors import DestinationFailed, DestinationUnavailable, SettingsError
from cdc_core.values.merges import (
    Replacement,
)
from cdc_core.values.naming import ANY_DESTINATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from adapters.dlt_destination.run import Run
    from adapters.dlt_destination.settings import PipelineSettings
    from adapters.dlt_destination.store import Dataset
    from cdc_core.values.errors import CdcError

#: DuckDB's errors for a table to which users added constraints, indexes or columns.
_REFUSING = {"ConstraintException", "DependencyException", "CatalogException", "BinderException"}

#: Arrow's offsets have 32 bits, except in large types.
_USUAL_ARRAY_BYTES = 1 << 31


class DuckDbStore(RowsInTables, StoreDefaults):
    """`credentials` is the file's path, or anything else that dlt accepts; None: dlt's settings."""

    kind = "duckdb"
    section = "destination.duckdb"
    shared = None
    naming = ANY_DESTINATION

    def __init__(self, credentials: Any = None) -> None:
        super().__init__()
        self._credentials = credentials

    def factory(self, run: Run) -> Any:
        from adapters.dlt_destination.dlt.state_factory import state_factory

        return state_factory(
            "duckdb",
            self,
            run,
            (StateInTables, OpensFile),
            keeps_credentials=True,
            credentials=self._credentials,
            destination_name="duckdb",
        )

    def without_dlt(self, settings: PipelineSettings) -> Dataset | None:
        return without_dlt.opened(self._credentials, settings, self.memory)

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:
        return "JSON" if variant else DUCKDB.sql_type(column.type)

    def run_log(self, client: Any) -> DuckDbRunLog:
        return DuckDbRunLog(client)

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        connection = client.sql_client.native_connection
        self.memory.make_room(connection, max(map(_columns, steps), default=0))
        self.memory.within(connection, lambda: self._apply(client, table, steps))
        self.memory.checkpoint(connection)

    def _apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        # A load that failed at another table is repeated: what became this table is in it.
        steps = [step for step in steps if not self.is_done(step)]
        statements = [s for step in steps for s in self._statements(client, table, step)]
        with client.sql_client.begin_transaction():
            for statement in statements:
                self.statements += 1
                client.sql_client.execute_sql(statement)
        self.note_replaced(client, table, steps, statements)

    def _statements(self, client: Any, table: str, step: Step) -> list[str]:
        relation = partial(qualified, client)
        if isinstance(step, Replacement):
            rows = f"({self.rows_of(client, step)})"
            changes = transaction_sql.difference(DUCKDB, step, rows, relation)
            return [*changes, *self.replacement(client, step, rows)]
        staged = _files(step.paths) if step.paths else ""
        looks_up = isinstance(step, StagedHistory)
        held = self.columns_of(client, table).names if looks_up else ()
        return transaction_sql.statements_of(DUCKDB, step, staged, relation, held)

    def count(self, client: Any, tables: Sequence[str], column: str = "") -> dict[str, int]:
        """Count with one query per table: a single query is too deeply nested for many tables, and
        no faster."""
        found = f"COUNT({column or '*'})"
        queries = {table: f"SELECT {found} FROM {qualified(client, table)}" for table in tables}
        # To the end of each result: an unfinished one would block the connection.
        return {table: client.sql_client.execute_sql(sql)[0][0] for table, sql in queries.items()}

    def greatest(self, client: Any, table: str, column: str) -> int | None:
        query = f"SELECT MAX({DUCKDB.quote(column)}) FROM {qualified(client, table)}"
        found: int | None = client.sql_client.execute_sql(query)[0][0]
        return found

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        held = self.columns_of(client, table)
        schema = pa.schema([held.field(name) for name in columns])
        names = ", ".join(
            f"CAST({DUCKDB.quote(f.name)} AS VARCHAR)" if f.type == JSON else DUCKDB.quote(f.name)
            for f in schema
        )
        types = [pa.string() if f.type == JSON else plain(f.type) for f in schema]
        schema = pa.schema(zip(columns, types, strict=True))
        rows = self._rows(client, f"SELECT {names} FROM {qualified(client, table)}")
        for chunk in gathered(rows, SCAN_ROWS, SCAN_BYTES):
            yield chunk.rename_columns(list(columns)).cast(schema)

    def _rows(self, client: Any, query: str) -> Iterator[pa.Table]:
        """Yield rows in the order of the table, so that a query that needs more memory can be
        repeated and continued."""
        connection = client.sql_client.native_connection
        if not self.memory.fixed:
            connection.execute("SET GLOBAL preserve_insertion_order = true")
            # 2,048 strings can exceed the 2 GB that an Arrow string array holds.
            connection.execute("SET GLOBAL arrow_large_buffer_size = true")
        given = 0
        while True:
            before, seen = self.memory.megabytes, 0
            try:
                for chunk in _batches(connection, query):
                    seen += len(chunk)
                    if seen > given:
                        yield chunk.slice(max(0, len(chunk) - (seen - given)))
                        given = seen
            except Exception as error:
                if not self.memory.raised_for(error, connection, before):
                    raise
            else:
                return

    def try_writing(self, client: Any, file: Path) -> None:
        if (absent := absent_file(client)) is not None:
            _try_beside(absent, file)
            return
        # In a transaction that is rolled back: a run that is killed here leaves nothing behind.
        dataset = client.sql_client.fully_qualified_dataset_name()
        connection = client.sql_client.native_connection
        connection.execute("BEGIN")
        try:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {dataset}")
            rows = f"SELECT * FROM {_files([file])}"
            connection.execute(f"CREATE TABLE {qualified(client, probe_name())} AS {rows}")
        finally:
            connection.execute("ROLLBACK")

    def drop(self, client: Any) -> list[str]:
        main = client.sql_client.dataset_name
        dropped = []
        if client.is_storage_initialized():
            client.drop_storage()
            dropped.append(f"dataset {main!r}")
        return dropped

    def refusal(self, error: BaseException) -> Refusal | None:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        return Refusal(scrubbed(error)) if kinds & _REFUSING else None

    def failure(self, error: BaseException, where: str) -> CdcError:
        cause = root_cause(error)
        kinds = {kind.__name__ for kind in type(cause).__mro__}
        if out_of_memory(cause):
            return self._too_large(where)
        if out_of_disk(cause):
            return DestinationUnavailable(
                f"{where}: DuckDB's temporary files, beside the database's, have no room left",
                "free disk space there and run again",
            )
        if kinds & {"IOException", "OSError", "ConnectionException"}:
            # Their text mentions files and locks, never rows.
            return DestinationUnavailable(
                f"{where}: {str(cause).strip()}",
                "make sure that no other process has the file open and that the disk has room; "
                "run again",
            )
        return DestinationFailed(f"{where}: {scrubbed(cause)}", "run again with LOG_LEVEL=DEBUG")

    def _too_large(self, where: str) -> CdcError:
        """The error for rows that need more memory than the limit."""
        if self.memory.fixed:
            return SettingsError(
                f"{where}: rows need more memory than memory_limit in {self.section}.credentials",
                "raise memory_limit there, or leave it out",
            )
        return DestinationUnavailable(
            f"{where}: rows need more memory than DuckDB has here, {self.memory.most} MB",
            "run on a machine with more memory",
        )


def _batches(connection: Any, query: str) -> Iterator[pa.Table]:
    rows = connection.sql(query)
    # DuckDB renamed it in 1.5.
    reader = getattr(rows, "to_arrow_reader", None) or rows.fetch_arrow_reader
    for batch in reader(VECTOR_ROWS):
        chunk = pa.Table.from_batches([batch])
        if chunk.nbytes < _USUAL_ARRAY_BYTES:
            yield chunk
            continue
        # Copied: a slice keeps large offsets, which a string array cannot hold.
        for part in cut(chunk, VECTOR_ROWS, SCAN_BYTES):
            yield part.take(pa.array(range(len(part))))


def _try_beside(file: Path, rows: Path) -> None:
    """Create another file in the same folder, write to it and delete it."""
    import duckdb

    other = file.with_name(probe_name())
    try:
        with duckdb.connect(other) as connection:
            connection.execute(f"CREATE TABLE probe AS SELECT * FROM {_files([rows])}")
    finally:
        other.unlink(missing_ok=True)


def _columns(step: Step) -> int:
    match step:
        case Replacement():
            return len(step.target.schema)
        case StagedMerge():
            return len(step.merge.target.schema)
        case StagedHistory():
            return len(step.step.table.schema)
    return 0


def _files(paths: Iterable[Path | str]) -> str:
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    # DuckDB takes a folder named `a=b` for a column.
    return f"read_parquet([{quoted}], hive_partitioning = false)"
