"""Rows of the system catalog that describe tables: one query each, no locks on the tables.

Functions that open a table (`pg_partition_tree`, `pg_get_expr`) would wait for who has it locked.
Manual: `pg_class`, `pg_attribute`, `pg_index`, `pg_inherits`, `pg_enum`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from adapters.pgoutput.catalog.partition_bounds import partition_bounds
from cdc_core.values.fingerprint import Attributes, Label
from cdc_core.values.relation import ReplicaIdentity, TableName

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.pgoutput.session.connection import Connection
    from cdc_core.values.partition_bounds import Bound


@dataclass(frozen=True)
class ColumnRow:
    """A live column. `generated` is `pg_attribute.attgenerated`: "", "s" (stored) or "v"."""

    attnum: int
    name: str
    type_oid: int
    typmod: int
    pg_type: str
    generated: str
    has_default: bool


@dataclass(frozen=True)
class StoredRow:
    """A table or leaf partition, as far as its files and its replica identity go.

    `attached`: it was a table of its own before it became a partition. `primary_key` and
    `identity_index` are columns in their order. `deferrable_key`: it has a primary key that
    identifies nothing, as it may be deferred. `unique_index` could be its replica identity (empty:
    none), `unique_columns` are the index's. `persistence` is "p", "u" (unlogged) or "f" (a
    foreign table). `definition` changes when any column's catalog row is written, `path` when the
    leaf or a partition above it is attached once more. `toast` is the table that keeps its long
    values (0: it has none): an ALTER TABLE that rewrites makes another, VACUUM FULL does not.
    `bounds` are a leaf's, one a level; none where one of them is not of a single column.
    """

    oid: int
    table: TableName
    filenode: int
    identity: ReplicaIdentity
    primary_key: tuple[str, ...]
    identity_index: tuple[str, ...]
    persistence: str
    definition: str = ""
    toast: int = 0
    attached: bool = False
    path: str = ""
    deferrable_key: bool = False
    unique_index: str = ""
    unique_columns: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()

    @property
    def stream_key(self) -> tuple[str, ...]:
        """Columns by which the stream identifies a row; empty if there are none."""
        match self.identity:
            case ReplicaIdentity.DEFAULT | ReplicaIdentity.FULL:
                return self.primary_key
            case ReplicaIdentity.INDEX:
                return self.identity_index
            case ReplicaIdentity.NOTHING:
                return ()


@dataclass(frozen=True)
class ColumnTypes:
    """Enums and composite types in some columns; the fields are those of `Fingerprint`."""

    labels: frozenset[Label] = frozenset()
    attributes: frozenset[Attributes] = frozenset()
    enums: frozenset[tuple[int, int]] = frozenset()
    within: frozenset[int] = frozenset()

    def __or__(self, other: ColumnTypes) -> ColumnTypes:
        return ColumnTypes(
            self.labels | other.labels,
            self.attributes | other.attributes,
            self.enums | other.enums,
            self.within | other.within,
        )


@dataclass(frozen=True)
class TableRow:
    """An ordinary table or a partitioned one (with its leaf partitions), as the catalog has it."""

    stored: StoredRow
    partitioned: bool
    schema_oid: int
    columns: tuple[ColumnRow, ...]
    leaves: tuple[StoredRow, ...]
    estimated_rows: int
    total_bytes: int
    #: What its columns are made of.
    types: ColumnTypes = ColumnTypes()
    #: Changes when the table is put into a schema.
    place: str = ""
    #: The greatest number that a column ever had.
    last_column: int = 0


#: Names of a key's columns in column order; a deferrable or invalid index identifies nothing.
_KEY = """
(SELECT array_agg(a.attname::text ORDER BY a.attnum)
 FROM pg_index i
 JOIN pg_attribute a ON a.attrelid = c.oid
   AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
 WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND {which})
