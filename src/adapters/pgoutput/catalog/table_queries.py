"""Queries of the system catalog that describe tables, without locks on the tables.

Functions that open a table (`pg_partition_tree`, `pg_get_expr`) would wait for a session that has
locked it.
Manual: `pg_class`, `pg_attribute`, `pg_index`, `pg_inherits`, `pg_enum`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adapters.pgoutput.catalog.partition_bounds import partition_bounds
from adapters.pgoutput.catalog.table_rows import ColumnRow, ColumnTypes, StoredRow, TableRow
from cdc_core.values.fingerprint import Attributes, Label
from cdc_core.values.relation import ReplicaIdentity, TableName

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.pgoutput.session.connection import Connection


#: Names of a key's columns, in column order. A deferrable or invalid index identifies no row.
_KEY = """
(SELECT array_agg(a.attname::text ORDER BY a.attnum)
 FROM pg_index i
 JOIN pg_attribute a ON a.attrelid = c.oid
   AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
 WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND {which})
"""

#: Name and columns of an index that can be a replica identity: unique, immediate, not partial, and
#: without nullable columns. SQL_ASCII allows names that no client can show.
_UNIQUE = """
(SELECT ARRAY[ic.relname::text] || array_agg(a.attname::text ORDER BY a.attnum)
 FROM pg_index i
 JOIN pg_class ic ON ic.oid = i.indexrelid
 JOIN pg_attribute a ON a.attrelid = c.oid
   AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
 WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
   AND i.indpred IS NULL AND i.indexprs IS NULL
   AND (getdatabaseencoding() <> 'SQL_ASCII' OR ic.relname::text ~ '^[ -~]*$')
 GROUP BY ic.relname, i.indnkeyatts HAVING bool_and(a.attnotnull)
 ORDER BY i.indnkeyatts, ic.relname LIMIT 1)
"""

#: The ctid row of pg_attribute is written once, when the table is created.
_STORED = f"""
  c.oid, n.nspname::text, c.relname::text, c.relfilenode, c.relreplident::text,
  {_KEY.format(which="i.indisprimary")}, {_KEY.format(which="i.indisreplident")},
  CASE c.relkind WHEN 'f' THEN 'f' ELSE c.relpersistence::text END,
  (SELECT md5(string_agg(a.attnum || ':' || a.xmin::text, ',' ORDER BY a.attnum))
   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), c.reltoastrelid,
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary
    AND NOT i.indimmediate), {_UNIQUE}
"""

#: The number of these columns. Other columns of a query follow them.
_STORED_WIDTH = 12

_TABLES = f"""
SELECT {_STORED}, c.relkind = 'p', n.oid, c.reltuples::float8,
  (c.relpages + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0))
    * current_setting('block_size')::bigint,
  (SELECT d.xmin::text FROM pg_depend d
   WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
     AND d.refclassid = 'pg_namespace'::regclass), c.relnatts
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relpersistence <> 't' AND (%s::oid[] IS NULL OR c.oid = ANY (%s::oid[]))
ORDER BY n.nspname, c.relname
"""

#: The column's number in the root, as in `3 FOR VALUES …`; NULL for several, or an expression.
_BOUND = """
(SELECT k.attnum || ' ' || pg_get_expr(b.relpartbound, b.oid)
 FROM pg_partitioned_table p JOIN pg_class b ON b.oid = i.inhrelid
 JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
 JOIN pg_attribute k ON k.attname = a.attname AND k.attrelid = {root}
 WHERE p.partrelid = i.inhparent AND p.partnatts = 1 AND p.partstrat IN ('l', 'r'))
"""

#: A partition whose DETACH CONCURRENTLY has begun does not count: no query of the root sees it.
_LEAVES = f"""
WITH RECURSIVE tree (root, oid, attached, path, bounds) AS (
  SELECT r.oid, i.inhrelid, {{attached}}, i.xmin::text, ARRAY[{{root_bound}}]
  FROM pg_class r JOIN pg_inherits i ON i.inhparent = r.oid
  WHERE r.oid = ANY (%s) AND NOT i.inhdetachpending
  UNION ALL
  SELECT t.root, i.inhrelid, t.attached OR {{attached}}, t.path || '/' || i.xmin::text,
    t.bounds || {{bound}}
  FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
)
SELECT {_STORED}, t.root, t.attached, t.path, t.bounds, c.reltuples::float8,
  (c.relpages + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0))
    * current_setting('block_size')::bigint
FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'f')
ORDER BY t.root, c.oid
""".format(
    # CREATE TABLE PARTITION OF writes the partition's catalog rows in one command. ATTACH runs in a
    # later transaction, or at least writes the row of each column again. A row with an `xmax`
    # proves nothing: a change that was rolled back leaves its command number in place of `cmin`.
    attached=(
        "NOT EXISTS (SELECT FROM pg_attribute s JOIN pg_attribute a ON a.attrelid = s.attrelid "
        "AND a.attnum > 0 AND a.xmin = s.xmin AND a.cmin = s.cmin "
        "AND a.xmax = 0 AND s.xmax = 0 "
        "WHERE s.attrelid = i.inhrelid AND s.attname = 'ctid' AND s.xmin = i.xmin)"
    ),
    root_bound=_BOUND.format(root="r.oid"),
    bound=_BOUND.format(root="t.root"),
)

#: A default that was dropped again still shows in rows that are older than the column.
_COLUMNS = """
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod,
  format_type(a.atttypid, a.atttypmod), a.attgenerated::text,
  a.atthasdef OR a.attidentity <> '' OR a.atthasmissing OR EXISTS (
    SELECT FROM pg_type t WHERE t.oid = a.atttypid AND t.typdefault IS NOT NULL)
  OR c.relkind = 'p' AND EXISTS (
    WITH RECURSIVE tree (oid) AS (
      SELECT c.oid
      UNION ALL
      SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid)
    SELECT FROM tree t JOIN pg_attribute l ON l.attrelid = t.oid
    WHERE l.attname = a.attname AND l.atthasmissing)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attrelid = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""


#: Objects created after `initdb` have OIDs from here on. That includes all enums.
_FIRST_USER_OID = 16384

#: For each type, the labels of enums and the marks of composite types that it contains, as a
#: domain, array, range or row. `bare`: its values are those of a domain's base type. A row with the
#: `xmin` and `cmin` of its type's row was written with the type and has not changed since. A row
#: with an `xmax` proves nothing here either. The text of a composite value does not have the names
#: of its attributes, but rows sent earlier have the values of attributes dropped since.
_IN_TYPES = """
WITH RECURSIVE parts (whole, part, bare) AS (
  SELECT oid, oid, true FROM pg_type WHERE oid = ANY (%s)
  UNION
  SELECT p.whole, n.part, p.bare AND n.bare FROM parts p JOIN LATERAL (
    SELECT t.typbasetype, true FROM pg_type t WHERE t.oid = p.part
    UNION ALL
    SELECT t.typelem, false FROM pg_type t WHERE t.oid = p.part
    UNION ALL
    SELECT r.rngsubtype, false FROM pg_range r WHERE p.part IN (r.rngtypid, r.rngmultitypid)
    UNION ALL
    SELECT a.atttypid, false FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
    WHERE t.oid = p.part AND a.attnum > 0 AND NOT a.attisdropped
  ) n (part, bare) ON n.part <> 0
)
SELECT p.whole, p.part, p.bare, e.oid, e.enumlabel::text, e.xmin::text,
  e.xmin = t.xmin AND e.cmin = t.cmin AND e.xmax = 0 AND t.xmax = 0
FROM parts p JOIN pg_type t ON t.oid = p.part JOIN pg_enum e ON e.enumtypid = p.part
UNION ALL
SELECT p.whole, p.part, NULL, NULL, NULL, md5(string_agg(
  concat_ws(':', a.attnum, a.atttypid, a.atttypmod, a.attisdropped), ',' ORDER BY a.attnum)),
  bool_and(a.xmin = t.xmin AND a.cmin = t.cmin AND a.xmax = 0 AND t.xmax = 0)
FROM parts p JOIN pg_type t ON t.oid = p.part
JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
GROUP BY p.whole, p.part
"""


