"""The catalog port: discovers tables, reports what the stream sends of each, and publishes them.

Manual: "System Catalogs", "Publication".
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.catalog.catalog_types import CatalogTypes
from adapters.pgoutput.catalog.non_utf8_names import non_utf8_names
from adapters.pgoutput.catalog.publication import (
    MOVED,
    add_refused,
    complete_publication,
    create_publication,
    create_statement,
    drop_publication,
    read_publication,
)
from adapters.pgoutput.catalog.source_tables import source_table
from adapters.pgoutput.catalog.streamability import (
    stream_obstacle,
    updates_refused,
)
from adapters.pgoutput.catalog.table_files import is_empty, keeps_rows
from adapters.pgoutput.catalog.table_queries import read_tables, table_names
from adapters.pgoutput.session.connection import Session, server_major
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.session.wal_position import HORIZON
from cdc_core.ports.catalog import PassedOver, Reason, Schemas, SourceTable
from cdc_core.tables.selection import left_out
from cdc_core.values.errors import CdcError
from cdc_core.values.relation import TableName

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.pgoutput.catalog.publication import Publication
    from adapters.pgoutput.catalog.table_rows import TableRow
    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings

#: Attempts to publish, while other sessions change tables or the publication.
_ATTEMPTS = 5

_SCHEMAS = """
SELECT nspname::text FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY nspname
"""

_RELATIONS = """
SELECT n.nspname::text, c.relname::text, c.relkind::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition
  AND c.relpersistence <> 't' AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
      AND d.deptype = 'e' AND c.relkind NOT IN ('r', 'p'))
ORDER BY n.nspname, c.relname
"""

#: Other relations with rows, by `pg_class.relkind`.
_OTHER_KINDS = {"f": Reason.FOREIGN, "v": Reason.VIEW, "m": Reason.VIEW}


class PgCatalog:
    """`Catalog` of one database. The connection opens at first use. Call `close` at the end."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._session = Session(settings)
        self._types = CatalogTypes(lambda: nullcontext(self._session.connection))

    def schemas_found(self) -> Schemas:
        connection = self._limited_connection()
        with source_errors("reading the catalog"):
            rows: list[Any] = connection.execute(_SCHEMAS).fetchall()
        return Schemas(self._settings.schemas, [row[0] for row in rows])

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        connection = self._limited_connection()
        rows = self._discover(connection, oids)
        publication = self._publication(connection)
        may_add = publication is None or publication.manageable
        major = server_major(connection)
        return [source_table(row, publication, self._types, major, may_add=may_add) for row in rows]

    def passed_over(self) -> Sequence[PassedOver]:
        connection = self._limited_connection()
        settings = self._settings
        with source_errors("reading the catalog"):
            rows: Any = connection.execute(_RELATIONS, [list(settings.schemas)]).fetchall()
        found = []
        for schema, name, kind in rows:
            table = TableName(schema, name)
            reason = _OTHER_KINDS.get(kind) or left_out(table, settings.include, settings.exclude)
            if reason is not None:
                found.append(PassedOver(table, reason))
        return found

    def creating_publication(self) -> str:
        """The statement that creates the publication for the current tables."""
        connection = self._limited_connection()
        rows = [row for row in self._discover(connection) if not stream_obstacle(row)]
        return create_statement(self._settings.pub_name, rows, server_major(connection))

    def publish(self) -> Sequence[SourceTable]:
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._publish()
            except CdcError as error:
                if not isinstance(error.__cause__, MOVED):
                    raise
        return self._publish()

    def _publish(self) -> Sequence[SourceTable]:
        connection = self._limited_connection()
        rows = self._discover(connection)
        publication = self._publication(connection)
        streamable = [row for row in rows if not stream_obstacle(row)]
        errors: Mapping[int, psycopg.Error] = {}
        if publication is None:
            errors = create_publication(connection, self._settings.pub_name, streamable)
        elif publication.manageable:
            errors = complete_publication(
                connection,
                publication,
                add=[row for row in streamable if not publication.holds(row)],
                remove=[
                    row
                    for row in rows
                    if row.stored.oid in publication.tables and updates_refused(row)
                ],
            )
        publication = self._publication(connection)
        major = server_major(connection)
        # All tables that this role can add have been added.
        return [
            self._after_publishing(
                source_table(row, publication, self._types, major, may_add=False),
                row,
                errors.get(row.stored.oid),
            )
            for row in rows
        ]

    def horizon(self) -> int:
        connection = self._limited_connection()
        with source_errors("checking for open transactions"):
            row: Any = connection.execute(HORIZON).fetchone()
        return int(row[0])

    def settled(
        self, moved: Collection[int], attached: Collection[int], horizon: int
    ) -> frozenset[int]:
        connection = self._limited_connection()
        return frozenset(
            oid for oid in moved if horizon and keeps_rows(connection, oid, horizon)
        ) | frozenset(oid for oid in attached if is_empty(connection, oid))

    def names(self, oids: Collection[int]) -> Mapping[int, TableName]:
        connection = self._limited_connection()
        with source_errors("reading the catalog"):
            return table_names(connection, oids)

    def _after_publishing(
        self, table: SourceTable, row: TableRow, error: psycopg.Error | None
    ) -> SourceTable:
        if error is None or table.published:
            return table
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return replace(table, locked=True)
        refused = add_refused(error, self._settings.pub_name, row)
        return replace(table, refused=refused, not_streamed=str(refused))

    def drop_publication(self) -> bool:
        return drop_publication(self._limited_connection(), self._settings.pub_name)

    def close(self) -> None:
        self._session.close()

    def _limited_connection(self) -> Connection:
        connection = self._session.connection
        milliseconds = {
            "statement_timeout": self._settings.statement_timeout_seconds * 1000,
            "lock_timeout": self._settings.lock_timeout_seconds * 1000,
        }
        with source_errors("preparing the session"):
            for name, value in milliseconds.items():
                connection.execute(f"SET {name} = {int(value)}".encode())
        return connection

    def _discover(
        self, connection: Connection, oids: Collection[int] | None = None
    ) -> list[TableRow]:
        settings = self._settings
        with source_errors("reading the catalog"):
            try:
                rows = read_tables(connection, settings.schemas, oids)
            except psycopg.errors.CharacterNotInRepertoire:
                raise non_utf8_names(connection) from None
        return [
            row
            for row in rows
            if left_out(row.stored.table, settings.include, settings.exclude) is None
        ]

    def _publication(self, connection: Connection) -> Publication | None:
        with source_errors("reading the publication"):
            return read_publication(connection, self._settings.pub_name)
