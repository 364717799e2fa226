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
    all_fields,
    own_columns,
    plain,
    replaced_fields,
    row_fields,
    with_columns,
)
from adapters.dlt_destination.dlt.duckdb_client import OpensFile, absent_file
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.dlt.state_keeping import StateInTables
from adapters.dlt_destination.duckdb import run_log, transaction_sql, without_dlt
from adapters.dlt_destination.duckdb.memory import (
    VECTOR_ROWS,
    MemoryLimit,
    out_of_disk,
    out_of_memory,
)
from adapters.dlt_destination.failures import scrubbed
from adapters.dlt_destination.files.bounded_chunks import SCAN_BYTES, SCAN_ROWS, cut, gathered
from adapters.dlt_destination.sql import merge_sql
from adapters.dlt_destination.sql.dialect import DUCKDB
from adapters.dlt_destination.store import Refusal, probe_name
from adapters.dlt_destination.table_steps import StagedHistory, StagedMerge, Step
from cdc_core.values.errors import DestinationFailed, DestinationUnavailable, SettingsError
from cdc_core.values.history import LOG_FIELDS, VERSION_FIELDS
from cdc_core.values.merges import (
    DELETED_AT_FIELD,
    METADATA_FIELDS,
    UNREPRESENTABLE_TABLE,
    Replacement,
)
from cdc_core.values.naming import ANY_DESTINATION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from adapters.dlt_destination.run import Run
    from adapters.dlt_destination.settings import PipelineSettings
    from adapters.dlt_destination.store import Dataset
    from cdc_core.values.errors import CdcError
    from cdc_core.values.merges import Rename, TargetTable
    from cdc_core.values.runs import RunReceipt, RunTable
    from cdc_core.values.table_rules import ClusterBy

#: The name of the incoming rows in a statement.
ROWS = "pgbronze_rows"

#: Before the name of stored rows: the name of their table. No list of tables shows it.
STORED = "_dlt_rows_"

#: DuckDB's errors for a table to which users added constraints, indexes or columns.
_REFUSING = {"ConstraintException", "DependencyException", "CatalogException", "BinderException"}

#: Arrow's offsets have 32 bits, except in large types.
_USUAL_ARRAY_BYTES = 1 << 31


class IncomingRows:
    """Rows on their way into a statement, cast to `schema`; `count` says how many have passed.

    DuckDB hides an error that the source of the rows raised. `error` keeps it.
    """

    def __init__(self, chunks: Iterable[pa.Table], schema: pa.Schema) -> None:
        self.count = 0
        self.error: BaseException | None = None
        self._chunks = chunks
        self._schema = schema

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for chunk in self._chunks:
                self.count += len(chunk)
                rows = chunk if chunk.schema.equals(self._schema) else chunk.cast(self._schema)
                yield from rows.to_batches()
        except GeneratorExit:
            raise  # the reader stopped early
        except BaseException as error:
            self.error = error
            raise


