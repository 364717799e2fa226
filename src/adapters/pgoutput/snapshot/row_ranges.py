"""What one statement reads of a table: a page range of one relation, so that few locks are held.

A partitioned table is read partition by partition: a SELECT from its root would lock every
partition with every index at once. Where the role may read the root only, that is how it is read.
Manual: "System Columns", ctid; `pg_inherits`; "Row Security Policies".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.session.sql_text import literal, quote
from adapters.pgoutput.snapshot.page_ranges import shares

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.snapshot.page_ranges import PageRange
    from cdc_core.values.relation import Relation


@dataclass(frozen=True)
class Stored:
    """A table, a leaf partition, or a partitioned table as a whole, under its `name` in SQL.

    `pages` are those of its files; none where it has none here (a foreign table).
    """

    oid: int
    name: str
    pages: tuple[int, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class RowRange:
    """Rows of a relation in the order of its file; `condition` and `columns` are SQL."""

    stored: Stored
    condition: str
    columns: tuple[str, ...]

    @property
    def check(self) -> str:
        """A statement that locks the relation, and fails (SQLSTATE 22012) where its name is
        another's by now. It needs no more privileges than a SELECT of the columns."""
        here = f"pg_catalog.to_regclass({literal(self.stored.name)}) = {self.stored.oid}::oid"
        return (
            f"SELECT 1 / coalesce({here}, false)::int "
            f"WHERE NOT EXISTS (SELECT {self._from} LIMIT 0)"
        )

    def source(self, behind: int = 0) -> str:
        """What a SELECT has after its columns, without the first `behind` rows."""
        where = f" WHERE {self.condition}" if self.condition else ""
        if not behind:
            return self._from + where
        # Columns as they are stored: nothing is detoasted for a row that is skipped.
        rows = f"SELECT {', '.join(self.columns)} {self._from}{where} OFFSET {behind}"
        return f"FROM ({rows}) AS rows"

    def found_again(self, connection: Connection) -> RowRange:
        """Under the name that the relation has now. Raises `UndefinedTable` where it is gone."""
        # Locking a relation has the session take in what others changed.
        row: Any = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE oid = %s", [self.stored.oid]
        ).fetchone()
        name = _there(row[0] if row else str(self.stored.oid))
        return replace(self, stored=replace(self.stored, name=name))

    @property
    def _from(self) -> str:
        return f"FROM {'' if self.stored.whole else 'ONLY '}{self.stored.name}"


#: Of a relation: whether it can be read by itself, with every row.
_READABLE = (
    "has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') "
    "AND NOT row_security_active(c.oid)"
)

#: The table and everything below it, with the names of now.
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
    """What the rows of a table are read from. Raises `UndefinedTable` for a lost partition."""
    rows: list[Any] = connection.execute(_TREE, [relation.oid]).fetchall()
    name = f"{quote(relation.table.schema)}.{quote(relation.table.name)}"
    leaves = [
        Stored(oid, _there(found) if oid != relation.oid else name, () if size is None else (size,))
        for oid, kind, found, size, _ in rows
        if kind != "p"
    ]
    if not rows:  # made after the snapshot, or gone before: reading by name tells which
        return [Stored(relation.oid, name)]
    readable = all(may for oid, kind, *_, may in rows if kind != "p" or oid == relation.oid)
    if readable or [leaf.oid for leaf in leaves] == [relation.oid]:
        return leaves
    return [Stored(relation.oid, name, file_pages(leaves), whole=True)]


def file_pages(relations: list[Stored]) -> tuple[int, ...]:
    """Pages of all files; none where not all of them are here."""
    if not all(stored.pages for stored in relations):
        return ()
    return tuple(size for stored in relations for size in stored.pages)


def row_ranges(
    relations: list[Stored], row_filter: str, columns: tuple[str, ...], part: PageRange
) -> Iterator[RowRange]:
    """The rows of a part that a filter admits; relations without pages are in the first part."""
    for stored in relations:
        if part.start and part.start >= max(stored.pages, default=0):
            continue
        for share in shares(stored.pages, part) if stored.pages else [part]:
            conditions = [f"({each})" for each in (row_filter, share.condition) if each]
            yield RowRange(stored, " AND ".join(conditions), columns)


#: For each table: relations that are locked to read its largest leaf, those to read it from its
#: root, and whether it is read by its leaves. A table has its indexes, and a TOAST table with one.
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
    """How many relations a session locks at a time to read each table."""
    rows: list[Any] = connection.execute(_LOCKED, [oids]).fetchall()
    return {oid: by_leaf if readable else whole for oid, by_leaf, whole, readable in rows}


def _there(name: str) -> str:
    # PostgreSQL gives the number of what has no name.
    if name.isdigit():
        raise psycopg.errors.UndefinedTable("a partition is gone")
    return name