"""

#: Name and columns of an index that can be a replica identity: unique, immediate, of columns that
#: are never NULL and of every row. SQL_ASCII allows names that no client can show.
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

#: Columns of that; those of the queries that have it go on behind them.
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

#: One whose DETACH CONCURRENTLY has begun is no partition any more: no query of the root sees it.
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
    # CREATE TABLE PARTITION OF writes the partition's rows in one go; ATTACH comes in a later
    # transaction, or at least writes every column's row again. A row with an `xmax` tells nothing:
    # a change that was rolled back leaves its command's number where `cmin` was.
    attached=(
        "NOT EXISTS (SELECT FROM pg_attribute s JOIN pg_attribute a ON a.attrelid = s.attrelid "
        "AND a.attnum > 0 AND a.xmin = s.xmin AND a.cmin = s.cmin "
        "AND a.xmax = 0 AND s.xmax = 0 "
        "WHERE s.attrelid = i.inhrelid AND s.attname = 'ctid' AND s.xmin = i.xmin)"
    ),
    root_bound=_BOUND.format(root="r.oid"),
    bound=_BOUND.format(root="t.root"),
)

#: A default that was taken away again shows by what rows older than the column read.
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


#: Oids of what is made after `initdb` begin here; every enum is.
_FIRST_USER_OID = 16384

#: Of each type, labels of the enums and marks of the composites in it: it may be a domain, an
#: array, a range or a row of some. `bare`: its values are those of a domain's base. What has the
#: `xmin` and `cmin` of its type's row was written with it, and never since; a row with an `xmax`
#: tells nothing here either. Names of attributes are not in a row's text. A dropped attribute was
#: in that of rows sent before.
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
    """Ordinary and partitioned tables of the schemas, by name, `only` those with these oids if
    given; partitions only in their root."""
    cursor = connection.cursor()
    wanted = None if only is None else list(only)
    tables: list[Any] = cursor.execute(_TABLES, [list(schemas), wanted, wanted]).fetchall()
    oids = [row[0] for row in tables]
    columns: dict[int, list[ColumnRow]] = {oid: [] for oid in oids}
    for oid, *fields in _rows(connection, _COLUMNS, oids):
        columns[oid].append(ColumnRow(*fields))
    types = {c.type_oid for of_table in columns.values() for c in of_table}
    made_of = _in_types(connection, types)
    roots = [row[0] for row in tables if row[_STORED_WIDTH]]
    leaves: dict[int, list[tuple[StoredRow, float, int]]] = {oid: [] for oid in roots}
    if roots:
        for row in _rows(connection, _LEAVES, roots):
            root, attached, path, bounds, count, size = row[_STORED_WIDTH:]
            stored = _stored(row[:_STORED_WIDTH], attached=attached, path=path)
            stored = replace(stored, bounds=partition_bounds(bounds))
            leaves[root].append((stored, count, size))
    return [_table(row, columns[row[0]], leaves.get(row[0], []), made_of) for row in tables]


def primary_key(connection: Connection, oid: int) -> tuple[str, ...]:
    """The immediate primary key of a table as it is now."""
    query = f"SELECT {_KEY.format(which='i.indisprimary')} FROM pg_class c WHERE c.oid = %s"
    row: Any = connection.execute(query, [oid]).fetchone()
    return tuple(row[0] or ()) if row else ()


def column_numbers(connection: Connection, oids: Sequence[int]) -> Mapping[int, dict[str, int]]:
    """Column numbers by name, of each table that still is there."""
    numbers: dict[int, dict[str, int]] = {}
    for oid, attnum, name, *_ in _rows(connection, _COLUMNS, list(oids)):
        numbers.setdefault(oid, {})[name] = attnum
    return numbers


def table_names(connection: Connection, oids: Collection[int]) -> dict[int, TableName]:
    """Names of the tables that still are there, in any schema."""
    query = (
        "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (%s)"
    )
    return {oid: TableName(*name) for oid, *name in _rows(connection, query, list(oids))}


def _in_types(connection: Connection, types: Collection[int]) -> dict[int, ColumnTypes]:
    """What each type is made of."""
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
    made_of: Mapping[int, ColumnTypes],
) -> TableRow:
    partitioned, schema_oid, tuples, size, place, last_column = row[_STORED_WIDTH:]
    if partitioned:
        tuples = sum(max(tuples, 0) for _, tuples, _ in leaves)
        size = sum(size for _, _, size in leaves)
    types = ColumnTypes()
    for type_oid in {column.type_oid for column in columns}:
        types |= made_of.get(type_oid, ColumnTypes())
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
