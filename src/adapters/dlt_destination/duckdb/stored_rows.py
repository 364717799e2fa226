"""Rows of a full load in DuckDB: in tables of their own, one of which can become the target.

Sources: DuckDB documentation, "CREATE TABLE", "INSERT", "ALTER TABLE".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import all_fields, plain, replaced_fields, row_fields
from adapters.dlt_destination.duckdb import transaction_sql
from adapters.dlt_destination.duckdb.definitions import Definitions, added_column, qualified
from adapters.dlt_destination.sql.dialect import DUCKDB
from cdc_core.values.merges import DELETED_AT_FIELD, Replacement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from adapters.dlt_destination.table_steps import Step
    from cdc_core.values.merges import TargetTable

#: The name of the incoming rows in a statement.
ROWS = "pgbronze_rows"

#: Before the name of stored rows: the name of their table. No list of tables shows it.
STORED = "_dlt_rows_"


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


class RowsInTables(Definitions):
    def __init__(self) -> None:
        super().__init__()
        #: Names of stored rows that must outlive the run.
        self._needed: set[str] = set()
        #: Names of stored rows whose table has become a target, and the target.
        self._became: dict[str, str] = {}

    def write(self, client: Any, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:
        """Store rows in a table of their own, from which `apply` makes the target."""
        if not client.is_storage_initialized():
            client.initialize_storage()
        fields = all_fields(target)
        connection = client.sql_client.native_connection
        self.memory.make_room(connection, len(fields))
        incoming = IncomingRows(rows, pa.schema(row_fields(target)))
        connection.register(ROWS, self.memory.ahead_of(connection, incoming.reader()))
        try:
            self.statements += 1
            selected = f"SELECT {DUCKDB.casts(fields)} FROM {ROWS}"
            connection.execute(f"CREATE OR REPLACE TABLE {_stored(client, name)} AS {selected}")
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
                self.run(client, f"DROP TABLE IF EXISTS {_stored(client, name)}")

    def sweep(self, client: Any, needed: Collection[str]) -> None:
        self._became.clear()
        self._needed = {*needed}
        self.forget(client, [name for name in self.written(client) if name not in needed])

    # Replacing a table.

    def is_done(self, step: Step) -> bool:
        """Whether rows of the step have become the target before."""
        return isinstance(step, Replacement) and any(n in self._became for n in step.written)

    def note_replaced(
        self, client: Any, table: str, steps: Sequence[Step], statements: Collection[str]
    ) -> None:
        """Note which of the steps, whose statements ran, made stored rows the target."""
        for step in steps:
            if isinstance(step, Replacement) and _becoming(client, step) in statements:
                self._became[step.written[0]] = table

    @staticmethod
    def rows_of(client: Any, step: Replacement) -> str:
        """Return a query for the stored rows of a replacement."""
        names = ", ".join(DUCKDB.quote(field.name) for field in all_fields(step.target))
        return " UNION ALL ".join(
            f"SELECT {names} FROM {_stored(client, name)}" for name in step.written
        )

    def replacement(self, client: Any, step: Replacement, rows: str) -> list[str]:
        """Return statements that replace the content. The table of the stored rows becomes the
        target, if nobody needs it any longer. A target to which users added something is emptied
        and filled instead: its columns are altered until they fit, and columns that users added get
        their defaults. With soft deletes, target rows whose keys are gone are kept."""
        new, table = replaced_fields(step), step.target.name
        target, old = qualified(client, table), self.columns_of(client, table)
        content = transaction_sql.content(DUCKDB, step, rows, target, old)
        keeps = any(step.keeps(name) for name in old.names)
        if not (keeps or (len(old) and self.carries(client, table))):
            if len(step.written) > 1 or self._needed & {*step.written}:
                return [f"CREATE OR REPLACE TABLE {target} AS {content}"]
            stored, marked = _stored(client, step.written[0]), []
            if step.soft_deletes is not None:
                marked.append(added_column(stored, DELETED_AT_FIELD))
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
                statements.append(added_column(target, field))
            elif plain(old.field(field.name).type) != plain(field.type):
                column = f"{DUCKDB.quote(field.name)} TYPE {DUCKDB.sql_type(field.type)}"
                statements.append(f"ALTER TABLE {target} ALTER COLUMN {column} USING NULL")
        return [*statements, f"INSERT INTO {target} BY NAME SELECT * FROM {source}", *after]


def _stored(client: Any, name: str) -> str:
    return qualified(client, f"{STORED}{name}")


def _becoming(client: Any, replacement: Replacement) -> str:
    """Return the statement that makes a table of stored rows the target."""
    stored = _stored(client, replacement.written[0])
    return f"ALTER TABLE {stored} RENAME TO {DUCKDB.quote(replacement.target.name)}"
