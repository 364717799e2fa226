"""The publication: its contents, and the statements that create and complete it.

`streamability` decides which tables can be published. Manual: "CREATE PUBLICATION", "ALTER
PUBLICATION", `pg_publication`, `pg_publication_rel`.
"""

from __future__ import annotations

import logging
import re
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.catalog.streamability import Obstacle, quoted
from adapters.pgoutput.session.connection import server_major
from adapters.pgoutput.session.source_errors import source_errors, translated
from adapters.pgoutput.session.sql_text import quote
from cdc_core.values.errors import CdcError, OperatorNeeded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.pgoutput.catalog.table_rows import StoredRow, TableRow
    from adapters.pgoutput.session.connection import Connection

_ACTIONS = ("insert", "update", "delete", "truncate")

#: A mark of a catalog row, which changes whenever the row is written.
_MARK = "oid || '/' || xmin::text"

#: Errors if another session changed tables or the publication since they were read.
MOVED = (
    psycopg.errors.DuplicateObject,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
)

#: Errors that are not about a single table.
_OF_ALL = (*MOVED, psycopg.errors.ReadOnlySqlTransaction)

#: A longer message of an event trigger is cut.
_MESSAGE_LENGTH = 300
_FUNCTION = re.compile(r"function (\S+)\(")

