"""dlt's Databricks client as we use it: shared sessions, statements sent again, names kept.

Source: dlt, `dlt.destinations.impl.databricks`.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dlt.destinations.impl.databricks.sql_client import DatabricksCursorImpl, DatabricksSqlClient
from dlt.destinations.sql_client import raise_database_error

from adapters.dlt_destination.transient import session_lost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from adapters.dlt_destination.warehouse_sessions import Sessions


class SharedSqlClient(DatabricksSqlClient):
    """Borrows its session; a statement that met a transient fault is sent again."""

    def __init__(self, sessions: Sessions, *args: Any) -> None:
        super().__init__(*args)
        self._sessions = sessions

    def open_connection(self) -> Any:
        if self._conn is None:
            self._conn = self._sessions.borrow(self.credentials)
        return self._conn

    def close_connection(self) -> None:
        if self._conn is not None:
            self._sessions.give_back(self._conn)
            self._conn = None

    @contextmanager
    @raise_database_error
    def execute_query(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        parameters = args or kwargs or None

        def send() -> Any:
            cursor = self.open_connection().cursor()
            cursor.execute(query, parameters)
            return cursor

        cursor = self._sessions.patience.run(send, self._before_again)
        try:
            yield DatabricksCursorImpl(cursor)  # type: ignore[abstract, unused-ignore]
        finally:
            with suppress(Exception):
                cursor.close()

    def _before_again(self, error: BaseException) -> None:
        if session_lost(error):
            self._sessions.discard(self._conn)
            self._conn = None

    def escape_column_name(
        self,
        column_name: str,
        quote: bool = True,  # noqa: FBT001, FBT002 - dlt's signature
        casefold: bool = True,  # noqa: ARG002, FBT001, FBT002 - Delta keeps the case
    ) -> str:
        escaped: str = super().escape_column_name(column_name, quote, casefold=False)
        return escaped


class WarehouseClient:
    """Mixed into dlt's job client."""

    def __init__(self, schema: Any, config: Any, capabilities: Any) -> None:
        super().__init__(schema, config, capabilities)  # type: ignore[call-arg]
        own = self.sql_client  # type: ignore[has-type]
        self.sql_client = SharedSqlClient(
            self.store.sessions,  # type: ignore[attr-defined]
            own.dataset_name,
            own.staging_dataset_name,
            own.credentials,
            capabilities,
        )

    def verify_schema(self, only_tables: Any = None, new_jobs: Any = None) -> Any:
        """What dlt can say of its own tables: of all others it sees manifests, not the files."""
        planned = set(self.plan.names)  # type: ignore[attr-defined]
        jobs = [job for job in new_jobs or () if job.table_name not in planned]
        tables = set(only_tables or ()) - planned
        return super().verify_schema(tables, jobs)  # type: ignore[misc]

    def _build_schema_update_sql(
        self, storage_tables: Iterable[tuple[str, Any]]
    ) -> tuple[Sequence[str], Any]:
        """DDL for dlt's own tables only: the store makes all others."""
        own = set(self.schema.dlt_table_names())  # type: ignore[attr-defined]
        built: tuple[Sequence[str], Any] = super()._build_schema_update_sql(  # type: ignore[misc]
            [(name, columns) for name, columns in storage_tables if name in own]
        )
        return built
