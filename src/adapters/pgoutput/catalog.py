"""The catalog port: discovered tables, what the stream sends of each, and the publication.

Manual: "System Catalogs", "Publication".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.catalog_types import CatalogTypes
from adapters.pgoutput.connection import Session, server_major
from adapters.pgoutput.odd_names import odd_names
from adapters.pgoutput.publication import (
    MOVED,
    complete_publication,
    create_publication,
    drop_publication,
    read_publication,
)
from adapters.pgoutput.source_errors import source_errors
from adapters.pgoutput.streamability import quote, quoted, stream_obstacle, updates_refused
from adapters.pgoutput.table_rows import read_tables
from adapters.pgoutput.wire.types import arrow_type
from cdc_core.errors import CdcError
from cdc_core.fingerprint import Fingerprint
from cdc_core.ports.catalog import Schemas, SourceTable
from cdc_core.relation import Column, Relation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from adapters.pgoutput.connection import Connection
    from adapters.pgoutput.publication import Publication
    from adapters.pgoutput.settings import SourceSettings
    from adapters.pgoutput.table_rows import ColumnRow, TableRow

#: Tables of dlt's own, in a database that was a destination once.
_DLT_PREFIX = "_dlt"

#: How often tables and publication are looked at, while other sessions change them meanwhile.
_LOOKS = 5

_SCHEMAS = """
SELECT nspname::text FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY nspname
"""


class PgCatalog:
    """`Catalog` of one database; its connection opens at first use. Close it at the end."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._session = Session(settings)
        self._types = CatalogTypes(lambda: self._session.connection)

    def schemas_found(self) -> Schemas:
        connection = self._limited_connection()
        with source_errors("reading the catalog"):
            rows: list[Any] = connection.execute(_SCHEMAS).fetchall()
        return Schemas(self._settings.schemas, [row[0] for row in rows])

    def tables(self) -> Sequence[SourceTable]:
        connection = self._limited_connection()
        rows = self._discover(connection)
        publication = self._publication(connection)
        may_add = publication is None or publication.manageable
        return [self._source_table(row, publication, connection, may_add=may_add) for row in rows]

    def publish(self) -> Sequence[SourceTable]:
        for _ in range(_LOOKS - 1):
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
        locked: frozenset[int] = frozenset()
        if publication is None:
            create_publication(connection, self._settings.pub_name, streamable)
        elif publication.manageable:
            locked = complete_publication(
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
        # What could be added is in by now.
        return [
            replace(
                self._source_table(row, publication, connection, may_add=False),
                locked=row.stored.oid in locked,
            )
            for row in rows
        ]

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

    def _discover(self, connection: Connection) -> list[TableRow]:
        settings = self._settings
        with source_errors("reading the catalog"):
            try:
                rows = read_tables(connection, settings.schemas)
            except psycopg.errors.CharacterNotInRepertoire:
                raise odd_names(connection) from None
        return [
            row
            for row in rows
            if not row.stored.table.name.startswith(_DLT_PREFIX)
            and row.stored.table.matches(settings.include)
            and not row.stored.table.matches(settings.exclude)
        ]

    def _publication(self, connection: Connection) -> Publication | None:
        with source_errors("reading the publication"):
            return read_publication(connection, self._settings.pub_name)

    def _source_table(
        self,
        row: TableRow,
        publication: Publication | None,
        connection: Connection,
        *,
        may_add: bool,
    ) -> SourceTable:
        published = publication is not None and publication.holds(row)
        major = server_major(connection)
        columns = _sent_columns(row, publication, major)
        unsent = {*row.stored.stream_key} - {column.name for column in columns}
        types = self._types({column.type_oid for column in columns})
        relation = Relation(
            row.stored.oid,
            row.stored.table,
            tuple(
                Column(
                    column.name,
                    arrow_type(types[column.type_oid], column.typmod),
                    column.type_oid,
                    column.typmod,
                    column.attnum,
                    column.pg_type,
                    column.has_default,
                )
                for column in columns
            ),
            row.stored.identity,
            () if unsent else row.stored.stream_key,
        )
        not_streamed = _not_streamed(row, publication, may_add=may_add)
        if unsent and not not_streamed:
            not_streamed = _key_unsent(row, publication, unsent, major)
        return SourceTable(
            relation,
            fingerprint(row, publication, {column.attnum for column in columns}),
            published,
            not_streamed,
            row.estimated_rows,
            row.total_bytes,
        )


def fingerprint(
    row: TableRow, publication: Publication | None, sent: Collection[int]
) -> Fingerprint:
    """Marks of the table's files and definition; see `Fingerprint` for what they tell. `sent` are
    the numbers of the columns in the stream."""
    return Fingerprint(
        storage="" if row.partitioned else str(row.stored.filenode),
        definition=row.stored.definition,
        partitions=tuple((leaf.oid, leaf.attached, leaf.filenode) for leaf in row.leaves),
        publication=publication.mark_of(row) if publication is not None else "",
        labels=row.labels,
        paths=tuple((leaf.oid, leaf.path) for leaf in row.leaves),
        attributes=row.attributes,
        place=publication.place_of(row) if publication is not None else "",
        unsent=tuple(c.attnum for c in row.columns if c.attnum not in sent),
        last_column=row.last_column,
    )


def _sent_columns(
    row: TableRow, publication: Publication | None, major: int
) -> tuple[ColumnRow, ...]:
    """Columns that the stream sends: a publication's list, without generated ones it leaves out."""
    listed = publication.column_list(row) if publication is not None else None
    # Where there is no publication yet, ours will publish what it can.
    generated = publication.generated_columns if publication is not None else True
    return tuple(
        column
        for column in row.columns
        if (listed is None or column.attnum in listed)
        and (
            column.generated == ""
            or (column.generated == "s" and major >= 18 and (listed is not None or generated))
        )
    )


def _not_streamed(row: TableRow, publication: Publication | None, *, may_add: bool) -> str:
    obstacle = stream_obstacle(row)
    if obstacle or publication is None:
        return obstacle
    if publication.holds(row):
        return publication.obstacle(row)
    if may_add:
        return ""
    return (
        f"publication {publication.name} does not hold it, and the role may not add it; run as "
        f"owner of both: ALTER PUBLICATION {quote(publication.name)} "
        f"ADD TABLE {quoted(row.stored)}"
    )


def _key_unsent(
    row: TableRow, publication: Publication | None, unsent: Collection[str], major: int
) -> str:
    """What is left of a key identifies no row."""
    name = quoted(row.stored)
    cure = f"ALTER TABLE {name} REPLICA IDENTITY USING INDEX <a unique index without them>"
    if publication is not None:
        alter = f"ALTER PUBLICATION {quote(publication.name)}"
        if publication.column_list(row) is not None:
            cure = f"{alter} DROP TABLE {name}, then {alter} ADD TABLE {name}"
        elif major >= 18:
            cure = f"{alter} SET (publish_generated_columns = stored)"
    return f"its key has columns that are not sent: {', '.join(sorted(unsent))}; run: {cure}"
