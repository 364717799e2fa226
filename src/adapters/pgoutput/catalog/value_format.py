"""In which format the stream's values are asked for, one for all columns of all tables.

Binary costs the server and the decoder less, but is read only where it can mean one thing. Manual:
"Logical Streaming Replication Parameters", binary; `pg_publication_rel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.pgoutput.session.connection import server_major
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.wire.binary import reads_binary

if TYPE_CHECKING:
    from adapters.pgoutput.session.connection import Connection

#: The view pg_publication_tables would wait for whoever has locked one of the tables. Partitions
#: have their root's columns. Oids of what is made after `initdb` begin at 16384.
_COLUMN_TYPES = """
SELECT DISTINCT a.atttypid::bigint, a.atttypmod
FROM pg_publication p
JOIN pg_class c ON c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND (
  p.puballtables AND c.oid >= 16384
  OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
  {of_schemas})
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE p.pubname = %s
"""

_OF_SCHEMAS = """OR EXISTS (
    SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)
"""


def all_read_binary(connection: Connection, publication: str) -> bool:
    """Whether every column of the publication's tables has a type that is read in binary now. In
    the WAL there may be others, of tables as they were."""
    query = _COLUMN_TYPES.format(of_schemas=_OF_SCHEMAS if server_major(connection) >= 15 else "")
    with source_errors("reading the publication"):
        rows: Any = connection.execute(query.encode(), [publication]).fetchall()
    return bool(rows) and all(reads_binary(oid, typmod) for oid, typmod in rows)
