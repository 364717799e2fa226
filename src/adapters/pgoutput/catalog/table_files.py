"""Whether a table that got new files has the rows that it had.

VACUUM FULL, CLUSTER, REPACK and SET TABLESPACE copy rows as they are, with their `xmin`; ALTER
TABLE writes each again, and TRUNCATE leaves none. What cannot be looked into (no privilege, a lock,
a timeout) is not known. Manual: "System Columns", "Database Object Management Functions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from adapters.pgoutput.session.connection import Connection

_NAME = "SELECT oid::regclass::text FROM pg_class WHERE oid = %s AND relkind = 'r'"

#: `age` counts back from now, beyond half of all numbers forward: a row so old counts as new.
_OLD_ROW = """
SELECT EXISTS (SELECT FROM ONLY {name} WHERE age(xmin) > age('{xid}'::xid))
  AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint - {horizon} < 2 ^ 31
"""

#: Numbers of transactions come round after so many; `xmin` has no more.
_XIDS = 1 << 32


def keeps_rows(connection: Connection, oid: int, horizon: int) -> bool:
    """Whether the table has a row of a transaction numbered below `horizon`."""
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
    """Whether the table's file has no page: rows that were deleted leave some."""
    try:
        row: Any = connection.execute(
            "SELECT pg_relation_size(%s::oid::regclass) = 0", [oid]
        ).fetchone()
    except (psycopg.ProgrammingError, psycopg.OperationalError):
        if connection.broken:
            raise
        return False
    return bool(row[0])
