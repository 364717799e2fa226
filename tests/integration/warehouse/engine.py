"""Spark SQL in this process: `pysail` behind its Arrow Flight SQL port.

It knows no catalog of ours: statements come with tables written as ``delta.`/path` ``. What it
lacks (ALTER, TRUNCATE, COPY INTO, ...) is done elsewhere, on the Delta log.
"""

from __future__ import annotations

import os
import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.flight as flight

from .errors import from_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Read when pysail starts. Minimum and maximum of a column leave NaN out, and a scan takes a column
# whose two are equal for constant: without these a column [NaN, 1.0] would read as [1.0, 1.0].
_SETTINGS = {
    "SAIL_EXECUTION__COLLECT_STATISTICS": "false",
    "SAIL_PARQUET__PRUNING": "false",
    "SAIL_PARQUET__STATISTICS_ENABLED": "none",
    "RUST_LOG": "error",
}

#: For the same reason every table is made with this property, which no client gets to see.
NO_STATISTICS = "delta.dataSkippingNumIndexedCols"


def quote(name: str) -> str:
    """An identifier in backticks."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A string literal of Spark SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def delta_table(path: Path) -> str:
    return f"delta.{quote(str(path))}"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(tag: int, data: bytes) -> bytes:
    return bytes([tag << 3 | 2]) + _varint(len(data)) + data


_COMMAND = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"


class Engine:
    """Runs Spark SQL; safe to share between threads."""

    def __init__(self) -> None:
        os.environ.update(_SETTINGS)
        from pysail.flight import FlightSqlServer

        self._server = FlightSqlServer("127.0.0.1", 0)
        self._server.start(background=True)
        address = self._server.listening_address
        if address is None:
            raise RuntimeError("the SQL engine did not start")
        self._location = f"grpc://{address[0]}:{address[1]}"
        self._local = threading.local()

    def close(self) -> None:
        self._server.stop()

    def run(self, sql: str) -> pa.Table:
        """The statement's result. Raises `SqlError`."""
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = flight.connect(
                self._location, generic_options=[("grpc.max_receive_message_length", -1)]
            )
        # An `Any` that holds CommandStatementQuery{query}, in protobuf's wire format.
        command = _field(1, _COMMAND) + _field(2, _field(1, sql.encode()))
        try:
            info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
            return client.do_get(info.endpoints[0].ticket).read_all()
        except (flight.FlightError, pa.ArrowException) as error:
            raise from_engine(str(error)) from error

    def schema(self, query: str) -> pa.Schema:
        """Names and types that `query` yields, without running it over the data."""
        return self.run(f"SELECT * FROM ({query}) LIMIT 0").schema

    @contextmanager
    def named(self, path: Path) -> Iterator[str]:
        """A name for the table at `path`, where the engine takes no path (INSERT, ALTER)."""
        name = quote(f"t_{uuid.uuid4().hex}")
        self.run(f"CREATE TABLE {name} USING delta LOCATION {literal(str(path))}")
        try:
            yield name
        finally:
            self.run(f"DROP TABLE {name}")
