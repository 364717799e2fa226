"""The snapshot source port: whole tables by COPY, at the very point from which the stream goes on.

A slot's creation exports the snapshot; the connection that created it stays idle and open while
others read in it, each its share of a table's pages. Manual: "Streaming Replication Protocol",
CREATE_REPLICATION_SLOT; "Snapshot Synchronization Functions"; "COPY"; "System Columns", ctid.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from adapters.first_array import make_first_array
from adapters.pgoutput.catalog_types import CatalogTypes
from adapters.pgoutput.cluster import HORIZON, NOW, require_logical_wal
from adapters.pgoutput.connection import Connection, connect, server_major
from adapters.pgoutput.page_ranges import PageRange, parts, shares
from adapters.pgoutput.publication import row_filter
from adapters.pgoutput.range_readers import RangeReaders, TableQuery
from adapters.pgoutput.row_sessions import open_row_session
from adapters.pgoutput.slot import announce_wait, slot_creation_errors
from adapters.pgoutput.source_errors import source_errors, translated
from adapters.pgoutput.sql_text import literal
from adapters.pgoutput.streamability import quote
from adapters.pgoutput.wire.binary import reads_binary
from adapters.pgoutput.wire.results import ReadRows, decode_rows
from cdc_core.errors import CdcError, OperatorNeeded
from cdc_core.lsn import Lsn
from cdc_core.ports.snapshot_source import WHOLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from adapters.pgoutput.row_sessions import RowSession
    from adapters.pgoutput.settings import SourceSettings
    from adapters.pgoutput.wire.types import TypeMap
    from cdc_core.relation import Relation


@dataclass(frozen=True)
class ExportedSnapshot:
    """A slot's consistent point, and the name under which its snapshot can be adopted."""

    lsn: Lsn
    name: str


@contextmanager
def exported_snapshot(settings: SourceSettings, *, create_slot: bool) -> Iterator[ExportedSnapshot]:
    """Create the slot (or a temporary one); its snapshot stays open until the end of the block."""
    with connect(settings, replication=True) as connection:
        require_logical_wal(connection)
        yield _create_slot_exporting(connection, settings, create_slot=create_slot)


#: How long a request to cancel may take.
_CANCEL_SECONDS = 5.0


@contextmanager
def reader_connection(settings: SourceSettings, snapshot: ExportedSnapshot) -> Iterator[Connection]:
    """A connection inside a transaction that sees the snapshot."""
    with connect(settings) as connection:
        with source_errors("adopting the snapshot"):
            for statement in _adopting(snapshot.name):
                connection.execute(statement.encode())
        yield connection


def _adopting(snapshot_name: str) -> tuple[str, ...]:
    return (
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        f"SET TRANSACTION SNAPSHOT {literal(snapshot_name)}",
    )


#: Plans that read a table's file from its beginning, and no compilation of small queries.
_IN_FILE_ORDER = ", ".join(
    f"set_config('{name}', '{value}', false)"
    for name, value in {
        "synchronize_seqscans": "off",
        "max_parallel_workers_per_gather": "0",
        "enable_indexscan": "off",
        "enable_indexonlyscan": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
    }.items()
)

#: Of a table, or of the leaves of a partitioned one: whether it has a file here, and its pages; of
#: one that was dropped since the snapshot, none.
_PAGES = """
SELECT relkind = 'r', coalesce(pg_relation_size(oid), 0) / current_setting('block_size')::int
FROM pg_class
WHERE oid = %s AND relkind <> 'p' OR oid IN (SELECT relid FROM pg_partition_tree(%s) WHERE isleaf)
"""


#: Numbers of transactions come round after so many; `xmin` has no more.
_XIDS = 1 << 32

#: A row that has gone does not come back, and one that has come has a later `xmin`. So the rows are
#: the same if there are as many and none is of a transaction that had not ended then. `age` counts
#: back from now, beyond half of all numbers forward: such a row counts as new.
_UNCHANGED = """
SELECT count(*) = {rows}
  AND count(*) FILTER (WHERE age(xmin) <= age('{xid}'::xid)) = 0
  AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint - {horizon} < 2 ^ 31
"""


