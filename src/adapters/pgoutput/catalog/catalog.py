"""The catalog port: discovered tables, what the stream sends of each, and the publication.

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
from adapters.pgoutput.catalog.streamability import (
    Obstacle,
    obstacles,
    quoted,
    stream_obstacle,
    told,
    updates_refused,
)
from adapters.pgoutput.catalog.table_files import is_empty, keeps_rows
from adapters.pgoutput.catalog.table_queries import read_tables, table_names
from adapters.pgoutput.session.connection import Session, server_major
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.session.sql_text import quote
from adapters.pgoutput.session.wal_position import HORIZON
from adapters.pgoutput.wire.type_rules import arrow_type
from cdc_core.ports.catalog import PassedOver, Reason, Schemas, SourceTable
from cdc_core.tables.selection import left_out
from cdc_core.values.errors import CdcError
from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.relation import Column, Relation, TableName

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.pgoutput.catalog.publication import Publication
    from adapters.pgoutput.catalog.table_queries import ColumnRow, TableRow
    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings

#: How often tables and publication are looked at, while other sessions change them meanwhile.
_LOOKS = 5

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

#: What else has rows, by `pg_class.relkind`.
_OTHER_KINDS = {"f": Reason.FOREIGN, "v": Reason.VIEW, "m": Reason.VIEW}


class PgCatalog:
    """`Catalog` of one database; its connection opens at first use. Close it at the end."""

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
        return [self._source_table(row, publication, connection, may_add=may_add) for row in rows]

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
        """The statement that creates the publication for the tables of now."""
        connection = self._limited_connection()
        rows = [row for row in self._discover(connection) if not stream_obstacle(row)]
        return create_statement(self._settings.pub_name, rows, server_major(connection))

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
        # What could be added is in by now.
        return [
            self._after_publishing(
                self._source_table(row, publication, connection, may_add=False),
                row,
                errors.get(row.stored.oid),
            )
            for row in rows
        ]

    def horizon(self) -> int:
        connection = self._limited_connection()
        with source_errors("looking for open transactions"):
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
        persistence=_persistence(row, publication),
        definition=row.stored.definition,
        partitions=tuple((leaf.oid, leaf.attached, leaf.filenode) for leaf in row.leaves),
        publication=publication.mark_of(row) if publication is not None else "",
        labels=tuple(sorted(row.types.labels)),
        enums=tuple(sorted(row.types.enums)),
        within=tuple(sorted(row.types.within)),
        paths=tuple((leaf.oid, leaf.path) for leaf in row.leaves),
        bounds=tuple((leaf.oid, leaf.bounds) for leaf in row.leaves if leaf.bounds),
        attributes=tuple(sorted(row.types.attributes)),
        place=publication.place_of(row) if publication is not None else "",
        unsent=tuple(c.attnum for c in row.columns if c.attnum not in sent),
        last_column=row.last_column,
    )


def _persistence(row: TableRow, publication: Publication | None) -> str:
    """Another one once the table was rewritten by ALTER TABLE; empty where that does not show."""
    if publication is not None and row.stored.oid in publication.tables:
        return "logged"  # PostgreSQL refuses SET UNLOGGED for a table that a publication names
    return str(row.stored.toast or "")


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
    found = obstacles(row)
    if publication is None:
        return told(found)
    if publication.holds(row):
        return told([*found, *publication.obstacles(row)])
    if not may_add:
        where = ", on the primary" if publication.standby else ""
        found.append(
            Obstacle(
                f"publication {publication.name} does not hold it, and the role may not add it "
                f"(the owner of both may{where})",
                f"ALTER PUBLICATION {quote(publication.name)} ADD TABLE ONLY {quoted(row.stored)}",
            )
        )
    return told(found)


def _key_unsent(
    row: TableRow, publication: Publication | None, unsent: Collection[str], major: int
) -> str:
    """What is left of a key identifies no row."""
    stored, statement = row.stored, ""
    if publication is not None and publication.column_list(row) is not None:
        statement = publication.with_columns(row, unsent)
    elif publication is not None and major >= 18 and not _virtual(row, unsent):
        name = quote(publication.name)
        statement = f"ALTER PUBLICATION {name} SET (publish_generated_columns = stored)"
    elif stored.unique_index and not {*stored.unique_columns} & {*unsent}:
        index = quote(stored.unique_index)
        statement = f"ALTER TABLE {quoted(stored)} REPLICA IDENTITY USING INDEX {index}"
    what = f"its key has columns that are not sent: {', '.join(sorted(unsent))}"
    return told([Obstacle(what, statement)])


def _virtual(row: TableRow, names: Collection[str]) -> bool:
    return any(column.generated == "v" for column in row.columns if column.name in names)
