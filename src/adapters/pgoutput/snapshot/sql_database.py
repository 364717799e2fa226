"""The snapshot source port with dlt's `sql_database` source, for people who want dlt's own reader.

Same snapshot, LSN and codec as the COPY reader. dlt gets a query in which each value is
PostgreSQL's text, so SQLAlchemy cannot change a type. But it is slow and needs memory: it makes a
Python object for each value (10 to 40 times slower), holds whole rows in memory (a bytea twice, as
hexadecimal), and cannot read a value of more than 512 MB of text. It needs SQLAlchemy 2.
Documentation: dlt, "SQL database", `query_adapter_callback`.
"""

from __future__ import annotations

import warnings
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_import import import_dlt
from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.source_errors import translated
from adapters.pgoutput.session.sql_text import literal, quote
from adapters.pgoutput.snapshot.exported_snapshot import guarded_snapshot
from adapters.pgoutput.snapshot.snapshot_source import OpenSnapshot
from adapters.pgoutput.wire.codec import decode_column
from adapters.pgoutput.wire.query_rows import ReadRows
from adapters.pgoutput.wire.text import column_of_texts, table_of
from adapters.pgoutput.wire.type_rules import type_read
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.changes import Unrepresentable
from cdc_core.values.errors import CdcError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.exported_snapshot import ExportedSnapshot
    from adapters.pgoutput.snapshot.guards import SnapshotGuards
    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.wire.types import TypeMap
    from cdc_core.values.relation import Relation

_CHUNK_ROWS = 20_000


class SqlDatabaseSnapshotSource:
    """`SnapshotSource` by dlt's `sql_database`."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[SqlDatabaseSnapshot]:
        import_dlt()
        with (
            guarded_snapshot(self._settings, create_slot=create_slot) as (guards, exported),
            closing(_Engine(self._settings, guards)) as engine,
        ):
            yield SqlDatabaseSnapshot(self._settings, guards, exported, engine)


class SqlDatabaseSnapshot(OpenSnapshot):
    """`Snapshot` whose rows come through dlt."""

    def __init__(
        self,
        settings: SourceSettings,
        guards: SnapshotGuards,
        exported: ExportedSnapshot,
        engine: _Engine,
    ) -> None:
        super().__init__(settings, guards, exported)
        self._engine = engine

    def read(self, relation: Relation, page_range: str = WHOLE) -> Iterator[ReadRows]:
        import psycopg
        from dlt.extract.exceptions import ResourceExtractionError
        from sqlalchemy.exc import SQLAlchemyError

        types = self.types_of(relation)
        with self._reading(relation) as session:
            ranges = self.scan(session, relation, page_range).ranges
        for one in ranges:
            with self._reading(relation) as session:
                named = one.found_again(session)
            rows = self._rows(relation, named)
            while True:
                self.guards.keep()
                try:
                    chunk = list(islice(rows, _CHUNK_ROWS))
                except (ResourceExtractionError, SQLAlchemyError, psycopg.Error) as error:
                    # dlt's text quotes the statement; only the driver's error matters.
                    raise self._refusal(error, relation) from None
                if not chunk:
                    break
                yield _decoded(chunk, relation, types)

    def _refusal(self, error: BaseException, relation: Relation) -> CdcError:
        import psycopg

        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, psycopg.Error):
            cause = getattr(cause, "orig", None) or cause.__cause__
        if cause is None:
            kind = type(error).__name__
            return CdcError(
                f"dlt's sql_database failed while reading table {relation.table} ({kind})"
            )
        cure = self.reading_cure(relation, cause)
        return translated(cause, f"reading table {relation.table}", cure)

    def _rows(self, relation: Relation, one: RowRange) -> Iterator[Mapping[str, str | None]]:
        """Rows as dlt yields them. Columns are named by position, so that any name works."""
        import sqlalchemy
        from dlt.sources.sql_database import sql_table

        # The text of the type's output function. A cast would drop the padding of char(n). A
        # composite value of NULLs is not NULL, although it IS NULL.
        columns = ", ".join(
            f"CASE WHEN num_nulls({name}) = 0 THEN format('%s', {name}) END AS c{i}"
            for i, name in enumerate(quote(column.name) for column in relation.columns_read)
        )
        statement = f"SELECT {columns or 'NULL AS c'} {one.source()}"
        query = sqlalchemy.text(statement.replace(":", r"\:"))
        self._engine.check = one.check
        with warnings.catch_warnings():
            # Types that SQLAlchemy does not know do not matter here.
            warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)
            yield from sql_table(
                self._engine.engine,
                table=relation.table.name,
                schema=relation.table.schema,
                backend="sqlalchemy",
                chunk_size=_CHUNK_ROWS,
                reflection_level="minimal",
                query_adapter_callback=lambda _query, _table: query,
            )


class _Engine:
    """An SQLAlchemy engine. Each transaction adopts the exported snapshot and runs `check`
    first."""

    def __init__(self, settings: SourceSettings, guards: SnapshotGuards) -> None:
        import psycopg
        import sqlalchemy

        self.check = "SELECT"

        def open_connection() -> Any:
            connection = connect(settings)
            connection.autocommit = False
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            return connection

        def adopt(connection: Any) -> None:
            # Below SQLAlchemy, which would use a server-side cursor, as for the query.
            driver_connection = connection.connection.dbapi_connection
            driver_connection.execute(f"SET TRANSACTION SNAPSHOT {literal(guards.name)}")
            driver_connection.execute(self.check)

        self.engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=open_connection, poolclass=sqlalchemy.NullPool
        )
        sqlalchemy.event.listen(self.engine, "begin", adopt)

    def close(self) -> None:
        self.engine.dispose()


def _decoded(
    rows: Sequence[Mapping[str, str | None]], relation: Relation, types: TypeMap
) -> ReadRows:
    columns, unrepresentable = [], []
    for position, column in enumerate(relation.columns_read):
        texts = column_of_texts([row[f"c{position}"] for row in rows])
        where = f"{relation.table}.{column.name}"
        pg_type = type_read(types[column.type_oid], column)
        decoded = decode_column(texts, pg_type, column.typmod, where)
        columns.append(decoded.values)
        unrepresentable += [
            Unrepresentable(column.name, row, text) for row, text in decoded.unrepresentable
        ]
    schema = pa.schema([(column.name, column.arrow_type) for column in relation.columns_read])
    return ReadRows(
        table_of(schema, [c.chunks for c in columns], len(rows)), tuple(unrepresentable)
    )
