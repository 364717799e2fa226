"""Reads a slot through SQL, in bounded steps: several times as fast as streaming.

The server decodes a step whole before its first row comes, and each step decodes again from the
slot's `restart_lsn`; `choose_reader` knows when that hurts. The slot itself is only peeked at; to
read several steps ahead, a temporary copy of it is consumed. Manual: "Replication Management
Functions".
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import psycopg

from adapters.pgoutput.arrow_session import ArrowSession
from adapters.pgoutput.cluster import wait_until_readable
from adapters.pgoutput.connection import server_major
from adapters.pgoutput.read_ahead import ReadAhead
from adapters.pgoutput.wire_piece import (
    WirePiece,
    cut_batches,
    end_of_batch,
    piece_of_arrow,
    piece_of_lengths,
)
from cdc_core.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from adapters.pgoutput.connection import Connection
    from adapters.pgoutput.settings import SourceSettings

#: Too few slots, no right to copy one, temp_file_limit, disk full, a row beyond what SQL can hold.
_REFUSALS = ("53", "54", "42501", "0A")

#: WAL up to which a session of its own does not pay.
_SMALL_BYTES = 2 << 20
#: The longest step.
_MOST_STEPS_BYTES = 2 << 30
#: Messages that come as one piece, and how far the reading may be ahead of the decoding.
_PIECE_BYTES = 4 << 20
_AHEAD_BYTES = 48 << 20


class BulkRefused(Exception):
    """The server will not read this way; streaming may still do."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class _Taken(NamedTuple):
    """A piece and, with a step's last one, the copy's `restart_lsn` behind it."""

    piece: WirePiece
    restart_lsn: Lsn | None = None