class DuckDbStore:
    """`credentials` is the file's path, or anything else that dlt accepts; None: dlt's settings."""

    kind = "duckdb"
    section = "destination.duckdb"
    naming = ANY_DESTINATION

    def __init__(self, credentials: Any = None) -> None:
        self.memory = MemoryLimit()
        self.statements = 0
        self._credentials = credentials
        #: Names of stored rows that must outlive the run.
        self._needed: set[str] = set()
        #: Names of stored rows whose table has become a target, and the target.
        self._became: dict[str, str] = {}

    def factory(self, run: Run) -> Any:
        from adapters.dlt_destination.dlt.load_jobs import state_factory

        return state_factory(
            "duckdb",
            self,
            run,
            (StateInTables, OpensFile),
            credentials=self._credentials,
            destination_name="duckdb",
        )

    def without_dlt(self, settings: PipelineSettings) -> Dataset | None:
        return without_dlt.opened(
            self._credentials,
            settings.dataset_name,
            settings.pipeline_name,
            MemoryLimit().settings(None),
        )

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:
        return "JSON" if variant else DUCKDB.sql_type(column.type)

    def columns(self, client: Any) -> dict[str, pa.Schema]:
        rows = client.sql_client.execute_sql(
            "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns AS c "
            "JOIN information_schema.tables AS t USING (table_catalog, table_schema, table_name) "
            "WHERE c.table_catalog = current_database() AND c.table_schema = %s "
            "AND t.table_type = 'BASE TABLE' "
            "ORDER BY c.table_name, c.ordinal_position",
            client.sql_client.dataset_name,
        )
        fields: dict[str, list[pa.Field]] = {}
        for table, column, sql_type in rows:
            if not table.startswith("_dlt"):
                fields.setdefault(table, []).append(_field(column, sql_type))
        return {table: pa.schema(columns) for table, columns in fields.items()}

    def current(self, client: Any, table: str) -> pa.Schema | None:
        found = self._columns_of(client, table)
        return found if len(found) else None

    def make_fit(self, client: Any, replacement: Replacement) -> None:
        """Does nothing: the transaction that replaces the rows alters the table too."""

    def _columns_of(self, client: Any, table: str) -> pa.Schema:
        """Return the columns of one table; an empty schema if it is missing."""
        import duckdb

        try:
            # DESCRIBE falls back to a Python variable of that name if the table is missing.
            rows = client.sql_client.native_connection.execute(
                "SELECT name, type FROM pragma_table_info(?)", [_name(client, table)]
            )
        except duckdb.CatalogException:
            return pa.schema([])
        return pa.schema([_field(name, sql_type) for name, sql_type in rows.fetchall()])

    def create(
        self,
        client: Any,
        table: str,
        fields: Sequence[pa.Field],
        cluster_by: ClusterBy,  # noqa: ARG002 - DuckDB has no layout
    ) -> None:
        if not client.is_storage_initialized():
            client.initialize_storage()
        self._run(client, f"CREATE TABLE {_name(client, table)} ({_definitions(fields)})")

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Add columns before the metadata columns. DuckDB adds columns only at the end, so the
        table is rewritten. A table to which users added something would lose it, so that one gets
        its new columns at the end."""
        if self._is_plain(client, table):
            self._write_again(client, table, fields)
            return
        for field in fields:
            self._run(client, _added(_name(client, table), field))

    def _write_again(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        added = {
            f.name: f"CAST(NULL AS {DUCKDB.sql_type(f.type)}) AS {DUCKDB.quote(f.name)}"
            for f in fields
        }
        names = with_columns(self._columns_of(client, table).names, fields)
        columns = ", ".join(added.get(name, DUCKDB.quote(name)) for name in names)
        target = _name(client, table)
        self._run(client, f"CREATE OR REPLACE TABLE {target} AS SELECT {columns} FROM {target}")

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        for field in fields:
            column = f"{DUCKDB.quote(field.name)} TYPE {DUCKDB.sql_type(field.type)}"
            self._run(client, f"ALTER TABLE {_name(client, table)} ALTER COLUMN {column}")

    def rename_column(self, client: Any, table: str, old: str, new: str) -> None:
        names = f"{DUCKDB.quote(old)} TO {DUCKDB.quote(new)}"
        self._run(client, f"ALTER TABLE {_name(client, table)} RENAME COLUMN {names}")

    def rename_table(self, client: Any, old: str, new: str) -> None:
        self._run(client, f"ALTER TABLE {_name(client, old)} RENAME TO {DUCKDB.quote(new)}")

    def rename_cells(self, client: Any, rename: Rename) -> None:
        cells = _name(client, UNREPRESENTABLE_TABLE)
        self._run(client, merge_sql.renaming_cells(DUCKDB, rename, cells))

    def forget_cells(self, client: Any, table: str) -> None:
        cells = _name(client, UNREPRESENTABLE_TABLE)
        self._run(client, f"DELETE FROM {cells} WHERE {merge_sql.cells_of(DUCKDB, table)}")

    def write(self, client: Any, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:
        """Store rows in a table of their own, from which `apply` makes the target."""
        if not client.is_storage_initialized():
            client.initialize_storage()
        fields = all_fields(target)
        connection = client.sql_client.native_connection
        self.memory.make_room(connection, len(fields))
        incoming = IncomingRows(rows, pa.schema(row_fields(target)))
        connection.register(ROWS, self.memory.ahead_of(connection, incoming.reader()))
        columns = ", ".join(
            f"CAST({DUCKDB.quote(f.name)} AS {DUCKDB.sql_type(f.type)}) AS {DUCKDB.quote(f.name)}"
            for f in fields
        )
        try:
            self.statements += 1
            connection.execute(
                f"CREATE OR REPLACE TABLE {_stored(client, name)} AS SELECT {columns} FROM {ROWS}"
            )
        except Exception:
            if incoming.error is not None:
                raise incoming.error from None
            raise
        finally:
            connection.unregister(ROWS)
        self._became.pop(name, None)
        self.memory.checkpoint(connection)
        return incoming.count

    def make_durable(self, client: Any, names: Collection[str]) -> None:  # noqa: ARG002 - tables outlive the run
        self._needed.update(names)

    def written(self, client: Any) -> list[str]:
        rows = client.sql_client.execute_sql(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() "
            "AND schema_name = %s",
            client.sql_client.dataset_name,
        )
        return [name.removeprefix(STORED) for (name,) in rows if name.startswith(STORED)]

    def forget(self, client: Any, names: Collection[str]) -> None:
        self._needed.difference_update(names)
        for name in names:
            if self._became.pop(name, None) is None:
                self._run(client, f"DROP TABLE IF EXISTS {_stored(client, name)}")

    def sweep(self, client: Any, needed: Collection[str]) -> None:
        self._became.clear()
        self._needed = {*needed}
        self.forget(client, [name for name in self.written(client) if name not in needed])

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        connection = client.sql_client.native_connection
        self.memory.make_room(connection, max(map(_columns, steps), default=0))
        self.memory.within(connection, lambda: self._apply(client, table, steps))
        self.memory.checkpoint(connection)

    def _apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        # A load that failed at another table is repeated: what became this table is in it.
        steps = [step for step in steps if not self._is_done(step)]
        statements = [s for step in steps for s in self._statements(client, table, step)]
        with client.sql_client.begin_transaction():
            for statement in statements:
                self.statements += 1
                client.sql_client.execute_sql(statement)
        for step in steps:
            if isinstance(step, Replacement) and _becoming(client, step) in statements:
                self._became[step.written[0]] = table

    def _is_done(self, step: Step) -> bool:
        return isinstance(step, Replacement) and any(n in self._became for n in step.written)

    def _statements(self, client: Any, table: str, step: Step) -> list[str]:
        relation = partial(_name, client)
        if isinstance(step, Replacement):
            rows = f"({self._rows_of(client, step)})"
            changes = transaction_sql.difference(DUCKDB, step, rows, relation)
            return [*changes, *self._replacement(client, step, rows)]
        staged = _files(step.paths) if step.paths else ""
        looks_up = isinstance(step, StagedHistory)
        held = self._columns_of(client, table).names if looks_up else ()
        return transaction_sql.statements_of(DUCKDB, step, staged, relation, held)

    @staticmethod
    def _rows_of(client: Any, step: Replacement) -> str:
        """Return a query for the stored rows of a replacement."""
        names = ", ".join(DUCKDB.quote(field.name) for field in all_fields(step.target))
        return " UNION ALL ".join(
            f"SELECT {names} FROM {_stored(client, name)}" for name in step.written
        )

    def _replacement(self, client: Any, step: Replacement, rows: str) -> list[str]:
        """Return statements that replace the content. The table of the stored rows becomes the
        target, if nobody needs it any longer. A target to which users added something is emptied
        and filled instead: its columns are altered until they fit, and columns that users added get
        their defaults. With soft deletes, target rows whose keys are gone are kept."""
        new, table = replaced_fields(step), step.target.name
        target, old = _name(client, table), self._columns_of(client, table)
        content = transaction_sql.content(DUCKDB, step, rows, target, old)
        keeps = any(step.keeps(name) for name in old.names)
        if not (keeps or (len(old) and self._carries(client, table))):
            if len(step.written) > 1 or self._needed & {*step.written}:
                return [f"CREATE OR REPLACE TABLE {target} AS {content}"]
            stored, marked = _stored(client, step.written[0]), []
            if step.soft_deletes is not None:
                marked.append(_added(stored, DELETED_AT_FIELD))
                if step.keeps_rows and len(old):
                    stay = transaction_sql.kept(DUCKDB, step, stored, target, old)
                    marked.append(f"INSERT INTO {stored} BY NAME {stay}")
            return [*marked, f"DROP TABLE IF EXISTS {target}", _becoming(client, step)]
        source, ours, before, after = rows, {field.name for field in new}, [], []
        if step.soft_deletes is not None:  # some rows stay
            source = transaction_sql.SCRATCH
            before = [f"CREATE TEMP TABLE {source} AS {content}"]
            after = [f"DROP TABLE {source}"]
        statements = [*before, f"DELETE FROM {target}"]
        for field in old:
            if field.name not in ours and not step.keeps(field.name):
                column = DUCKDB.quote(field.name)
                statements.append(f"ALTER TABLE {target} DROP COLUMN {column}")
        for field in new:
            if field.name not in old.names:
                statements.append(_added(target, field))
            elif plain(old.field(field.name).type) != plain(field.type):
                column = f"{DUCKDB.quote(field.name)} TYPE {DUCKDB.sql_type(field.type)}"
                statements.append(f"ALTER TABLE {target} ALTER COLUMN {column} USING NULL")
        return [*statements, f"INSERT INTO {target} BY NAME SELECT * FROM {source}", *after]

    def _is_plain(self, client: Any, table: str) -> bool:
        """Whether users have added nothing to the table."""
        added = (*METADATA_FIELDS, DELETED_AT_FIELD, *LOG_FIELDS, *VERSION_FIELDS)
        names = {field.name for field in added}
        held = self._columns_of(client, table).names
        behind = held[len(own_columns(held)) :]
        return set(behind) <= names and not self._carries(client, table)

    def _carries(self, client: Any, table: str) -> bool:
        """Whether a table has a comment, a default, a constraint or an index."""
        where = "database_name = current_database() AND schema_name = %s AND table_name = %s"
        on_table = "comment IS NOT NULL OR index_count > 0 OR check_constraint_count > 0"
        on_column = "comment IS NOT NULL OR column_default IS NOT NULL OR NOT is_nullable"
        (row,) = client.sql_client.execute_sql(
            f"SELECT EXISTS (FROM duckdb_tables() WHERE {where} AND ({on_table})) "
            f"OR EXISTS (FROM duckdb_columns() WHERE {where} AND ({on_column}))",
            *[client.sql_client.dataset_name, table] * 2,
        )
        return bool(row[0])

    def count(self, client: Any, tables: Sequence[str]) -> dict[str, int]:
        """Count with one query per table: a single query is too deeply nested for many tables, and
        no faster."""
        queries = {table: f"SELECT COUNT(*) FROM {_name(client, table)}" for table in tables}
        # To the end of each result: an unfinished one would block the connection.
        return {table: client.sql_client.execute_sql(sql)[0][0] for table, sql in queries.items()}

    def greatest(self, client: Any, table: str, column: str) -> int | None:
        query = f"SELECT MAX({DUCKDB.quote(column)}) FROM {_name(client, table)}"
        found: int | None = client.sql_client.execute_sql(query)[0][0]
        return found

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        held = self._columns_of(client, table)
        schema = pa.schema([held.field(name) for name in columns])
        names = ", ".join(
            f"CAST({DUCKDB.quote(f.name)} AS VARCHAR)" if f.type == JSON else DUCKDB.quote(f.name)
            for f in schema
        )
        types = [pa.string() if f.type == JSON else plain(f.type) for f in schema]
        schema = pa.schema(zip(columns, types, strict=True))
        rows = self._rows(client, f"SELECT {names} FROM {_name(client, table)}")
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

    def write_receipt(
        self,
        client: Any,
        receipt: RunReceipt,
        tables: Sequence[RunTable],
        forget_before: datetime | None,
    ) -> None:
        run_log.write_receipt(client, receipt, tables, forget_before)

    def receipts(self, client: Any, limit: int) -> Sequence[RunReceipt]:
        return run_log.receipts(client, limit)

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
            connection.execute(f"CREATE TABLE {_name(client, probe_name())} AS {rows}")
        finally:
            connection.execute("ROLLBACK")

    def drop(self, client: Any) -> list[str]:
        main = client.sql_client.dataset_name
        dropped = []
        if client.is_storage_initialized():
            client.drop_storage()
            dropped.append(f"dataset {main!r}")
        return dropped

    def volumes(self, client: Any) -> Mapping[str, Sequence[str]] | None:  # noqa: ARG002 - DuckDB has none
        return None

    def close(self) -> None:
        """Does nothing: the store holds nothing open."""

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

    def _run(self, client: Any, statement: str) -> None:
        self.statements += 1
        self.memory.within(
            client.sql_client.native_connection, lambda: client.sql_client.execute_sql(statement)
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


def _name(client: Any, table: str) -> str:
    return f"{client.sql_client.fully_qualified_dataset_name()}.{DUCKDB.quote(table)}"


def _stored(client: Any, name: str) -> str:
    return _name(client, f"{STORED}{name}")


def _becoming(client: Any, replacement: Replacement) -> str:
    """Return the statement that makes a table of stored rows the target."""
    stored = _stored(client, replacement.written[0])
    return f"ALTER TABLE {stored} RENAME TO {DUCKDB.quote(replacement.target.name)}"


def _field(column: str, sql_type: str) -> pa.Field:
    return pa.field(column, DUCKDB.arrow_type(sql_type) or pa.null())


def _columns(step: Step) -> int:
    match step:
        case Replacement():
            return len(step.target.schema)
        case StagedMerge():
            return len(step.merge.target.schema)
        case StagedHistory():
            return len(step.step.table.schema)
    return 0


def _added(table: str, field: pa.Field) -> str:
    column = f"{DUCKDB.quote(field.name)} {DUCKDB.sql_type(field.type)}"
    return f"ALTER TABLE {table} ADD COLUMN {column}"


def _definitions(fields: Iterable[pa.Field]) -> str:
    return ", ".join(f"{DUCKDB.quote(f.name)} {DUCKDB.sql_type(f.type)}" for f in fields)


def _files(paths: Iterable[Path | str]) -> str:
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    # DuckDB takes a folder named `a=b` for a column.
    return f"read_parquet([{quoted}], hive_partitioning = false)"
