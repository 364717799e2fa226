"""The rows that one statement reads: a page range of one relation, so that it takes few locks.

A partitioned table is read partition by partition. A SELECT from its root would lock all partitions
and all their indexes at once. The root is only used if the role may read nothing but the root.
Manual: "System Columns", ctid; `pg_inherits`; "Row Security Policies".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.session.sql_text import literal, quote
from adapters.pgoutput.snapshot.page_ranges import statement_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.snapshot.page_ranges import PageRange
    from cdc_core.values.relation import Relation


@dataclass(frozen=True)
class Stored:
    """A table, a leaf partition, or a whole partitioned table. `name` is its name in SQL.

    `pages` are the pages of each of its files; empty without files (a foreign table).
    """

    oid: int
    name: str
    pages: tuple[int, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class RowRange:
    """Rows of a relation, in the order of its file, without the first `skip`. `condition` and
    `columns` are SQL."""

    stored: Stored
    condition: str
    columns: tuple[str, ...]
    skip: int = 0

    @property
    def check(self) -> str:
        """A statement that locks the relation, and fails (SQLSTATE 22012) if its name now belongs
        to another one. It needs the same privileges as a SELECT of the columns."""
        same = f"pg_catalog.to_regclass({literal(self.stored.name)}) = {self.stored.oid}::oid"
        return (
            f"SELECT 1 / coalesce({same}, false)::int "
            f"WHERE NOT EXISTS (SELECT {self._from} LIMIT 0)"
        )

    def source(self, read: int = 0) -> str:
        """The SQL of a SELECT after its columns, without the first `read` rows."""
        skip = self.skip + read
        where = f" WHERE {self.condition}" if self.condition else ""
        if not skip:
            return self._from + where
        # Columns as they are stored, so that skipped rows are not detoasted.
        rows = f"SELECT {', '.join(self.columns)} {self._from}{where} OFFSET {skip}"
        return f"FROM ({rows}) AS rows"

    def found_again(self, connection: Connection) -> RowRange:
        """This range under the relation's current name. Raises `UndefinedTable` if it is gone."""
        # Locking a relation made the session see changes of others.
        row: Any = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE oid = %s", [self.stored.oid]
        ).fetchone()
        name = _existing(row[0] if row else str(self.stored.oid))
        return replace(self, stored=replace(self.stored, name=name))

    @property
    def _from(self) -> str:
        return f"FROM {'' if self.stored.whole else 'ONLY '}{self.stored.name}"


#: Whether a relation can be read by itself, with all rows.
_READABLE = (
    "has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') "
    "AND NOT row_security_active(c.oid)"
)

#: The table and all partitions below it, under their current names.
_TREE = f"""
WITH RECURSIVE tree (oid) AS (
  SELECT %s::oid
  UNION ALL
  SELECT i.inhrelid FROM tree JOIN pg_class c ON c.oid = tree.oid AND c.relkind = 'p'
  JOIN pg_inherits i ON i.inhparent = c.oid
)
SELECT c.oid, c.relkind::text, c.oid::regclass::text,
  CASE c.relkind WHEN 'r' THEN pg_relation_size(c.oid) / current_setting('block_size')::int END,
  {_READABLE}
FROM tree JOIN pg_class c ON c.oid = tree.oid ORDER BY c.oid
"""


def stored_relations(connection: Connection, relation: Relation) -> list[Stored]:
    """The relations that have a table's rows. Raises `UndefinedTable` for a dropped partition."""
    rows: list[Any] = connection.execute(_TREE, [relation.oid]).fetchall()
    name = f"{quote(relation.table.schema)}.{quote(relation.table.name)}"
    leaves = [
        Stored(
            oid, _existing(found) if oid != relation.oid else name, () if size is None else (size,)
        )
        for oid, kind, found, size, _ in rows
        if kind != "p"
    ]
    if not rows:  # created after the snapshot or dropped before; reading by name shows which
        return [Stored(relation.oid, name)]
    readable = all(may for oid, kind, *_, may in rows if kind != "p" or oid == relation.oid)
    if readable or [leaf.oid for leaf in leaves] == [relation.oid]:
        return leaves
    return [Stored(relation.oid, name, file_pages(leaves), whole=True)]


