"""The snapshot source port: whole tables by COPY, at the LSN where the stream starts.

Several sessions read in one exported snapshot, each a range of a table's pages. Each range is read
after a savepoint, and rolling back to it releases the table. So no session keeps a lock on a table
for the sake of the snapshot. Manual: "Snapshot Synchronization Functions"; "COPY"; "System
Columns", ctid; ADR 15.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from adapters.arrow_warmup import warm_up_arrow
from adapters.pgoutput.catalog.catalog_types import CatalogTypes
from adapters.pgoutput.catalog.publication import row_filter
from adapters.pgoutput.session.source_errors import source_errors, translated
from adapters.pgoutput.session.sql_text import quote
from adapters.pgoutput.session.wal_position import HORIZON, NOW
from adapters.pgoutput.snapshot.exported_snapshot import guarded_snapshot
from adapters.pgoutput.snapshot.page_ranges import PageRange, page_ranges
from adapters.pgoutput.snapshot.range_readers import RangeReaders, TableQuery
from adapters.pgoutput.snapshot.row_ranges import file_pages, row_ranges, stored_relations
from adapters.pgoutput.snapshot.row_sessions import open_row_session
from adapters.pgoutput.wire.query_rows import ReadRows, decode_rows
from adapters.pgoutput.wire.type_rules import reads_binary, type_read
from cdc_core.ports.snapshot_source import WHOLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    import psycopg

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.exported_snapshot import ExportedSnapshot
    from adapters.pgoutput.snapshot.guards import SnapshotGuards
    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.snapshot.row_sessions import RowSession
    from adapters.pgoutput.wire.types import TypeMap
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Column, Relation


#: How long a reader waits for a lock before it retries without holding any. Less than
#: `deadlock_timeout`, so that PostgreSQL never ends an application's session because of ours.
_LOCK_MILLISECONDS = 500

#: Settings for plans that read a table's file from its beginning, without JIT compilation.
_IN_FILE_ORDER = ", ".join(
    f"set_config('{name}', '{value}', false)"
    for name, value in {
        "synchronize_seqscans": "off",
        "max_parallel_workers_per_gather": "0",
        "enable_indexscan": "off",
        "enable_indexonlyscan": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
        "lock_timeout": str(_LOCK_MILLISECONDS),
    }.items()
)

#: Transaction ids in an `xmin` wrap around at this number.
_XIDS = 1 << 32

#: A deleted row never returns, and an added one has a later `xmin`. So the rows are the same if
#: their number is, and none is from a transaction that had not ended at the horizon. `age` counts
#: back from now, and wraps around at half of all numbers: a row beyond that counts as new.
_ROWS_AND_NEW_ONES = """
SELECT count(*), count(*) FILTER (WHERE age(xmin) <= age('{xid}'::xid)
  OR pg_snapshot_xmax(pg_current_snapshot())::text::bigint - {horizon} >= 2 ^ 31)
"""


class OpenSnapshot:
    """The common part of each `Snapshot`."""

    def __init__(
        self, settings: SourceSettings, guards: SnapshotGuards, exported: ExportedSnapshot
    ) -> None:
        self.settings = settings
        self.guards = guards
        self.exported = exported
        self._types = CatalogTypes(guards.session)
        with self._session("reading the source's clock") as session:
            row: Any = session.execute(NOW).fetchone()
        self._taken_at = int(row[0])

    @property
    def lsn(self) -> Lsn:
        return self.exported.lsn

    @property
    def taken_at(self) -> int:
        return self._taken_at

    def types_of(self, relation: Relation) -> TypeMap:
        return self._types({column.type_oid for column in relation.columns})

    @cached_property
    def horizon(self) -> int:
        with self._session("checking for open transactions") as session:
            row: Any = session.execute(HORIZON).fetchone()
        return int(row[0])

    def page_ranges(self, relation: Relation, read: Collection[str] = ()) -> list[str]:
        with self._reading(relation) as session:
            pages = file_pages(stored_relations(session, relation))
        found = page_ranges(pages, map(PageRange.parse, read))
        return [WHOLE] if found == [PageRange()] else [str(part) for part in found]

    def unchanged(self, relation: Relation, page_range: str, rows: int, horizon: int) -> bool:
        query = _ROWS_AND_NEW_ONES.format(horizon=horizon, xid=horizon % _XIDS)
        with self._reading(relation) as session:
            ranges = self.ranges(session, relation, page_range)
        for one in ranges:
            # A session block for each, so that only one relation is locked at a time.
            with self._reading(relation) as session:
                session.execute(one.check.encode())
                # Without parameters, because a filter may contain a `%`.
                found: Any = session.execute(f"{query} {one.source()}".encode()).fetchone()
            count, new = found
            rows -= count
            if new or rows < 0:
                return False
        return rows == 0

    def reading_cure(self, relation: Relation, error: psycopg.Error | None = None) -> str:
        """The statement that lets our role read the table, for this error."""
        said, role = str(error), quote(self.guards.user)
        if "row-level security" in said:
            return f"run: ALTER ROLE {role} BYPASSRLS"
        if "for schema" in said:
            return f"run: GRANT USAGE ON SCHEMA {quote(relation.table.schema)} TO {role}"
        return f"run: GRANT SELECT ON {_name(relation)} TO {role}"

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        """Reads nothing ahead."""

    def ranges(self, session: Connection, relation: Relation, part: str) -> list[RowRange]:
        """The row ranges for a page range. They have the rows that the stream would send: those of
        the publication's filter, without inheritance children."""
        filter_ = row_filter(session, self.settings.pub_name, relation.oid, relation.table.schema)
        columns = tuple(quote(column.name) for column in relation.columns_read)
        stored = stored_relations(session, relation)
        return [*row_ranges(stored, filter_, columns, PageRange.parse(part))]

    @contextmanager
    def _session(self, doing: str, cure: str = "") -> Iterator[Connection]:
        with source_errors(doing, cure), self.guards.session() as session:
            yield session

    def _reading(self, relation: Relation) -> AbstractContextManager[Connection]:
        return self._session(f"reading table {relation.table}", self.reading_cure(relation))