class OpenSnapshot:
    """What every `Snapshot` has; `connection` sees the snapshot and is for short statements."""

    def __init__(
        self, settings: SourceSettings, connection: Connection, exported: ExportedSnapshot
    ) -> None:
        self.settings = settings
        self.connection = connection
        self.exported = exported
        self._types = CatalogTypes(lambda: connection)
        with source_errors("reading the source's clock"):
            row: Any = connection.execute(NOW).fetchone()
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
        with source_errors("looking for open transactions"):
            row: Any = self.connection.execute(HORIZON).fetchone()
        return int(row[0])

    def parts(self, relation: Relation, read: Collection[str] = ()) -> list[str]:
        with source_errors(f"reading table {relation.table}"):
            pages = self.pages(relation)
        found = parts(pages, map(PageRange.parse, read))
        return [WHOLE] if found == [PageRange()] else [str(part) for part in found]

    def unchanged(self, relation: Relation, part: str, rows: int, horizon: int) -> bool:
        with source_errors(f"reading table {relation.table}", self.reading_cure(relation)):
            source = self.source(relation, PageRange.parse(part))
            # Without parameters: a filter may have a `%`.
            query = _UNCHANGED.format(rows=rows, horizon=horizon, xid=horizon % _XIDS)
            row: Any = self.connection.execute(f"{query} {source}".encode()).fetchone()
        return bool(row[0])

    def reading_cure(self, relation: Relation, error: psycopg.Error | None = None) -> str:
        """The statement for our role, where reading a table is refused with this error."""
        said, role = str(error), quote(self.connection.info.user)
        if "row-level security" in said:
            return f"run: ALTER ROLE {role} BYPASSRLS"
        if "for schema" in said:
            return f"run: GRANT USAGE ON SCHEMA {quote(relation.table.schema)} TO {role}"
        return f"run: GRANT SELECT ON {_name(relation)} TO {role}"

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        """Nothing is read before it is wanted."""

    def pages(self, relation: Relation) -> list[int]:
        """Pages of the table's file, or of its partitions'; none where not all of them have any."""
        rows: Any = self.connection.execute(_PAGES, [relation.oid] * 2).fetchall()
        return [int(pages) for _, pages in rows] if all(stored for stored, _ in rows) else []

    def source(self, relation: Relation, pages: PageRange) -> str:
        """What a SELECT of the rows has after its columns. They are those that the stream would
        tell of: no inheritance children, those of the filter."""
        oid, table = relation.oid, relation.table
        filter_ = row_filter(self.connection, self.settings.pub_name, oid, table.schema)
        conditions = [f"({part})" for part in (filter_, pages.condition) if part]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        only = "" if self._is_partitioned(relation) else "ONLY "
        return f"FROM {only}{_name(relation)}{where}"

    def _is_partitioned(self, relation: Relation) -> bool:
        row = self.connection.execute(
            "SELECT relkind = 'p' FROM pg_class WHERE oid = %s", [relation.oid]
        ).fetchone()
        return row is not None and bool(row[0])


