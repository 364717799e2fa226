"""Types that are not built in, read from the catalog when the first one is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.wire.types import TypeMap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.wire.types import CatalogRow

#: Types of `initdb` and of users. Those with lower OIDs are built in and never change.
_TYPES = """
SELECT oid, format_type(oid, NULL), typtype::text, typcategory::text, typbasetype, typtypmod,
       typelem, typdelim::text
FROM pg_type WHERE oid >= 10000
"""


class CatalogTypes:
    """Returns the type map. Queries the catalog for an OID that it does not know."""

    def __init__(self, session: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._session = session
        self._types = TypeMap()
        self._requested: set[int] = set()

    def __call__(self, oids: Collection[int] = ()) -> TypeMap:
        missing = {oid for oid in oids if oid not in self._types} - self._requested
        if missing:
            with source_errors("reading pg_type"), self._session() as connection:
                self._types = TypeMap().with_user_types(user_types(connection))
            self._requested |= missing
        return self._types


def user_types(connection: Connection) -> list[CatalogRow]:
    rows: Any = connection.execute(_TYPES).fetchall()
    return [tuple(row) for row in rows]