#: Tables and leaf partitions of a publication without a replica identity.
_REFUSING = """
SELECT ns.nspname::text, s.relname::text
FROM pg_publication_tables t
JOIN pg_namespace n ON n.nspname = t.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
JOIN LATERAL (SELECT c.oid UNION SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf) l ON true
JOIN pg_class s ON s.oid = l.oid AND s.relkind = 'r'
JOIN pg_namespace ns ON ns.oid = s.relnamespace
WHERE t.pubname = %s AND s.relreplident <> 'f' AND NOT EXISTS (
  SELECT FROM pg_index i WHERE i.indrelid = s.oid AND i.indisvalid AND i.indimmediate
    AND CASE s.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END)
ORDER BY 1, 2
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """A publication as the catalog describes it now.

    `tables` are those it names, by OID, with the column list (numbers; None: all columns) and the
    row filter (an SQL expression; empty: all rows). `manageable`: this role may alter it on this
    server, which is not a standby. `mark` is the mark of its catalog row, `marks` those of the
    tables that it names, by OID, and `schemas` those of its schemas.
    """

    name: str
    owner: str
    manageable: bool
    standby: bool
    all_tables: bool
    actions: frozenset[str]
    via_root: bool
    generated_columns: bool
    tables: Mapping[int, tuple[frozenset[int] | None, str]] = field(default_factory=dict)
    schemas: Mapping[int, str] = field(default_factory=dict)
    mark: str = ""
    marks: Mapping[int, str] = field(default_factory=dict)
    #: Quoted names of its tables whose updates PostgreSQL would refuse if they were published.
    refusing: Sequence[str] = ()

    def holds(self, table: TableRow) -> bool:
        return self._as_a_whole(table) or table.stored.oid in self.tables

    def column_list(self, table: TableRow) -> frozenset[int] | None:
        """Numbers of the columns that it sends; None: no column list."""
        return None if self._as_a_whole(table) else self.tables.get(table.stored.oid, (None, ""))[0]

    def mark_of(self, table: TableRow) -> str:
        """Changes whenever the way the table is published changes, even if it is changed back.
        Empty for a table that is not published."""
        if not self.holds(table):
            return ""
        own = self.schemas.get(table.schema_oid) or self.marks.get(table.stored.oid, "")
        return f"{self.mark} {'' if self.all_tables else own}".strip()

    def place_of(self, table: TableRow) -> str:
        """Changes when a table that is published by its schema was moved to another schema."""
        by_schema = not self.all_tables and table.schema_oid in self.schemas
        return table.place if by_schema else ""

    def obstacles(self, table: TableRow) -> list[Obstacle]:
        """Why the stream would not send all changes of the table; empty if it would."""
        name = quote(self.name)
        missing = [action for action in _ACTIONS if action not in self.actions]
        found = []
        if missing:
            # Once it publishes them, PostgreSQL refuses UPDATE and DELETE of rows it cannot
            # identify.
            identities = [f"ALTER TABLE {one} REPLICA IDENTITY FULL; " for one in self.refusing]
            statement = f"ALTER PUBLICATION {name} SET (publish = '{', '.join(_ACTIONS)}')"
            what = f"publication {self.name} does not publish {', '.join(missing)}"
            found.append(Obstacle(what, "".join(identities) + statement))
        if table.partitioned and not self.via_root:
            what = f"publication {self.name} publishes its partitions separately"
            statement = f"ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"
            found.append(Obstacle(what, statement))
        return found

    def with_columns(self, table: TableRow, names: Collection[str]) -> str:
        """Statements that publish these columns of the table too, and change nothing else."""
        name, which = quote(self.name), _only(table)
        numbers, row_filter = self.tables[table.stored.oid]
        columns = ", ".join(
            quote(column.name)
            for column in table.columns
            if column.attnum in (numbers or ()) or column.name in names
        )
        where = f" WHERE ({row_filter})" if row_filter else ""
        return (
            f"BEGIN; ALTER PUBLICATION {name} DROP TABLE {which}; "
            f"ALTER PUBLICATION {name} ADD TABLE {which} ({columns}){where}; COMMIT"
        )

    def _as_a_whole(self, table: TableRow) -> bool:
        return self.all_tables or table.schema_oid in self.schemas


def read_publication(connection: Connection, name: str) -> Publication | None:
    """The publication with this name; None if it does not exist."""
    major = server_major(connection)
    generated = "pubgencols::text = 's'" if major >= 18 else "false"
    row: Any = connection.execute(
        f"""SELECT oid, pg_get_userbyid(pubowner)::text,
                   pg_has_role(pubowner, 'USAGE') AND NOT pg_is_in_recovery(),
                   pg_is_in_recovery(), puballtables, pubinsert, pubupdate, pubdelete,
                   pubtruncate, pubviaroot, {generated}, {_MARK}
            FROM pg_publication WHERE pubname = %s""",
        [name],
    ).fetchone()
    if row is None:
        return None
    details = "prattrs::int2[], pg_get_expr(prqual, prrelid)" if major >= 15 else "NULL, NULL"
    tables: list[Any] = connection.execute(
        f"SELECT prrelid, {details}, {_MARK} FROM pg_publication_rel WHERE prpubid = %s", [row[0]]
    ).fetchall()
    schemas: list[Any] = []
    if major >= 15:
        schemas = connection.execute(
            f"SELECT pnnspid, {_MARK} FROM pg_publication_namespace WHERE pnpubid = %s", [row[0]]
        ).fetchall()
    actions = frozenset(a for a, on in zip(_ACTIONS, row[5:9], strict=True) if on)
    refusing: list[Any] = []
    if not {"update", "delete"} <= actions:
        refusing = connection.execute(_REFUSING, [name]).fetchall()
    return Publication(
        name,
        owner=row[1],
        manageable=row[2],
        standby=row[3],
        all_tables=row[4],
        actions=actions,
        via_root=row[9],
        generated_columns=row[10],
        tables={
            oid: (None if numbers is None else frozenset(numbers), row_filter or "")
            for oid, numbers, row_filter, _ in tables
        },
        schemas=dict(schemas),
        mark=row[11],
        marks={oid: mark for oid, *_, mark in tables},
        refusing=[f"{quote(schema)}.{quote(table)}" for schema, table in refusing],
    )


def row_filter(connection: Connection, publication_name: str, oid: int, schema: str) -> str:
    """The SQL condition for a table's published rows; empty: all rows."""
    if server_major(connection) < 15:
        return ""
    row: Any = connection.execute(
        """SELECT pg_get_expr(r.prqual, r.prrelid)
           FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
           WHERE p.pubname = %s AND r.prrelid = %s AND NOT p.puballtables AND NOT EXISTS (
             SELECT FROM pg_publication_namespace s JOIN pg_namespace n ON n.oid = s.pnnspid
             WHERE s.pnpubid = p.oid AND n.nspname = %s)""",
        [publication_name, oid, schema],
    ).fetchone()
    return (row[0] or "") if row else ""


def create_statement(name: str, tables: Sequence[TableRow], major: int) -> str:
    """The statement that creates the publication. Also the cure if a privilege is missing."""
    options = f"publish = '{', '.join(_ACTIONS)}', publish_via_partition_root = true"
    if major >= 18:
        options += ", publish_generated_columns = stored"
    which = f" FOR TABLE {', '.join(map(_only, tables))}" if tables else ""
    return f"CREATE PUBLICATION {quote(name)}{which} WITH ({options})"


def create_publication(
    connection: Connection, name: str, tables: Sequence[TableRow]
) -> Mapping[int, psycopg.Error]:
    """Create the publication. Returns the errors for tables that PostgreSQL refuses to add, by OID.

    Tables are added one by one. A single statement would lock all tables, and wait for one lock
    while it holds the others. If PostgreSQL refuses all tables or the publication itself, no
    publication is left, and the error is raised.
    """
    major = server_major(connection)
    statement = create_statement(name, tables, major)
    try:
        connection.execute(create_statement(name, (), major).encode())
        errors = _add(connection, name, tables)
    except psycopg.Error as refused:
        raise _not_created(refused, name, statement) from refused
    if tables and len(errors) == len(tables):
        _try(connection, f"DROP PUBLICATION {quote(name)}")
        first = next(iter(errors.values()))
        raise _not_created(first, name, statement) from first
    return errors


