"""The snapshot source port: whole tables by COPY, at the very point from which the stream goes on.

A slot's creation exports the snapshot; the connection that created it stays idle and open while
others read in it, each its share of a table's pages. Manual: "Streaming Replication Protocol",
CREATE_REPLICATION_SLOT; "Snapshot Synchronization Functions"; "COPY"; "System Columns", ctid.
"""

from __future__ import annotations

from collections import deque
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from adapters.pgoutput.arrow_session import ArrowSession
from adapters.pgoutput.bulk_reader import literal
from adapters.pgoutput.catalog_types import CatalogTypes
from adapters.pgoutput.cluster import NOW, require_logical_wal
from adapters.pgoutput.connection import Connection, connect, server_major
from adapters.pgoutput.publication import row_filter
from adapters.pgoutput.read_ahead import ReadAhead
from adapters.pgoutput.slot import announce_wait, slot_creation_errors
from adapters.pgoutput.source_errors import source_errors
from adapters.pgoutput.streamability import quote
from adapters.pgoutput.wire.binary import reads_binary
from adapters.pgoutput.wire.results import PackedRows, ReadRows, decode_rows
from cdc_core.errors import OperatorNeeded
from cdc_core.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import pyarrow as pa

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


#: A share of a table's pages: few enough for readers to end together.
_SHARE_PAGES = 8192
_SHARES_PER_READER = 4
#: Rows come in pieces of about this; so much is read before it is wanted.
_PIECE_BYTES = 4 << 20
_AHEAD_BYTES = 48 << 20


@contextmanager
def reader_connection(settings: SourceSettings, snapshot: ExportedSnapshot) -> Iterator[Connection]:
    """A connection inside a transaction that sees the snapshot."""
    with connect(settings) as connection:
        with source_errors("adopting the snapshot"):
            for statement in _adopting(snapshot):
                connection.execute(statement.encode())
        yield connection


def _adopting(snapshot: ExportedSnapshot) -> tuple[str, ...]:
    return (
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        f"SET TRANSACTION SNAPSHOT {literal(snapshot.name)}",
    )


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

    def query(self, relation: Relation, columns: str, condition: str = "") -> str:
        """The rows that the stream would tell of: no inheritance children, those of the filter."""
        oid, table = relation.oid, relation.table
        filter_ = row_filter(self.connection, self.settings.pub_name, oid, table.schema)
        conditions = [f"({part})" for part in (filter_, condition) if part]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        only = "" if self.pages(relation) is None else "ONLY "
        return f"SELECT {columns} FROM {only}{_name(relation)}{where}"

    def pages(self, relation: Relation) -> int | None:
        """Pages of a table's file; None for a partitioned table, which has none."""
        row: Any = self.connection.execute(
            "SELECT relkind, pg_relation_size(oid) / current_setting('block_size')::int "
            "FROM pg_class WHERE oid = %s",
            [relation.oid],
        ).fetchone()
        return None if row is None or row[0] in ("p", b"p") else int(row[1])


class CopySnapshot(OpenSnapshot):
    """`Snapshot` by COPY over several sessions."""

    def __init__(
        self, settings: SourceSettings, connection: Connection, exported: ExportedSnapshot
    ) -> None:
        super().__init__(settings, connection, exported)
        self._sessions: list[ArrowSession] = []

    def read(self, relation: Relation) -> Iterator[ReadRows]:
        with source_errors(f"reading table {relation.table}", reading_cure(relation)):
            types = self.types_of(relation)
            columns = self._columns(relation)
            shares = _shares(self.pages(relation) or 0, self.settings.parallelism)
            queries = deque(self.query(relation, columns, share) for share in shares)
            readers = min(len(queries), self.settings.parallelism)
            while len(self._sessions) < readers:
                self._sessions.append(self._session())
            sessions = self._sessions[:readers]

            def cancel() -> None:
                for session in sessions:
                    session.cancel()

            def decoded(session: ArrowSession) -> Generator[ReadRows, None, None]:
                for batch in _batches(session, queries):
                    rows = PackedRows.of_records(batch.column(0))
                    yield decode_rows(rows, relation.columns, types, str(relation.table))

            ahead = ReadAhead(
                *map(decoded, sessions),
                size=lambda piece: piece.rows.nbytes,
                max_bytes=_AHEAD_BYTES,
                cancel=cancel,
            )
            with closing(ahead):
                yield from iter(ahead.take, None)

    def _columns(self, relation: Relation) -> str:
        """A row as one value: columns in binary where that reads, else as their output functions'
        texts, of which a cast to text may differ. A domain's is that of its base."""
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
        return f"pg_catalog.record_send(ROW({', '.join(columns)}))"

    def close(self) -> None:
        for session in self._sessions:
            session.close()
        self._sessions.clear()

    def _session(self) -> ArrowSession:
        session = ArrowSession(self.settings, server_major(self.connection))
        try:
            for statement in _adopting(self.exported):
                session.execute(statement)
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


def _shares(pages: int, readers: int) -> list[str]:
    """Conditions on ctid that part a table, the last of them open: it may have grown meanwhile."""
    share = max(_SHARE_PAGES, -(-pages // (readers * _SHARES_PER_READER)))
    bounds = range(share, pages, share) if readers > 1 else range(0)
    if not bounds:
        return [""]
    middle = [
        f"ctid >= '({start},0)'::tid AND ctid < '({start + share},0)'::tid" for start in bounds[:-1]
    ]
    return [f"ctid < '({bounds[0]},0)'::tid", *middle, f"ctid >= '({bounds[-1]},0)'::tid"]


def _batches(session: ArrowSession, queries: deque[str]) -> Generator[pa.RecordBatch, None, None]:
    """Batches of the queries that no other session has taken."""
    while queries:
        try:
            query = queries.popleft()
        except IndexError:
            return
        yield from session.stream(query, _PIECE_BYTES)


def reading_cure(relation: Relation) -> str:
    return (
        f"run: GRANT SELECT ON {_name(relation)} TO <role>; under row level security also: "
        "ALTER ROLE <role> BYPASSRLS"
    )


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
    with slot_creation_errors(name):
        row: Any = connection.execute(statement.encode()).fetchone()
    if row is None or row[2] is None:
        raise OperatorNeeded(f"replication slot {name!r} was created without a snapshot")
    return ExportedSnapshot(Lsn.parse(row[1]), row[2])