class CopySnapshot(OpenSnapshot):
    """`Snapshot` by COPY over several sessions."""

    def __init__(
        self, settings: SourceSettings, connection: Connection, exported: ExportedSnapshot
    ) -> None:
        super().__init__(settings, connection, exported)
        row: Any = connection.execute("SELECT pg_export_snapshot()").fetchone()
        #: Either session keeps it: this one, or that which created the slot.
        self._names = (str(row[0]), exported.name)
        self._readers = self._start()

    def _start(self) -> RangeReaders:
        return RangeReaders(self._session, self.settings.parallelism)

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        for relation, part in readings:
            self._readers.expect((relation.oid, part), partial(self._plan, relation, part))

    def read(self, relation: Relation, part: str = WHOLE) -> Iterator[ReadRows]:
        if self._readers.next != (relation.oid, part):
            self._restart()
            self.expect([(relation, part)])
        whole = False
        try:
            yield from self._readers.read()
            whole = True
        finally:
            if not whole:
                self._restart()

    def _restart(self) -> None:
        self._readers.close()
        self._readers = self._start()

    def close(self) -> None:
        self._readers.close(self._cancel_plan)

    def _cancel_plan(self) -> None:
        # Not `cancel`: it goes without TLS, and waits for ever where that is not understood.
        with suppress(psycopg.Error):
            self.connection.cancel_safe(timeout=_CANCEL_SECONDS)

    def _plan(self, relation: Relation, part: str) -> TableQuery:
        doing = f"reading table {relation.table}"
        with source_errors(doing, self.reading_cure(relation)):
            types = self.types_of(relation)
            ranges = shares(self.pages(relation), self.settings.parallelism, PageRange.parse(part))
            return TableQuery(
                self._columns(relation),
                [self.source(relation, share) for share in ranges],
                lambda rows: decode_rows(rows, relation.columns, types, str(relation.table)),
                lambda error: translated(error, doing, self.reading_cure(relation, error)),
            )

    def _columns(self, relation: Relation) -> list[str]:
        """Columns in binary where that reads, else as their output functions' texts, of which a
        cast to text may differ. A domain's is that of its base."""
        texts = [c.type_oid for c in relation.columns if not reads_binary(c.type_oid, c.typmod)]
        rows: Any = self.connection.execute(_OUTPUT_FUNCTIONS, [texts]).fetchall()
        functions = {oid: (function, base) for oid, function, base in rows}
        columns = []
        for column in relation.columns:
            value = quote(column.name)
            if not reads_binary(column.type_oid, column.typmod):
                function, base = functions[column.type_oid]
                value = f"pg_catalog.textin({function}({value}{f'::{base}' if base else ''}))"
            columns.append(value)
        return columns

    def _session(self) -> RowSession:
        """A session in the snapshot. Its rows come in the order of the table's file, so that what
        another did not end can be gone on with."""
        session = open_row_session(self.settings)
        try:
            session.execute(f"SELECT {_IN_FILE_ORDER}")
            for name in self._names:
                try:
                    for statement in _adopting(name):
                        session.execute(statement)
                except (psycopg.DataError, psycopg.errors.UndefinedObject):
                    session.execute("ROLLBACK")
                else:
                    return session
        except BaseException:
            session.close()
            raise
        session.close()
        raise CdcError("the snapshot is gone, with the sessions that held it", "run again")


class PgSnapshotSource:
    """`SnapshotSource` by COPY."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[CopySnapshot]:
        make_first_array()
        with (
            exported_snapshot(self._settings, create_slot=create_slot) as exported,
            reader_connection(self._settings, exported) as connection,
            closing(CopySnapshot(self._settings, connection, exported)) as snapshot,
        ):
            yield snapshot


#: Output functions of types, and the type to which the value must be cast for them: refcursor has
#: text's, and none that takes any array, enum or range takes a domain over one.
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


def _name(relation: Relation) -> str:
    return f"{quote(relation.table.schema)}.{quote(relation.table.name)}"


def _create_slot_exporting(
    connection: Connection, settings: SourceSettings, *, create_slot: bool
) -> ExportedSnapshot:
    announce_wait(connection)
    major = server_major(connection)
    name = settings.slot_name if create_slot else f"wal2delta_snapshot_{uuid4().hex[:12]}"
    options = ["SNAPSHOT 'export'"]
    if create_slot and settings.failover and major >= 17:
        options.append("FAILOVER true")
    statement = (
        f"CREATE_REPLICATION_SLOT {quote(name)} {'' if create_slot else 'TEMPORARY '}"
        f"LOGICAL {quote(settings.plugin_name)} "
        + (f"({', '.join(options)})" if major >= 15 else "EXPORT_SNAPSHOT")
    )
    with slot_creation_errors(name, connection.info.user):
        row: Any = connection.execute(statement.encode()).fetchone()
    if row is None or row[2] is None:
        raise OperatorNeeded(f"replication slot {name!r} was created without a snapshot")
    return ExportedSnapshot(Lsn.parse(row[1]), row[2])