def file_pages(relations: list[Stored]) -> tuple[int, ...]:
    """Pages of all files; empty if one of the relations has no file."""
    if not all(stored.pages for stored in relations):
        return ()
    return tuple(size for stored in relations for size in stored.pages)


def row_ranges(
    relations: list[Stored],
    row_filter: str,
    columns: tuple[str, ...],
    page_range: PageRange,
    statement_pages: int | None = None,
) -> Iterator[RowRange]:
    """The rows in a page range that a filter admits. Relations without pages are in the first."""
    for stored in relations:
        if page_range.start and page_range.start >= max(stored.pages, default=0):
            continue
        statements = [page_range]
        if stored.pages:
            statements = statement_ranges(stored.pages, page_range, statement_pages)
        for pages in statements:
            conditions = [f"({each})" for each in (row_filter, pages.condition) if each]
            yield RowRange(stored, " AND ".join(conditions), columns)


#: For each table: the pages of its files, and the bytes of these and of values out of line.
_SIZES = """
WITH RECURSIVE tree (root, oid) AS (
  SELECT oid, oid FROM pg_class WHERE oid = ANY (%s)
  UNION ALL
  SELECT tree.root, i.inhrelid FROM tree JOIN pg_class c ON c.oid = tree.oid AND c.relkind = 'p'
  JOIN pg_inherits i ON i.inhparent = c.oid
)
SELECT tree.root,
  (coalesce(sum(pg_relation_size(c.oid)), 0) / current_setting('block_size')::int)::bigint,
  coalesce(sum(pg_relation_size(c.oid)), 0)::bigint
    + coalesce(sum(pg_relation_size(nullif(c.reltoastrelid, 0))), 0)::bigint
FROM tree JOIN pg_class c ON c.oid = tree.oid WHERE c.relkind = 'r' GROUP BY tree.root
"""


@dataclass(frozen=True)
class StoredSize:
    """The pages of a table's files, and the bytes of these and of values stored out of line."""

    pages: int = 0
    bytes: int = 0


def stored_sizes(connection: Connection, oids: list[int]) -> dict[int, StoredSize]:
    """The sizes of tables with their partitions; none for a table without files."""
    rows: list[Any] = connection.execute(_SIZES, [oids]).fetchall()
    return {oid: StoredSize(pages, size) for oid, pages, size in rows}


#: For each table: the relations locked to read its largest leaf, those locked to read it from the
#: root, and whether it is read by its leaves. Indexes, the TOAST table and its index count.
_LOCKED = f"""
WITH RECURSIVE tree (root, oid) AS (
  SELECT oid, oid FROM pg_class WHERE oid = ANY (%s)
  UNION ALL
  SELECT tree.root, i.inhrelid FROM tree JOIN pg_class c ON c.oid = tree.oid AND c.relkind = 'p'
  JOIN pg_inherits i ON i.inhparent = c.oid
), locked AS (
  SELECT tree.root, c.relkind, tree.root = c.oid AS is_root, {_READABLE} AS readable,
    1 + CASE WHEN c.reltoastrelid <> 0 THEN 2 ELSE 0 END
      + (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid) AS relations
  FROM tree JOIN pg_class c ON c.oid = tree.oid
)
SELECT root, coalesce(max(relations) FILTER (WHERE relkind <> 'p'), 0), sum(relations)::bigint,
  coalesce(bool_and(readable) FILTER (WHERE relkind <> 'p' OR is_root), false)
FROM locked GROUP BY root
"""


def relations_locked(connection: Connection, oids: list[int]) -> dict[int, int]:
    """The number of relations that a session locks at a time to read each table."""
    rows: list[Any] = connection.execute(_LOCKED, [oids]).fetchall()
    return {oid: by_leaf if readable else whole for oid, by_leaf, whole, readable in rows}


def _existing(name: str) -> str:
    # regclass prints the OID of a relation that does not exist.
    if name.isdigit():
        raise psycopg.errors.UndefinedTable("a partition is gone")
    return name
