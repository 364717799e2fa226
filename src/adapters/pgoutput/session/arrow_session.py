"""Sessions that return rows as Arrow record batches, without Python objects.

A row costs a fifth of what psycopg takes, and other threads run meanwhile. For statements with many
rows: a step of the slot, a range of a table. Source: ADBC, "PostgreSQL Driver".
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo

from adapters.pgoutput.session.connection import WATCH_CLIENTS, logged_in, session_statement
from adapters.pgoutput.session.own_session import PROOF, require_own_session
from adapters.pgoutput.session.source_errors import DECODING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from adapters.pgoutput.session.settings import SourceSettings

_BATCH_SIZE = "adbc.postgresql.batch_size_hint_bytes"


class ArrowSession:
    """One connection in autocommit, with the session settings of `connection.connect`.

    For one thread at a time, except `cancel`. Raises psycopg's errors, so that `source_errors` can
    translate them.
    """

    def __init__(self, settings: SourceSettings, server_major: int) -> None:
        self._database: Any = None
        self._connection: Any = None
        self._statement: Any = None
        logged_in(settings, self._open, "connecting")
        try:
            require_own_session(self.row(PROOF), None)
            self.row(session_statement(server_major))
            with suppress(psycopg.errors.InvalidParameterValue):
                self.row(f"SELECT {WATCH_CLIENTS}")
        except BaseException:
            self.close()
            raise

    def _open(self, parameters: Mapping[str, object]) -> None:
        import adbc_driver_postgresql
        from adbc_driver_manager import AdbcConnection, Error

        try:
            self._database = adbc_driver_postgresql.connect(make_conninfo(**parameters))  # type: ignore[arg-type]
            self._connection = AdbcConnection(self._database)
        except Error as error:
            self.close()
            raise psycopg.OperationalError(_said(error)) from None

    def execute(self, statement: str) -> None:
        """Run a statement and ignore its rows."""
        for _ in self.stream(statement):
            pass

    def row(self, query: str) -> tuple[Any, ...]:
        """The only row of a query."""
        (batch,) = self.stream(query)
        return tuple(column[0].as_py() for column in batch.columns)

    def stream(self, query: str, batch_bytes: int | None = None) -> Iterator[pa.RecordBatch]:
        """Rows of a query as they arrive, in batches of about `batch_bytes`."""
        from adbc_driver_manager import AdbcStatement
        from adbc_driver_manager._reader import AdbcRecordBatchReader

        with _driver_errors():
            statement = self._statement = AdbcStatement(self._connection)
            try:
                if batch_bytes is not None:
                    statement.set_options(**{_BATCH_SIZE: str(batch_bytes)})
                statement.set_sql_query(query)
                handle, _ = statement.execute_query()
                # pyarrow's reader would lose the SQLSTATE of an error in the middle of the rows.
                reader = AdbcRecordBatchReader._import_from_c(handle.address)
                try:
                    yield from reader
                finally:
                    reader.close()
            finally:
                self._statement = None
                statement.close()

    def cancel(self) -> None:
        """Cancel the running statement, from another thread."""
        statement = self._statement
        if statement is not None:
            with suppress(Exception):  # the statement may just have ended
                statement.cancel()

    def close(self) -> None:
        for handle in (self._connection, self._database):
            if handle is not None:
                with suppress(Exception):  # the connection may be lost
                    handle.close()
        self._connection = self._database = None


@contextmanager
def _driver_errors() -> Iterator[None]:
    from adbc_driver_manager import Error

    try:
        yield
    except Error as error:
        try:
            kind = psycopg.errors.lookup(error.sqlstate or "")
        except KeyError:
            kind = psycopg.OperationalError
        raise kind(_said(error)) from None


def _said(error: Any) -> str:
    """The server's primary message and the LSN, or libpq's message. Other fields may quote
    values."""
    details = {_text(name): _text(value) for name, value in error.details or ()}
    if primary := details.get("PG_DIAG_MESSAGE_PRIMARY"):
        place = DECODING.search(details.get("PG_DIAG_CONTEXT", ""))
        return f"{primary}, {place[0]}" if place else primary
    _, _, said = str(error).rpartition("[libpq] ")
    return " ".join(said.split("\n\nQuery was:")[0].split())


def _text(said: str | bytes) -> str:
    return said if isinstance(said, str) else bytes(said).decode(errors="replace")
