"""Reads a slot through SQL in steps. The server decodes the next step while one is taken.

The server decodes a whole step before it sends the first row, and keeps the rows in temporary
files. A single step peeks at the slot. Several steps consume temporary copies of it: each step
copies the slot of the previous one. Manual: "Replication Management Functions".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from adapters.pgoutput.changes.in_progress_transactions import (
    IN_PROGRESS_OPTIONS,
    InProgressTransactions,
)
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

#: WAL of the shortest step: enough to outweigh its fixed cost, and quickly decoded.
_STEP_BYTES = 128 << 20
#: WAL of the longest step, which bounds the server's temporary files. A step without changes is
#: followed by a longer one: there may be nothing, or a large transaction, best decoded once.
_MOST_STEP_BYTES = 1 << 30
_QUIET_STEP_BYTES = 4 << 30
#: Bytes of a message run, and how far each step may read ahead.
_RUN_BYTES = 4 << 20
_AHEAD_BYTES = 24 << 20


@dataclass(eq=False)
class _Step:
    """One query on a session of its own, read in a thread."""

    source: _Step | None
    session: ArrowSession
    slot: str
    #: Known with its first run; `restart_lsn` with its last.
    upto: Lsn = ZERO_LSN
    found_changes: bool = False
    restart_lsn: Lsn = ZERO_LSN
    ahead: ReadAhead[MessageRun] = field(init=False)


class Steps:
    """All that committed after `begin` and up to `until`, or less if a transaction is so large that
    a walsender is better.

    The slot's position is `confirmed`, and it decodes from `restart_lsn`. Several steps use two
    sessions and two free slots, or one of each if a second is not available. A single step needs no
    free slot. Raises the driver's errors.
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
        self._options = {**options, **IN_PROGRESS_OPTIONS}
        self._confirmed = confirmed
        self._begin = begin
        self._until = until
        self._copies = f"pgbronze_copy_{uuid4().hex[:12]}"
        #: The step after the last one taken decodes from here.
        self.restart_lsn = restart_lsn
        self.use_copies = self._end(begin, restart_lsn) != until
        self._sessions = [ArrowSession(settings, server_major)]
        self._step = self._start(None)
        self._next: _Step | None = None
        self._side_by_side = self.use_copies and self._open_second(server_major)

    def read(self, stop: Callable[[], bool]) -> Iterator[MessageRun]:
        """Message runs. One without messages marks a point where the next may take a while. One
        with `reached` follows all that committed before that LSN."""
        while True:
            try:
                run = self._step.ahead.take(stop)
            except psycopg.errors.ConfigurationLimitExceeded:
                if self._step.source is None or not self._side_by_side:
                    raise
                # There was one free slot, but not two.
                self._side_by_side = False
                self._step.ahead.close()
                self._step = self._start(self._step.source)
                continue
            if run is None:
                return
            self._step.source = None  # else all steps stay in memory
            ended = run.reached is not None
            if ended:
                self.restart_lsn = self._step.restart_lsn
            if self._next is None and (ended or self._side_by_side) and self._goes_on():
                # The server has decoded a step once its first run arrives.
                self._next = self._start(self._step)
            if ended and self._next is not None and self._step.found_changes:
                # A batch is larger than most steps.
                run = end_of_batch(None)
            yield run
            del run
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
        """Whether there is a next step, and `restart_lsn` is close enough: else a walsender is
        better, and only steps already decoded are taken."""
        upto = self._step.upto
        return upto < self._until and upto - self.restart_lsn <= MOST_RESTART_BYTES

    def _open_second(self, server_major: int) -> bool:
        """Whether a second session could be opened; role and server have limits."""
        try:
            self._sessions.append(ArrowSession(self._settings, server_major))
        except CdcError as error:
            _log.debug("reading on one session: %s", error)
        return len(self._sessions) == 2

    def _start(self, source: _Step | None) -> _Step:
        """Start the step after `source`, on the other session or on the same; None: the first
        step."""
        if source is None:
            number = 0
        else:
            own = self._sessions.index(source.session)
            number = 1 - own if self._side_by_side else own
        session = self._sessions[number]
        step = _Step(source, session, f"{self._copies}_{number}")
        step.ahead = ReadAhead(
            self._runs(step),
            size=lambda run: run.size,
            max_bytes=_AHEAD_BYTES,
            cancel=session.cancel,
        )
        return step

    # These run in the thread of a step, on its session.

    def _runs(self, step: _Step) -> Generator[MessageRun, None, None]:
        session, source = step.session, step.source
        if not self.use_copies:
            # One step needs no copy of the slot, which the server may refuse.
            how, slot, step.upto = "peek", self._settings.slot_name, self._until
        else:
            if source is None or source.slot != step.slot:
                self._copy(session, source.slot if source else self._settings.slot_name, step.slot)
            begin, restart_lsn = _positions(session, step.slot)
            quiet = source is not None and not source.found_changes
            how, slot, step.upto = "get", step.slot, self._end(begin, restart_lsn, quiet=quiet)
        query = read_query(how, slot, step.upto, self._options)
        run_bytes = min(_RUN_BYTES, self._settings.batch_max_bytes)
        batches = session.stream(query, run_bytes)
        received = (batch.column(0) for batch in batches if len(batch))
        for messages in InProgressTransactions().in_commit_order(received, run_bytes // 4):
            step.found_changes = True
            yield message_run_of_arrow(messages)
        reached = step.upto
        if self.use_copies:
            reached, step.restart_lsn = _positions(session, slot)
        yield end_of_batch(reached)

    def _copy(self, session: ArrowSession, source: str, copy: str) -> None:
        """Copy a slot to a temporary one, which ends with the session."""
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
        # The last step may be 1.5 times as long: a short one after it would cost more.
        longest = step + step // 2
        return self._until if self._until - position <= longest else Lsn(position + step)


def read_query(how: str, slot: str, upto: Lsn, options: Mapping[str, str]) -> str:
    """`how` is `peek` or `get`. The server sends only whole transactions, however many rows."""
    pairs = "".join(f", '{name}', {literal(value)}" for name, value in options.items())
    return (
        f"SELECT data FROM pg_logical_slot_{how}_binary_changes("
        f"{literal(slot)}, '{upto}', NULL{pairs})"
    )


def step_bytes(settings: SourceSettings, restart_distance: int) -> int:
    """WAL to decode in a step.

    Each step decodes the WAL between `restart_lsn` and its beginning again. So a step is at least
    as long as that, which keeps the total linear.
    """
    shortest = min(_STEP_BYTES, settings.batch_max_bytes)
    return min(max(shortest, restart_distance), _MOST_STEP_BYTES)


def _positions(session: ArrowSession, slot: str) -> tuple[Lsn, Lsn]:
    """`confirmed_flush_lsn` and `restart_lsn` of a slot."""
    confirmed, restart = session.row(
        "SELECT confirmed_flush_lsn::text, restart_lsn::text FROM pg_replication_slots "
        f"WHERE slot_name = {literal(slot)}"
    )
    return Lsn.parse(confirmed), Lsn.parse(restart)
