"""A slot read through SQL in steps, the next one at work on the server while one is taken.

The server decodes a step whole before its first row comes, and keeps the rows in temporary files.
Where one step is enough it peeks; several consume temporary copies of the slot, a step's a copy of
the one before it. Manual: "Replication Management Functions".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from adapters.pgoutput.changes.in_progress_transactions import STREAMED, InProgressTransactions
from adapters.pgoutput.changes.read_ahead import ReadAhead
from adapters.pgoutput.changes.reader_choice import MOST_RESTART_BYTES
from adapters.pgoutput.session.arrow_session import ArrowSession
from adapters.pgoutput.session.sql_text import literal
from adapters.pgoutput.wire.message_run import MessageRun, end_of_batch, message_run_of_arrow
from cdc_core.values.errors import CdcError
from cdc_core.values.lsn import ZERO_LSN, Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from adapters.pgoutput.session.settings import SourceSettings

_log = logging.getLogger(__name__)

#: WAL of the shortest step: enough that its fixed cost does not count, soon decoded.
_STEP_BYTES = 128 << 20
#: WAL of the longest step, which bounds the server's temporary files; and of one that follows a
#: step that told nothing: there may be nothing, or a large transaction, best decoded once.
_MOST_STEP_BYTES = 1 << 30
_QUIET_STEP_BYTES = 4 << 30
#: Messages that come as one piece, and how far each step may be ahead of who takes them.
_PIECE_BYTES = 4 << 20
_AHEAD_BYTES = 24 << 20


@dataclass(eq=False)
class _Step:
    """One call of the server, on a session that has it to itself; read in a thread."""

    source: _Step | None
    session: ArrowSession
    slot: str
    #: Known once its first piece has come; `restart_lsn` with its last.
    upto: Lsn = ZERO_LSN
    told: bool = False
    restart_lsn: Lsn = ZERO_LSN
    ahead: ReadAhead[MessageRun] = field(init=False)


class Steps:
    """What committed after `begin`, up to `until`, as the slot tells it; less where a transaction
    is so large that it is better streamed.

    The slot stands at `confirmed` and decodes from `restart_lsn`. Several steps take two sessions
    and two slots to spare, or one of each if no second is to be had; a single one needs no slot.
    Errors are the driver's.
    """

    def __init__(
        self,
        settings: SourceSettings,
        server_major: int,
        options: Mapping[str, str],
        confirmed: Lsn,
        restart_lsn: Lsn,
        begin: Lsn,
        until: Lsn,
    ) -> None:
        self._settings = settings
        self._options = {**options, **STREAMED}
        self._confirmed = confirmed
        self._begin = begin
        self._until = until
        self._copies = f"pgbronze_copy_{uuid4().hex[:12]}"
        #: From where the step decodes that comes after those which were taken.
        self.restart_lsn = restart_lsn
        self.use_copies = self._end(begin, restart_lsn) != until
        self._sessions = [ArrowSession(settings, server_major)]
        self._step = self._start(None)
        self._next: _Step | None = None
        self._side_by_side = self.use_copies and self._open_second(server_major)

    def read(self, stop: Callable[[], bool]) -> Iterator[MessageRun]:
        """Pieces; where one may wait for the next, there is one without messages. With `reached` it
        says that all that committed before has come."""
        while True:
            try:
                piece = self._step.ahead.take(stop)
            except psycopg.errors.ConfigurationLimitExceeded:
                if self._step.source is None or not self._side_by_side:
                    raise
                # There was a slot to spare, but no second one.
                self._side_by_side = False
                self._step.ahead.close()
                self._step = self._start(self._step.source)
                continue
            if piece is None:
                return
            self._step.source = None  # or all steps would be kept
            ended = piece.reached is not None
            if ended:
                self.restart_lsn = self._step.restart_lsn
            if self._next is None and (ended or self._side_by_side) and self._goes_on():
                # The server has decoded a step once its first piece is here.
                self._next = self._start(self._step)
            if ended and self._next is not None and self._step.told:
                # A batch is larger than most steps.
                piece = end_of_batch(None)
            yield piece
            del piece
            if ended:
                if self._next is None:
                    return
                self._step.ahead.close()
                self._step, self._next = self._next, None

    def close(self) -> None:
        for step in (self._next, self._step):
            if step is not None:
                step.ahead.close()
        for session in self._sessions:
            session.close()

    def _goes_on(self) -> bool:
        """Whether there is a next step, and not so far from `restart_lsn` that a stream is better:
        what is decoded already is taken in any case."""
        upto = self._step.upto
        return upto < self._until and upto - self.restart_lsn <= MOST_RESTART_BYTES

    def _open_second(self, server_major: int) -> bool:
        """Whether there is a second session now: the role or the server may have none left."""
        try:
            self._sessions.append(ArrowSession(self._settings, server_major))
        except CdcError as error:
            _log.debug("reading on one session: %s", error)
        return len(self._sessions) == 2

    def _start(self, source: _Step | None) -> _Step:
        """Begin the step behind `source`, beside it or in its place; None: the first one."""
        if source is None:
            number = 0
        else:
            own = self._sessions.index(source.session)
            number = 1 - own if self._side_by_side else own
        session = self._sessions[number]
        step = _Step(source, session, f"{self._copies}_{number}")
        step.ahead = ReadAhead(
            self._pieces(step),
            size=lambda piece: piece.size,
            max_bytes=_AHEAD_BYTES,
            cancel=session.cancel,
        )
        return step

    # In the thread of a step, on its session.

    def _pieces(self, step: _Step) -> Generator[MessageRun, None, None]:
        session, source = step.session, step.source
        if not self.use_copies:
            # One step needs no copy of the slot, which may be refused.
            how, slot, step.upto = "peek", self._settings.slot_name, self._until
        else:
            if source is None or source.slot != step.slot:
                self._copy(session, source.slot if source else self._settings.slot_name, step.slot)
            begin, restart_lsn = _standing(session, step.slot)
            quiet = source is not None and not source.told
            how, slot, step.upto = "get", step.slot, self._end(begin, restart_lsn, quiet=quiet)
        query = read_query(how, slot, step.upto, self._options)
        piece_bytes = min(_PIECE_BYTES, self._settings.batch_max_bytes)
        batches = session.stream(query, piece_bytes)
        told = (batch.column(0) for batch in batches if len(batch))
        for messages in InProgressTransactions().in_commit_order(told, piece_bytes // 4):
            step.told = True
            yield message_run_of_arrow(messages)
        reached = step.upto
        if self.use_copies:
            reached, step.restart_lsn = _standing(session, slot)
        yield end_of_batch(reached)

    def _copy(self, session: ArrowSession, source: str, copy: str) -> None:
        """Copy a slot to one that dies with the session."""
        session.execute(
            "SELECT pg_drop_replication_slot(slot_name)::text FROM pg_replication_slots "
            f"WHERE slot_name = {literal(copy)}"
        )
        session.execute(
            "SELECT lsn::text FROM pg_copy_logical_replication_slot("
            f"{literal(source)}, {literal(copy)}, true)"
        )
        if source == self._settings.slot_name and self._begin > self._confirmed:
            session.execute(
                "SELECT end_lsn::text FROM pg_replication_slot_advance("
                f"{literal(copy)}, '{self._begin}')"
            )

    def _end(self, position: Lsn, restart_lsn: Lsn, *, quiet: bool = False) -> Lsn:
        step = step_bytes(self._settings, max(0, position - restart_lsn))
        if quiet:
            step = _QUIET_STEP_BYTES
        # The last step may be half as long again: a short one behind it would cost more.
        longest = step + step // 2
        return self._until if self._until - position <= longest else Lsn(position + step)


def read_query(how: str, slot: str, upto: Lsn, options: Mapping[str, str]) -> str:
    """`how` is `peek` or `get`; only whole transactions come, so they alone bound the rows."""
    pairs = "".join(f", '{name}', {literal(value)}" for name, value in options.items())
    return (
        f"SELECT data FROM pg_logical_slot_{how}_binary_changes("
        f"{literal(slot)}, '{upto}', NULL{pairs})"
    )


def step_bytes(settings: SourceSettings, restart_distance: int) -> int:
    """WAL to decode in a step.

    As every step decodes again what is between `restart_lsn` and its begin, a step is no shorter
    than that, which keeps the whole linear.
    """
    shortest = min(_STEP_BYTES, settings.batch_max_bytes)
    return min(max(shortest, restart_distance), _MOST_STEP_BYTES)


def _standing(session: ArrowSession, slot: str) -> tuple[Lsn, Lsn]:
    """Up to where a slot was consumed, and from where it decodes."""
    confirmed, restart = session.row(
        "SELECT confirmed_flush_lsn::text, restart_lsn::text FROM pg_replication_slots "
        f"WHERE slot_name = {literal(slot)}"
    )
    return Lsn.parse(confirmed), Lsn.parse(restart)