def read_tables(
    connection: Connection, schemas: Sequence[str], only: Collection[int] | None = None
) -> list[TableRow]:
    """Ordinary and partitioned tables of the schemas, in the order of their names. With `only`,
    just those with these OIDs. Partitions are part of their root."""
    cursor = connection.cursor()
    wanted = None if only is None else list(only)
    tables: list[Any] = cursor.execute(_TABLES, [list(schemas), wanted, wanted]).fetchall()
    oids = [row[0] for row in tables]
    columns: dict[int, list[ColumnRow]] = {oid: [] for oid in oids}
    for oid, *fields in _rows(connection, _COLUMNS, oids):
        columns[oid].append(ColumnRow(*fields))
    types = {c.type_oid for of_table in columns.values() for c in of_table}
    contained = _in_types(connection, types)
    roots = [row[0] for row in tables if row[_STORED_WIDTH]]
    leaves: dict[int, list[tuple[StoredRow, float, int]]] = {oid: [] for oid in roots}
    if roots:
        for row in _rows(connection, _LEAVES, roots):
            root, attached, path, bounds, count, size = row[_STORED_WIDTH:]
            stored = _stored(row[:_STORED_WIDTH], attached=attached, path=path)
            stored = replace(stored, bounds=partition_bounds(bounds))
            leaves[root].append((stored, count, size))
    return [_table(row, columns[row[0]], leaves.get(row[0], []), contained) for row in tables]


def primary_key(connection: Connection, oid: int) -> tuple[str, ...]:
    """The current primary key of a table, unless it is deferrable."""
    query = f"SELECT {_KEY.format(which='i.indisprimary')} FROM pg_class c WHERE c.oid = %s"
    row: Any = connection.execute(query, [oid]).fetchone()
    return tuple(row[0] or ()) if row else ()


def column_numbers(connection: Connection, oids: Sequence[int]) -> Mapping[int, dict[str, int]]:
    """Column numbers by name, for each table that still exists."""
    numbers: dict[int, dict[str, int]] = {}
    for oid, attnum, name, *_ in _rows(connection, _COLUMNS, list(oids)):
        numbers.setdefault(oid, {})[name] = attnum
    return numbers


def table_names(connection: Connection, oids: Collection[int]) -> dict[int, TableName]:
    """Names of the tables that still exist, in any schema."""
    query = (
        "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (%s)"
    )
    return {oid: TableName(*name) for oid, *name in _rows(connection, query, list(oids))}


def _in_types(connection: Connection, types: Collection[int]) -> dict[int, ColumnTypes]:
    """Enums and composite types in each type."""
    found: dict[int, ColumnTypes] = {}
    users = [oid for oid in types if oid >= _FIRST_USER_OID]
    for whole, part, bare, number, text, mark, original in (
        _rows(connection, _IN_TYPES, users) if users else ()
    ):
        if number is None:
            one = ColumnTypes(attributes=frozenset([Attributes(part, mark, original)]))
        else:
            one = ColumnTypes(
                labels=frozenset([Label(number, text, part, mark, original)]),
                enums=frozenset([(whole, part)] if bare else ()),
                within=frozenset(() if bare else [part]),
            )
        found[whole] = found.get(whole, ColumnTypes()) | one
    return found


def _rows(connection: Connection, query: str, oids: list[int]) -> list[Any]:
    return connection.execute(query, [oids]).fetchall()


def _table(
    row: Any,
    columns: list[ColumnRow],
    leaves: list[tuple[StoredRow, float, int]],
    contained: Mapping[int, ColumnTypes],
) -> TableRow:
    partitioned, schema_oid, tuples, size, place, last_column = row[_STORED_WIDTH:]
    if partitioned:
        tuples = sum(max(tuples, 0) for _, tuples, _ in leaves)
        size = sum(size for _, _, size in leaves)
    types = ColumnTypes()
    for type_oid in {column.type_oid for column in columns}:
        types |= contained.get(type_oid, ColumnTypes())
    return TableRow(
        _stored(row[:_STORED_WIDTH]),
        partitioned,
        schema_oid,
        tuple(columns),
        tuple(stored for stored, _, _ in leaves),
        max(int(tuples), 0),
        size,
        types,
        place or "",
        last_column,
    )


def _stored(row: Any, *, attached: bool = False, path: str = "") -> StoredRow:
    oid, schema, name, filenode, identity, key, index, persistence, definition, *more = row
    toast, deferrable, unique = more
    return StoredRow(
        oid,
        TableName(schema, name),
        filenode,
        ReplicaIdentity(identity),
        tuple(key or ()),
        tuple(index or ()),
        persistence,
        definition or "",
        toast,
        attached,
        path,
        deferrable,
        unique[0] if unique else "",
        tuple(unique[1:]) if unique else (),
    )
