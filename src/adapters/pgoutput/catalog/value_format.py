"""The format in which values are requested from the slot: one for all columns of all tables.

Binary costs the server and the decoder less, but only some types can use it; see `type_rules`.
Manual: "Logical Streaming Replication Parameters", binary; `pg_publication_rel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.pgoutput.session.connection import server_major
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.wire.type_rules import reads_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.wire.types import TypeMap

#: The view pg_publication_tables would wait for a session that has locked one of the tables.
#: Partitions have their root's columns. Objects created after `initdb` have OIDs from 16384 on.
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


def all_read_binary(
    connection: Connection, publication: str, types_of: Callable[[Collection[int]], TypeMap]
) -> bool:
    """Whether all columns of the publication's tables can be read in binary format now.

    The WAL may still have values of other types, from before an ALTER TABLE.
    """
    query = _COLUMN_TYPES.format(of_schemas=_OF_SCHEMAS if server_major(connection) >= 15 else "")
    with source_errors("reading the publication"):
        rows: Any = connection.execute(query.encode(), [publication]).fetchall()
    types = types_of({oid for oid, _ in rows})
    return bool(rows) and all(reads_binary(types[oid], typmod) for oid, typmod in rows)
