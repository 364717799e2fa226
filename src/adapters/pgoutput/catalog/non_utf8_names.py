"""Names that are not UTF-8, which only a database with the encoding SQL_ASCII can have.

Manual: "Character Set Support".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.pgoutput.session.source_errors import source_errors
from cdc_core.values.errors import OperatorNeeded

if TYPE_CHECKING:
    from adapters.pgoutput.session.connection import Connection

#: Kind, place and name of all objects that the catalog queries return.
_NAMES = """
SELECT 'schema', '', nspname::text FROM pg_namespace
UNION ALL
SELECT 'table', n.nspname::text, c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f')
UNION ALL
SELECT 'column', concat_ws('.', n.nspname, c.relname), a.attname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'f')
UNION ALL
SELECT 'type', n.nspname::text, t.typname::text
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typrelid = 0 AND t.typelem = 0
UNION ALL
SELECT 'label', concat_ws('.', n.nspname, t.typname), e.enumlabel::text
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace
"""


def non_utf8_names(connection: Connection) -> OperatorNeeded:
    """The error that lists these names, with undecodable bytes as `\\xe9`."""
    with source_errors("searching for names that are not UTF-8"):
        # Then the driver returns texts as bytes.
        connection.execute("SET client_encoding = 'SQL_ASCII'")
        try:
            rows: list[Any] = connection.execute(_NAMES).fetchall()
        finally:
            connection.execute("SET client_encoding = 'UTF8'")
    found = [
        f"{kind.decode()} {_readable(place)}{'.' if place else ''}{_readable(name)}"
        for kind, place, name in rows
        if not _is_utf8(name)
    ]
    return OperatorNeeded(
        f"names that are not UTF-8: {', '.join(found)}",
        "rename them in a session with client_encoding = 'SQL_ASCII', those of excluded tables too",
    )


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _readable(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
