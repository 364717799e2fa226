"""The types that the catalog knows beyond PostgreSQL's own, looked up when one is first met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.wire.types import TypeMap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from adapters.pgoutput.session.connection import Connection

#: Types of `initdb` and of users; the ones below are built in and never change.
_TYPES = """
SELECT oid, format_type(oid, NULL), typtype::text, typcategory::text, typbasetype, typtypmod,
       typelem, typdelim::text
FROM pg_type WHERE oid >= 10000
"""


class CatalogTypes:
    """Gives the type map; asks the catalog when an OID is named that it does not know."""

    def __init__(self, session: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._session = session
        self._types = TypeMap()
        self._sought: set[int] = set()

    def __call__(self, oids: Collection[int] = ()) -> TypeMap:
        missing = {oid for oid in oids if oid not in self._types} - self._sought
        if missing:
            with source_errors("reading pg_type"), self._session() as connection:
                rows = connection.execute(_TYPES).fetchall()
            self._types = TypeMap().with_user_types(rows)  # type: ignore[arg-type]
            self._sought |= missing
        return self._types
