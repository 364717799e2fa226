"""Reads a slot through SQL, in bounded steps: about four times as fast as streaming.

The server decodes a step whole before its first row comes, and each step decodes again from the
slot's `restart_lsn`; `choose_reader` knows when that hurts. The slot itself is only peeked at; to
read several steps ahead, a temporary copy of it is consumed. Manual: "Replication Management
Functions".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.cluster import wait_until_readable
from adapters.pgoutput.connection import connect
from adapters.pgoutput.copy_out import copy_pieces
from adapters.pgoutput.slot import advance, copy_to_temporary
from adapters.pgoutput.wire_batch import WireBatch, wire_batch
from cdc_core.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from adapters.pgoutput.connection import Connection
    from adapters.pgoutput.settings import SourceSettings

#: Below this much WAL, decoding what is known already costs less than moving the copy past it.
_SKIP_BYTES = 4 << 20

#: Too few slots, no right to copy one, temp_file_limit, disk full, a row beyond what SQL can hold.
_REFUSALS = ("53", "54", "42501", "0A")


class BulkRefused(Exception):
    """The server will not read this way; streaming may still do."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class BulkReader:
    """`WireReader` by `pg_logical_slot_peek_binary_changes` and its consuming twin.

    `control` is a connection for short statements. `confirmed` is where the slot stands, `after` up
    to where its changes are known. Raises `BulkRefused` and the driver's errors.
    """

    def __init__(
        self, settings: SourceSettings, control: Connection, confirmed: Lsn, after: Lsn
    ) -> None:
        self._settings = settings
        self._control = control
        self._confirmed = confirmed
        self._position = max(after, confirmed)
        self._own: Connection | None = None
        self._copy = f"wal2delta_{os.getpid()}_{id(self):x}"
        #: The copy's `restart_lsn`, from where each step decodes.
        self.restart_lsn: Lsn | None = None

    @property
    def position(self) -> Lsn:
        """What committed before has been handed over."""
        return self._position

    def read(self, until: Lsn, stop: Callable[[], bool]) -> Iterator[WireBatch]:
        try:
            wait_until_readable(self._control, until)
            if self._own is None and until - self._confirmed <= self._settings.batch_max_bytes:
                batch, complete = self._peek(until)
                if complete:
                    self._position = max(self._position, batch.reached)
                    yield batch
                    return
            while self._position < until and not stop():
                batch = self._step(until)
                self._position = max(self._position, batch.reached)
                yield batch
        except psycopg.Error as error:
            if (error.sqlstate or "").startswith(_REFUSALS):
                raise BulkRefused(f"SQLSTATE {error.sqlstate}") from error
            raise

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None

    def _peek(self, until: Lsn) -> tuple[WireBatch, bool]:
        """All of a small backlog from the slot itself; False if the row limit cut it short."""
        limit = self._settings.batch_max_rows
        buffer, lengths = self._call(self._control, "peek", self._settings.slot_name, until, limit)
        return wire_batch(buffer, lengths, until), len(lengths) < limit

    def _step(self, until: Lsn) -> WireBatch:
        own = self._own or self._open_copy()
        upto = Lsn(min(until, self._position + self._settings.batch_max_bytes))
        buffer, lengths = self._call(own, "get", self._copy, upto, self._settings.batch_max_rows)
        row: Any = own.execute(
            "SELECT confirmed_flush_lsn::text, restart_lsn::text FROM pg_replication_slots "
            "WHERE slot_name = %s",
            [self._copy],
        ).fetchone()
        self.restart_lsn = Lsn.parse(row[1])
        return wire_batch(buffer, lengths, Lsn.parse(row[0]))

    def _open_copy(self) -> Connection:
        own = self._own = connect(self._settings)
        copy_to_temporary(own, self._settings.slot_name, self._copy)
        if self._position - self._confirmed > _SKIP_BYTES:
            advance(own, self._copy, self._position)
        return own

    def _call(
        self, connection: Connection, how: str, slot: str, upto: Lsn, limit: int
    ) -> tuple[bytearray, list[int]]:
        statement = (
            f"COPY (SELECT data FROM pg_logical_slot_{how}_binary_changes("
            f"{literal(slot)}, '{upto}', {limit}, 'proto_version', '1', "
            f"'publication_names', {literal(quoted_list(self._settings.pub_name))}))"
            " TO STDOUT (FORMAT binary)"
        )
        pieces = list(copy_pieces(connection, statement, binary=True))
        return pieces[0] if pieces else (bytearray(), [])


def literal(text: str) -> str:
    """An SQL string, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def quoted_list(name: str) -> str:
    """A name as pgoutput's `publication_names` wants it."""
    return '"' + name.replace('"', '""') + '"'
