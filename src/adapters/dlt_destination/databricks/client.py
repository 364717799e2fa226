"""dlt's Databricks client as we use it: shared sessions, retried statements, unchanged names.

Source: dlt, `dlt.destinations.impl.databricks`, `dlt.destinations.job_client_impl`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.dlt_destination.databricks.errors import statement_named
from adapters.dlt_destination.databricks.multi_table_transaction import CATALOG_COMMITS
from adapters.dlt_destination.databricks.retry import refused, session_lost, upload_refused
from adapters.dlt_destination.dlt.databricks_client import (
    DatabricksCursorImpl,
    DatabricksSqlClient,
    InsertState,
    raise_database_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from adapters.dlt_destination.databricks.multi_table_transaction import MultiTableTransaction
    from adapters.dlt_destination.databricks.sessions import Login, Session, Sessions

T = TypeVar("T")

#: A larger state is uploaded as a file; a statement can have a few megabytes.
STATEMENT_BYTES = 1_000_000


class SharedSqlClient(DatabricksSqlClient):
    """Borrows a session for each statement. A statement is retried after a transient error, and
    once more after a refusal and a new login."""

    def __init__(self, sessions: Sessions, *args: Any) -> None:
        super().__init__(*args)
        self._held: Session | None = None
        self._login: Login | None = None
        self._block: MultiTableTransaction | None = None
        self._sessions = sessions
        self.retry_policy = sessions.retry_policy

    def another(self) -> SharedSqlClient:
        """Return a client of the same dataset for use in another thread."""
        return SharedSqlClient(
            self._sessions,
            self.dataset_name,
            self.staging_dataset_name,
            self.credentials,
            self.capabilities,
        )

    def open_connection(self) -> None:  # type: ignore[override]
        """Does nothing: each statement borrows a session."""

    def close_connection(self) -> None:
        if self._held is not None:
            self._sessions.give_back(self._held)
            self._held = None

    @property
    def native_connection(self) -> Any:
        """A session for this client alone until it is closed: dlt sets folders on it."""
        return self._patiently(self._connection)

    def _connection(self) -> Any:
        if self._held is None:
            self._login = self._sessions.login()
            self._held = self._sessions.borrow()
            self._login = self._held.login
        return self._held.connection

    def _patiently(self, send: Callable[[], T]) -> T:
        """Return the result of `send`. After a refusal, an upload is sent once more to a new URL,
        and a statement after a new login: once, or again whenever the previous login had worked."""
        retry_policy = self.retry_policy
        addresses, logins = 1, retry_policy.attempts
        while True:
            try:
                return retry_policy.run(send, self._before_again)
            except Exception as error:
                if addresses and upload_refused(error):
                    addresses -= 1
                elif (
                    logins
                    and refused(error)
                    and self._log_in_again(first=logins == retry_policy.attempts)
                ):
                    logins -= 1
                else:
                    raise

    def _log_in_again(self, *, first: bool) -> bool:
        if self._login is None or not self._sessions.log_in_again(self._login, first=first):
            return False
        self._drop_session()
        return True

    def _before_again(self, error: BaseException) -> None:
        if session_lost(error):
            self._drop_session()

    def _drop_session(self) -> None:
        if self._held is not None:
            self._sessions.lost(self._held)
            self._held = None

    @contextmanager
    def _lent(self) -> Iterator[None]:
        """Give back a session that is borrowed in the context."""
        pinned = self._held is not None
        try:
            yield
        finally:
            if not pinned:
                self.close_connection()

    @contextmanager
    @raise_database_error
    def execute_query(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with self._lent():
            cursor = self._patiently(lambda: self._send(query, args or kwargs or None))
            with statement_named(cursor):
                try:
                    yield DatabricksCursorImpl(cursor)  # type: ignore[abstract, unused-ignore]
                finally:
                    with suppress(Exception):
                        cursor.close()

    def _send(self, query: str, parameters: Any) -> Any:
        cursor = self._connection().cursor()
        self._sessions.count()
        try:
            with statement_named(cursor):
                cursor.execute(query, parameters)
        finally:
            if cursor.query_id and self._held is not None:
                self._held.login.worked = True
        return cursor

    def _fetch_all(self, query: str, parameters: Any) -> Any:
        cursor = self._send(query, parameters)
        with statement_named(cursor):
            rows = None if cursor.description is None else cursor.fetchall()
        with suppress(Exception):
            cursor.close()
        return rows

    @contextmanager
    def into(self, block: MultiTableTransaction) -> Iterator[None]:
        """Add statements to the block instead of running them."""
        self._block = block
        try:
            yield
        finally:
            self._block = None

    def execute_sql(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        if self._block is not None:
            self._block.add(sql, *args)
            return None
        return self._rows(sql, args or kwargs or None)

    @raise_database_error
    def _rows(self, query: str, parameters: Any) -> Any:
        """Return all rows. Fetching is part of the retry: a token can expire before the last
        row."""
        with self._lent():
            return self._patiently(lambda: self._fetch_all(query, parameters))

    def create_dataset(self) -> None:
        self.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {self.fully_qualified_dataset_name()}")

    def put(self, file: Path, place: str) -> None:
        """Upload a file to a path in a volume."""

        def send() -> None:
            self._connection().staging_allowed_local_path = os.fspath(file.parent)
            self._send(f"PUT '{file.as_posix()}' INTO '{place}' OVERWRITE", None).close()

        with self._lent():
            self._patiently(send)

    def escape_column_name(
        self,
        column_name: str,
        quote: bool = True,
        casefold: bool = True,  # noqa: ARG002 - Delta keeps the case
    ) -> str:
        escaped: str = super().escape_column_name(column_name, quote, casefold=False)
        return escaped


class WarehouseClient:
    """A mixin for dlt's job client."""

    def __init__(self, schema: Any, config: Any, capabilities: Any) -> None:
        super().__init__(schema, config, capabilities)  # type: ignore[call-arg]
        self._sessions: Sessions = self.store.sessions  # type: ignore[attr-defined]
        own = self.sql_client  # type: ignore[has-type]
        self.sql_client = SharedSqlClient(
            self._sessions,
            own.dataset_name,
            own.staging_dataset_name,
            own.credentials,
            capabilities,
        )

    def create_load_job(
        self, table: Any, file_path: str, load_id: str, restore: bool = False
    ) -> Any:
        state = table["name"] == self.schema.state_table_name  # type: ignore[attr-defined]
        if state and os.path.getsize(file_path) < STATEMENT_BYTES:  # noqa: PTH202
            return InsertState(file_path)
        return super().create_load_job(table, file_path, load_id, restore)  # type: ignore[misc]

    def complete_load(self, load_id: str) -> None:
        """Record the package, which makes its checkpoint durable: in the tables' transaction, if
        there is one."""
        block = self.store.block  # type: ignore[attr-defined]
        if block is None:
            super().complete_load(load_id)  # type: ignore[misc]
            return
        with self.sql_client.into(block):
            super().complete_load(load_id)  # type: ignore[misc]
        self.store.commit(self)  # type: ignore[attr-defined]

    # Questions that dlt asks for every package, although only this run changes the answers.

    def is_storage_initialized(self) -> bool:
        ask: Callable[[], bool] = super().is_storage_initialized  # type: ignore[misc]
        return self._sessions.once(f"dataset {self.sql_client.dataset_name}", ask)

    def initialize_storage(self, truncate_tables: Any = None) -> None:
        super().initialize_storage(truncate_tables)  # type: ignore[misc]
        self._sessions.once(f"dataset {self.sql_client.dataset_name}", lambda: True)

    def get_stored_state(self, pipeline_name: str) -> Any:
        found = super().get_stored_state(pipeline_name)  # type: ignore[misc]
        self._sessions.once(f"dataset {self.sql_client.dataset_name}", lambda: found is not None)
        return found

    def get_stored_schema(self, schema_name: str | None = None) -> Any:
        found = super().get_stored_schema(schema_name)  # type: ignore[misc]
        if found is not None:
            self._sessions.once(f"schema {found.version_hash}", lambda: found)
        return found

    def get_stored_schema_by_hash(self, version_hash: str) -> Any:
        ask = super().get_stored_schema_by_hash  # type: ignore[misc]
        return self._sessions.once(f"schema {version_hash}", lambda: ask(version_hash))

    def _build_schema_update_sql(
        self, storage_tables: Iterable[tuple[str, Any]]
    ) -> tuple[Sequence[str], Any]:
        statements, tables = super()._build_schema_update_sql(storage_tables)  # type: ignore[misc]
        if self.store.block is not None:  # type: ignore[attr-defined]
            properties = ", ".join(f"'{k}' = '{v}'" for k, v in CATALOG_COMMITS.items())
            statements = [
                f"{sql} TBLPROPERTIES ({properties})" if sql.startswith("CREATE TABLE") else sql
                for sql in statements
            ]
        return statements, tables
