"""The snapshot source port: whole tables by COPY, at the very point from which the stream goes on.

A slot's creation exports the snapshot; the connection that created it stays idle and open while
others read in it. Manual: "Streaming Replication Protocol", CREATE_REPLICATION_SLOT; "Snapshot
Synchronization Functions"; "COPY".
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from adapters.pgoutput.bulk_reader import literal
from adapters.pgoutput.catalog_types import CatalogTypes
from adapters.pgoutput.cluster import NOW, require_logical_wal
from adapters.pgoutput.connection import Connection, connect, server_major
from adapters.pgoutput.copy_out import copy_pieces
from adapters.pgoutput.publication import row_filter
from adapters.pgoutput.slot import announce_wait, slot_creation_errors
from adapters.pgoutput.source_errors import source_errors
from adapters.pgoutput.streamability import quote
from adapters.pgoutput.wire.copytext import CopiedRows, decode_copy_text
from cdc_core.errors import OperatorNeeded
from cdc_core.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextmanager
def reader_connection(settings: SourceSettings, snapshot: ExportedSnapshot) -> Iterator[Connection]:
    """A connection inside a transaction that sees the snapshot."""
    with connect(settings) as connection:
        with source_errors("adopting the snapshot"):
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot.name)}".encode())
        yield connection


class CopySnapshot:
    """`Snapshot` of one reader connection."""

    def __init__(
        self, settings: SourceSettings, connection: Connection, exported: ExportedSnapshot
    ) -> None:
        self._settings = settings
        self.connection = connection
        self.pub_name = settings.pub_name
        self._lsn = exported.lsn
        self._types = CatalogTypes(lambda: connection)
        with source_errors("reading the source's clock"):
            row: Any = connection.execute(NOW).fetchone()
        self._taken_at = int(row[0])

    @property
    def lsn(self) -> Lsn:
        return self._lsn

    @property
    def taken_at(self) -> int:
        return self._taken_at

    def read(self, relation: Relation) -> Iterator[CopiedRows]:
        types = self.types_of(relation)
        with source_errors(f"reading table {relation.table}", reading_cure(relation)):
            columns = ", ".join(quote(column.name) for column in relation.columns)
            query = select_statement(self.connection, self.pub_name, relation, columns)
            for buffer, _ in copy_pieces(
                self.connection,
                f"COPY ({query}) TO STDOUT",
                max_rows=self._settings.piece_max_rows,
                max_bytes=self._settings.piece_max_bytes,
            ):
                yield decode_copy_text(
                    memoryview(buffer), relation.columns, types, str(relation.table)
                )

    def types_of(self, relation: Relation) -> TypeMap:
        return self._types({column.type_oid for column in relation.columns})


class PgSnapshotSource:
    """`SnapshotSource` by COPY."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[CopySnapshot]:
        with (
            exported_snapshot(self._settings, create_slot=create_slot) as exported,
            reader_connection(self._settings, exported) as connection,
        ):
            yield CopySnapshot(self._settings, connection, exported)


def select_statement(
    connection: Connection, pub_name: str, relation: Relation, columns: str
) -> str:
    """The rows that the stream would tell of: no inheritance children, and those of the filter."""
    condition = row_filter(connection, pub_name, relation.oid, relation.table.schema)
    row: Any = connection.execute(
        "SELECT relkind = 'p' FROM pg_class WHERE oid = %s", [relation.oid]
    ).fetchone()
    only = "" if row and row[0] else "ONLY "
    where = f" WHERE {condition}" if condition else ""
    return f"SELECT {columns} FROM {only}{_name(relation)}{where}"


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