def _not_created(error: psycopg.Error, name: str, statement: str) -> CdcError:
    doing = f"creating publication {name!r}"
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        cure = f"run on the primary, as the tables' owner: {statement}"
        return translated(error, doing, cure)
    found = translated(error, doing, f"run as {_who(error)}: {statement}")
    return found if type(found) is not CdcError else refusal(error, doing, statement)


def complete_publication(
    connection: Connection,
    publication: Publication,
    add: Sequence[TableRow],
    remove: Sequence[TableRow],
) -> Mapping[int, psycopg.Error]:
    """Publish all actions, by the roots of partitioned tables; remove and add tables.

    Tables are added one by one. Returns the errors for those that PostgreSQL refuses to add, by
    OID: another owner, a lock of another session, an event trigger. Other refused changes are
    logged as warnings.
    """
    name = quote(publication.name)
    with source_errors(f"altering publication {publication.name!r}"):
        for table in remove:
            _try(connection, f"ALTER PUBLICATION {name} DROP TABLE {_only(table)}")
        options = []
        gone = {quoted(stored) for row in remove for stored in (row.stored, *row.leaves)}
        # Writes of the application to a table that we may not remove would fail.
        if publication.actions != frozenset(_ACTIONS) and gone.issuperset(publication.refusing):
            options.append(f"publish = '{', '.join(_ACTIONS)}'")
        if not publication.via_root:
            options.append("publish_via_partition_root = true")
        if options and not publication.all_tables and not publication.schemas:
            _try(connection, f"ALTER PUBLICATION {name} SET ({', '.join(options)})")
        return _add(connection, publication.name, add)


def add_refused(error: psycopg.Error, name: str, table: TableRow) -> CdcError:
    """Why a table cannot be published, with the statement for a role that may publish it."""
    return refusal(error, f"adding it to publication {name!r}", _add_statement(name, table))


def drop_publication(connection: Connection, name: str) -> bool:
    """Drop it. False if it does not exist, or if this role may not drop it."""
    with source_errors(f"dropping publication {name!r}"):
        if read_publication(connection, name) is None:
            return False
        statement = f"DROP PUBLICATION IF EXISTS {quote(name)}"
        try:
            connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            _log.warning(
                "publication %s belongs to another role and stays; its owner can run: %s",
                name,
                statement,
            )
            return False
        except psycopg.Error as error:
            if connection.closed:
                raise
            _log.warning("publication %s stays: %s", name, refusal(error, "dropping it", statement))
            return False
        return True


def refusal(error: psycopg.Error, doing: str, statement: str) -> OperatorNeeded:
    """The error for a refused statement on the publication. It quotes PostgreSQL's message for any
    SQLSTATE, because the statement touches no row, and an event trigger gives its reason there."""
    said = " ".join((error.diag.message_primary or str(error)).split())
    said = textwrap.shorten(said, _MESSAGE_LENGTH, placeholder=" ...")
    return OperatorNeeded(
        f"PostgreSQL refuses {doing}: {said} (SQLSTATE {error.sqlstate})",
        f"run as {_who(error)}: {statement}",
    )


def _who(error: psycopg.Error) -> str:
    """The role that may run the refused statement."""
    function = _FUNCTION.search(error.diag.context or "")
    if function is not None:
        return f"a role that the event trigger's function {function[1]} lets through"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "owner of the tables and the publication"
    return "a role that may"


def _add(
    connection: Connection, name: str, tables: Sequence[TableRow]
) -> Mapping[int, psycopg.Error]:
    refused: dict[int, psycopg.Error] = {}
    for table in tables:
        error = _refused(connection, _add_statement(name, table))
        if error is not None:
            refused[table.stored.oid] = error
    return refused


def _try(connection: Connection, statement: str) -> None:
    error = _refused(connection, statement)
    if error is not None:
        _log.warning("%s", refusal(error, "a change of the publication", statement))


def _refused(connection: Connection, statement: str) -> psycopg.Error | None:
    """Run a statement on the publication. Returns the error if only this statement is refused."""
    try:
        with connection.transaction():
            connection.execute(statement.encode())
    except psycopg.Error as error:
        if connection.closed or isinstance(error, _OF_ALL):
            raise
        return error
    return None


def _add_statement(name: str, table: TableRow) -> str:
    return f"ALTER PUBLICATION {quote(name)} ADD TABLE {_only(table)}"


def _only(table: TableRow) -> str:
    """Without ONLY, the inheritance children of a table would be added too."""
    stored: StoredRow = table.stored
    return f"ONLY {quoted(stored)}"