class BulkReader:
    """`WireReader` by `pg_logical_slot_peek_binary_changes` and its consuming twin.

    `control` is a connection for short statements; `binary` asks for values so. The slot stands at
    `confirmed` and decodes from `restart_lsn`; changes are known up to `after`. Raises
    `BulkRefused` and the driver's errors.

    `start` before `read` has the server begin meanwhile.
    """

    def __init__(
        self,
        settings: SourceSettings,
        control: Connection,
        confirmed: Lsn,
        restart_lsn: Lsn | None,
        after: Lsn,
        *,
        binary: bool = False,
    ) -> None:
        self._settings = settings
        self._options = plugin_options(settings.pub_name, binary=binary)
        self._control = control
        self._confirmed = confirmed
        self._begin = self._position = max(after, confirmed)
        self._session: ArrowSession | None = None
        self._ahead: ReadAhead[_Taken] | None = None
        self._copy = f"wal2delta_copy_{uuid4().hex[:12]}"
        #: From where the next step decodes.
        self.restart_lsn = restart_lsn

    @property
    def position(self) -> Lsn:
        """What committed before has been handed over."""
        return self._position

    def start(self, until: Lsn) -> None:
        """Begin to read up to `until`, unless that is too little to pay."""
        wait_until_readable(self._control, until)
        if until - (self.restart_lsn or self._confirmed) > self._small:
            self._ahead = self._read_ahead(until)

    def read(self, until: Lsn, stop: Callable[[], bool]) -> Iterator[WirePiece]:
        """As `WireReader.read`; after `start` with the same `until`, if at all."""
        try:
            if self._ahead is None:
                wait_until_readable(self._control, until)
                if until - (self.restart_lsn or self._confirmed) <= self._small:
                    yield self._moved(_Taken(self._peek_small(until)))
                if self._position >= until or stop():
                    return
                self._ahead = self._read_ahead(until)
            while self._position < until:
                taken = self._ahead.take(stop)
                if taken is None:
                    return
                yield self._moved(taken)
                del taken
        except psycopg.Error as error:
            if (error.sqlstate or "").startswith(_REFUSALS):
                raise BulkRefused(f"SQLSTATE {error.sqlstate}") from error
            raise

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def _small(self) -> int:
        return min(_SMALL_BYTES, self._settings.batch_max_bytes)

    def _read_ahead(self, until: Lsn) -> ReadAhead[_Taken]:
        self._session = ArrowSession(self._settings, server_major(self._control))
        return ReadAhead(
            self._steps(self._session, self._position, until),
            size=lambda taken: taken.piece.size,
            max_bytes=_AHEAD_BYTES,
            cancel=self._session.cancel,
        )

    def _moved(self, taken: _Taken) -> WirePiece:
        if taken.piece.reached is not None:
            self._position = max(self._position, taken.piece.reached)
            self.restart_lsn = taken.restart_lsn or self.restart_lsn
        return taken.piece

    def _peek_small(self, until: Lsn) -> WirePiece:
        """What is soon told, by the connection that is open already."""
        query = self._query("peek", self._settings.slot_name, until)
        buffer, lengths = bytearray(), array("q")
        rows: Any = self._control.execute(query.encode(), binary=True).fetchall()
        for (message,) in rows:
            buffer += message
            lengths.append(len(message))
        whole = len(lengths) < self._settings.batch_max_rows
        return piece_of_lengths(buffer, lengths, until if whole else last_end_lsn(buffer))

    # In the thread that reads ahead, on the session that it has to itself.

    def _steps(
        self, session: ArrowSession, position: Lsn, until: Lsn
    ) -> Generator[_Taken, None, None]:
        restart_lsn = self.restart_lsn or self._confirmed
        single = _step_end(self._settings, position, until, restart_lsn) == until
        if single and position == self._begin:
            # A single step needs no copy of the slot, which may be refused. Peeking tells again
            # what was told already, so it is for the first step only.
            count, end = 0, position
            for piece in self._pieces(session, "peek", self._settings.slot_name, until):
                count += len(piece)
                end = _last_end(piece) or end
                yield _Taken(piece)
            position = end if count >= self._settings.batch_max_rows else until
            yield _Taken(end_of_batch(position))
        if position < until:
            self._copy_slot(session, position)
        while position < until:
            upto = _step_end(self._settings, position, until, restart_lsn)
            for piece in self._pieces(session, "get", self._copy, upto):
                yield _Taken(piece)
            reached, restart = session.row(
                "SELECT confirmed_flush_lsn::text, restart_lsn::text FROM pg_replication_slots "
                f"WHERE slot_name = {literal(self._copy)}"
            )
            position, restart_lsn = Lsn.parse(reached), Lsn.parse(restart)
            yield _Taken(end_of_batch(position), restart_lsn)

    def _copy_slot(self, session: ArrowSession, position: Lsn) -> None:
        """Copy the slot to one that dies with the session."""
        slot, copy = literal(self._settings.slot_name), literal(self._copy)
        session.execute(
            f"SELECT lsn::text FROM pg_copy_logical_replication_slot({slot}, {copy}, true)"
        )
        if position > self._confirmed:
            session.execute(
                f"SELECT end_lsn::text FROM pg_replication_slot_advance({copy}, '{position}')"
            )

    def _pieces(self, session: ArrowSession, how: str, slot: str, upto: Lsn) -> Iterator[WirePiece]:
        piece_bytes = min(_PIECE_BYTES, self._settings.batch_max_bytes)
        batches = session.stream(self._query(how, slot, upto), piece_bytes)
        pieces = (piece_of_arrow(batch.column(0)) for batch in batches if len(batch))
        return cut_batches(pieces, self._settings.batch_max_rows, self._settings.batch_max_bytes)

    def _query(self, how: str, slot: str, upto: Lsn) -> str:
        return (
            f"SELECT data FROM pg_logical_slot_{how}_binary_changes("
            f"{literal(slot)}, '{upto}', {self._settings.batch_max_rows}, "
            + ", ".join(f"'{name}', {literal(value)}" for name, value in self._options.items())
            + ")"
        )


def step_bytes(settings: SourceSettings, restart_distance: int) -> int:
    """WAL to decode in a step.

    As every step decodes again what is between `restart_lsn` and its begin, a step is no shorter
    than that, which keeps the whole linear; but the server holds its rows in temporary files.
    """
    return min(max(settings.batch_max_bytes, restart_distance), _MOST_STEPS_BYTES)


def _step_end(settings: SourceSettings, position: Lsn, until: Lsn, restart_lsn: Lsn) -> Lsn:
    step = step_bytes(settings, max(0, position - restart_lsn))
    # The last step may be half as long again: a short one behind it would cost more.
    return until if until - position <= step + step // 2 else Lsn(position + step)


def _last_end(piece: WirePiece) -> Lsn | None:
    """Where the last transaction of a piece ends; None unless that is its last message."""
    commits = piece.commits()
    return piece.end_lsn(commits[-1]) if len(commits) else None


def last_end_lsn(buffer: bytes | bytearray) -> Lsn:
    """Where the last transaction ends: a Commit message closes with its end LSN and its time."""
    return Lsn(int.from_bytes(buffer[-16:-8], "big"))


def plugin_options(publication: str, *, binary: bool) -> dict[str, str]:
    """pgoutput's own, by name."""
    options = {"proto_version": "1", "publication_names": quoted_list(publication)}
    return {**options, "binary": "true"} if binary else options


def literal(text: str) -> str:
    """An SQL string, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def quoted_list(name: str) -> str:
    """A name as pgoutput's `publication_names` wants it."""
    return '"' + name.replace('"', '""') + '"'
