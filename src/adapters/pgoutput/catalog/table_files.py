"""Whether a table with new files still has the same rows.

VACUUM FULL, CLUSTER, REPACK and SET TABLESPACE copy rows unchanged, with their `xmin`. ALTER TABLE
writes each row again, and TRUNCATE leaves none. If the table cannot be read (no privilege, a lock,
a timeout), the answer is no. Manual: "System Columns", "Database Object Management Functions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from adapters.pgoutput.session.connection import Connection

_NAME = "SELECT oid::regclass::text FROM pg_class WHERE oid = %s AND relkind = 'r'"

#: `age` counts back from now and wraps around at half of all numbers: an older row counts as new.
_OLD_ROW = """
SELECT EXISTS (SELECT FROM ONLY {name} WHERE age(xmin) > age('{xid}'::xid))
  AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint - {horizon} < 2 ^ 31
"""

#: Transaction ids in an `xmin` wrap around at this number.
_XIDS = 1 << 32


def keeps_rows(connection: Connection, oid: int, horizon: int) -> bool:
    """Whether the table has a row from a transaction before `horizon`."""
    try:
        row: Any = connection.execute(_NAME, [oid]).fetchone()
        if row is None:
            return False
        query = _OLD_ROW.format(name=row[0], xid=horizon % _XIDS, horizon=horizon)
        found: Any = connection.execute(query.encode()).fetchone()
    except (psycopg.ProgrammingError, psycopg.OperationalError):
        if connection.broken:
            raise
        return False
    return bool(found[0])


def is_empty(connection: Connection, oid: int) -> bool:
    """Whether the table's file has no page. Deleted rows leave pages."""
    try:
        row: Any = connection.execute(
            "SELECT pg_relation_size(%s::oid::regclass) = 0", [oid]
        ).fetchone()
    except (psycopg.ProgrammingError, psycopg.OperationalError):
        if connection.broken:
            raise
        return False
    return bool(row[0])