class CopySnapshot(OpenSnapshot):
    """`Snapshot` by COPY over several sessions."""

    def __init__(
        self, settings: SourceSettings, guards: SnapshotGuards, exported: ExportedSnapshot
    ) -> None:
        super().__init__(settings, guards, exported)
        self._readers = self._start()

    def _start(self) -> RangeReaders:
        return RangeReaders(self._open_session, self.settings.parallelism)

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        for relation, part in readings:
            self._readers.expect((relation.oid, part), partial(self._plan, relation, part))

    def read(self, relation: Relation, page_range: str = WHOLE) -> Iterator[ReadRows]:
        key = relation.oid, page_range
        if self._readers.next not in (None, key):
            self._restart()
        if self._readers.next is None:
            self.expect([(relation, page_range)])
        whole = False
        try:
            for chunk in self._readers.read():
                self.guards.keep()
                yield chunk
            whole = True
        finally:
            if not whole:
                self._restart()

    def _restart(self) -> None:
        self._readers.close(self.guards.cancel)
        self._readers = self._start()

    def close(self) -> None:
        self._readers.close(self.guards.cancel)

    def _plan(self, relation: Relation, part: str) -> TableQuery:
        doing = f"reading table {relation.table}"
        with self._reading(relation) as session:
            types = self.types_of(relation)
            return TableQuery(
                str(relation.table),
                self._columns(session, relation, types),
                self.ranges(session, relation, part),
                partial(self._found_again, relation),
                lambda rows: decode_rows(rows, relation.columns_read, types, str(relation.table)),
                lambda error: translated(error, doing, self.reading_cure(relation, error)),
            )

    def _found_again(self, relation: Relation, lost: RowRange) -> RowRange:
        with self._reading(relation) as session:
            return lost.found_again(session)

    def _columns(self, session: Connection, relation: Relation, types: TypeMap) -> list[str]:
        """Expressions for the columns: in binary format where that can be read, else the text of
        the type's output function, which may differ from a cast to text. A domain has that of its
        base type."""
        read = relation.columns_read
        texts = [c.type_oid for c in read if not _is_binary(c, types)]
        rows: Any = session.execute(_OUTPUT_FUNCTIONS, [texts]).fetchall() if texts else ()
        functions = {oid: (function, base) for oid, function, base in rows}
        columns = []
        for column in read:
            value = quote(column.name)
            if not _is_binary(column, types):
                function, base = functions[column.type_oid]
                value = f"pg_catalog.textin({function}({value}{f'::{base}' if base else ''}))"
            columns.append(value)
        return columns

    def _open_session(self) -> RowSession:
        """A session in the snapshot. It returns rows in the order of the table's file, so that it
        can continue a range that another session did not finish."""
        session = open_row_session(self.settings)
        try:
            session.execute(f"SELECT {_IN_FILE_ORDER}")
            self.guards.adopt(session.execute)
        except BaseException:
            session.close()
            raise
        return session


class PgSnapshotSource:
    """`SnapshotSource` by COPY."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[CopySnapshot]:
        warm_up_arrow()
        with (
            guarded_snapshot(self._settings, create_slot=create_slot) as (guards, exported),
            closing(CopySnapshot(self._settings, guards, exported)) as snapshot,
        ):
            yield snapshot


#: Output functions of types, and the type to which a value must be cast for them: refcursor has the
#: function of text, and functions for any array, enum or range do not take a domain over one.
_OUTPUT_FUNCTIONS = """
WITH RECURSIVE base (wanted, oid, typtype, typbasetype, typoutput) AS (
  SELECT oid, oid, typtype, typbasetype, typoutput FROM pg_type WHERE oid = ANY (%s)
  UNION ALL
  SELECT b.wanted, t.oid, t.typtype, t.typbasetype, t.typoutput
  FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
)
SELECT wanted, base.typoutput::regproc::text,
  CASE WHEN taken.typtype <> 'p' THEN format_type(nullif(taken.oid, wanted), -1)
       ELSE format_type(nullif(base.oid, wanted), -1) END
FROM base
  JOIN pg_proc ON pg_proc.oid = base.typoutput
  JOIN pg_type taken ON taken.oid = proargtypes[0]
WHERE base.typtype <> 'd'
"""


def _is_binary(column: Column, types: TypeMap) -> bool:
    return reads_binary(type_read(types[column.type_oid], column), column.typmod)


def _name(relation: Relation) -> str:
    return f"{quote(relation.table.schema)}.{quote(relation.table.name)}"
