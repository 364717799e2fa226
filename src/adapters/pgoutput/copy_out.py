"""`COPY … TO STDOUT` as bytes: rows end to end in one buffer, and their lengths.

Goes below the driver's cursors, for they cost a Python object or more per row. Manual: "libpq -
Functions Associated with the COPY Command", "COPY", "File Formats".
"""

from __future__ import annotations

import selectors
from array import array
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import ExecStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.pq.abc import PGresult

    from adapters.pgoutput.connection import Connection

#: COPY's binary format: signature, flags and extension length before the first row; a count of
#: fields and a field's length before the only field of each.
BINARY_HEADER, BINARY_FIELD = 19, 6

#: So often a wait looks whether a signal has come in.
_WAIT_SECONDS = 1.0


def send_copy(connection: Connection, statement: str) -> None:
    """Have the server begin; `copy_pieces` takes the rows, which may be later."""
    connection.pgconn.send_query(statement.encode())


def copy_pieces(
    connection: Connection,
    statement: str | None,
    *,
    binary: bool = False,
    max_rows: int | None = None,
    max_bytes: int | None = None,
) -> Iterator[tuple[bytearray, array[int]]]:
    """Yield the rows of a COPY in pieces, each the first that reaches `max_rows` or `max_bytes`.

    Without a statement the rows are those of the one that was sent. With `binary` the statement has
    one column and format binary, and rows are the values alone. Raises the driver's errors. Left
    early it closes the connection, for the rest of the rows would still come.
    """
    pgconn = connection.pgconn
    row_limit = max_rows if max_rows is not None else 1 << 62
    byte_limit = max_bytes if max_bytes is not None else 1 << 62
    finished = False
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        try:
            if statement is not None:
                send_copy(connection, statement)
            result = _result(connection, selector)
            if result is None or result.status != ExecStatus.COPY_OUT:
                while _result(connection, selector) is not None:
                    pass
                finished = True
                raise _refusal(result)
            buffer, lengths = bytearray(), array("q")
            get = pgconn.get_copy_data
            skip = BINARY_HEADER + BINARY_FIELD if binary else 0
            while True:
                size, data = get(1)
                if size > 0:
                    # The trailer of the binary format is shorter than a row's head.
                    if size > skip:
                        buffer += data[skip:] if skip else data
                        lengths.append(size - skip)
                    skip = BINARY_FIELD if binary else 0
                    if len(lengths) >= row_limit or len(buffer) >= byte_limit:
                        yield buffer, lengths
                        buffer, lengths = bytearray(), array("q")
                elif size == 0:
                    selector.select(_WAIT_SECONDS)
                    pgconn.consume_input()
                else:
                    break
            result = _result(connection, selector)
            while _result(connection, selector) is not None:
                pass
            finished = True
            if result is None or result.status != ExecStatus.COMMAND_OK:
                raise _refusal(result)
            if lengths:
                yield buffer, lengths
        finally:
            if not finished:
                connection.close()


def _result(connection: Connection, selector: selectors.BaseSelector) -> PGresult | None:
    pgconn = connection.pgconn
    while pgconn.is_busy():
        selector.select(_WAIT_SECONDS)
        pgconn.consume_input()
    return pgconn.get_result()


def _refusal(result: PGresult | None) -> psycopg.Error:
    if result is None:
        return psycopg.OperationalError("the server sent no result")
    return psycopg.errors.error_from_result(result)
