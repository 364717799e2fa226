"""How the rows of a table are read in a snapshot: columns, types and row ranges.

A scan can be pickled, so that another process, on another machine, can read some of its ranges. All
readers of rows share it: sessions of this process, and the workers of a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from adapters.pgoutput.catalog.publication import row_filter
from adapters.pgoutput.session.source_errors import translated
from adapters.pgoutput.session.sql_text import quote
from adapters.pgoutput.snapshot.range_readers import TableQuery
from adapters.pgoutput.snapshot.row_ranges import row_ranges, stored_relations
from adapters.pgoutput.snapshot.row_sessions import open_row_session
from adapters.pgoutput.wire.query_rows import decode_rows
from adapters.pgoutput.wire.type_rules import reads_binary, type_read
from adapters.pgoutput.wire.types import TypeMap

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.page_ranges import PageRange
    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.snapshot.row_sessions import RowSession
    from cdc_core.values.relation import Column, Relation

#: How long a reader waits for a lock before it retries without holding any. Less than
#: `deadlock_timeout`, so that PostgreSQL never ends an application's session because of ours.
_LOCK_MILLISECONDS = 500

#: Settings for plans that read a table's file from its beginning, without JIT compilation.
_IN_FILE_ORDER = ", ".join(
    f"set_config('{name}', '{value}', false)"
    for name, value in {
        "synchronize_seqscans": "off",
        "max_parallel_workers_per_gather": "0",
        "enable_indexscan": "off",
        "enable_indexonlyscan": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
        "lock_timeout": str(_LOCK_MILLISECONDS),
    }.items()
)

#: Output functions of types, and the type to which a value must be cast for them: refcursor has the
#: function of text, and functions for any array, enum or range do not take a domain over one.
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


@dataclass(frozen=True)
class TableScan:
    """`expressions` are SQL for the columns that are read. `role` is the one that reads."""

    relation: Relation
    types: TypeMap
    expressions: tuple[str, ...]
    ranges: tuple[RowRange, ...]
    role: str

    def of(self, *ranges: RowRange) -> TableScan:
        """The scan of other ranges."""
        return replace(self, ranges=ranges)

    def query(self, find_again: Callable[[RowRange], RowRange]) -> TableQuery:
        relation = self.relation
        return TableQuery(
            str(relation.table),
            self.expressions,
            self.ranges,
            find_again,
            lambda rows: decode_rows(rows, relation.columns_read, self.types, str(relation.table)),
            lambda error: translated(
                error, f"reading table {relation.table}", reading_cure(relation, self.role, error)
            ),
        )


def plan_scan(
    session: Connection,
    settings: SourceSettings,
    relation: Relation,
    types: TypeMap,
    page_range: PageRange,
    statement_pages: int | None = None,
) -> TableScan:
    """Plan to read a page range of a table, in statements of about `statement_pages` pages.

    The ranges have the rows that the stream would send: those of the publication's filter, without
    inheritance children.
    """
    filter_ = row_filter(session, settings.pub_name, relation.oid, relation.table.schema)
    columns = tuple(quote(column.name) for column in relation.columns_read)
    stored = stored_relations(session, relation)
    own_types = {column.type_oid: types[column.type_oid] for column in relation.columns_read}
    return TableScan(
        relation,
        TypeMap(own_types),
        _expressions(session, relation, types),
        tuple(row_ranges(stored, filter_, columns, page_range, statement_pages)),
        session.info.user,
    )


def _expressions(session: Connection, relation: Relation, types: TypeMap) -> tuple[str, ...]:
    """SQL for the columns: in binary format where that can be read, else the text of the type's
    output function, which may differ from a cast to text. A domain has that of its base type."""
    texts = [c.type_oid for c in relation.columns_read if not _is_binary(c, types)]
    rows: Any = session.execute(_OUTPUT_FUNCTIONS, [texts]).fetchall() if texts else ()
    functions = {oid: (function, base) for oid, function, base in rows}
    expressions = []
    for column in relation.columns_read:
        value = quote(column.name)
        if not _is_binary(column, types):
            function, base = functions[column.type_oid]
            value = f"pg_catalog.textin({function}({value}{f'::{base}' if base else ''}))"
        expressions.append(value)
    return tuple(expressions)


def open_session_in(
    settings: SourceSettings, adopt: Callable[[Callable[[str], object]], None]
) -> RowSession:
    """Open a session in the snapshot that `adopt` imports. It returns rows in the order of the
    table's file, so that it can continue a range that another session did not finish."""
    session = open_row_session(settings)
    try:
        session.execute(f"SELECT {_IN_FILE_ORDER}")
        adopt(session.execute)
    except BaseException:
        session.close()
        raise
    return session


def reading_cure(relation: Relation, role: str, error: psycopg.Error | None = None) -> str:
    """The statement that lets a role read the table, for this error."""
    said, role = str(error), quote(role)
    if "row-level security" in said:
        return f"run: ALTER ROLE {role} BYPASSRLS"
    if "for schema" in said:
        return f"run: GRANT USAGE ON SCHEMA {quote(relation.table.schema)} TO {role}"
    return f"run: GRANT SELECT ON {_name(relation)} TO {role}"


def _is_binary(column: Column, types: TypeMap) -> bool:
    return reads_binary(type_read(types[column.type_oid], column), column.typmod)


def _name(relation: Relation) -> str:
    return f"{quote(relation.table.schema)}.{quote(relation.table.name)}"
