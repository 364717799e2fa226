"""In which format the stream's values are asked for, one for all columns of all tables.

Binary costs the server and the decoder less, but is read only where it can mean one thing. Manual:
"Logical Streaming Replication Parameters", binary; `pg_publication_tables`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.pgoutput.source_errors import source_errors
from adapters.pgoutput.wire.binary import reads_binary

if TYPE_CHECKING:
    from adapters.pgoutput.connection import Connection

_COLUMN_TYPES = """
SELECT DISTINCT a.atttypid::bigint, a.atttypmod
FROM pg_publication_tables p
JOIN pg_namespace n ON n.nspname = p.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE p.pubname = %s
"""


def all_read_binary(connection: Connection, publication: str) -> bool:
    """Whether every column of the publication's tables has a type that is read in binary now. In
    the WAL there may be others, of tables as they were."""
    with source_errors("reading pg_publication_tables"):
        rows: Any = connection.execute(_COLUMN_TYPES, [publication]).fetchall()
    return bool(rows) and all(reads_binary(oid, typmod) for oid, typmod in rows)
