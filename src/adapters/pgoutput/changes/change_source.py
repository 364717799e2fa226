"""The change source port: a slot read by either reader, decoded by one decoder, under one lock.

What may be confirmed is the caller's rule; that reading moves nothing is kept here. Manual:
"Logical Decoding".
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, NamedTuple, Self

import psycopg

from adapters.arrow_warmup import warm_up_arrow
from adapters.pgoutput.catalog.catalog_types import CatalogTypes
from adapters.pgoutput.catalog.table_queries import column_numbers, primary_key
from adapters.pgoutput.catalog.value_format import all_read_binary
from adapters.pgoutput.changes.bulk_reader import BulkReader, BulkRefused
from adapters.pgoutput.changes.bulk_steps import step_bytes
from adapters.pgoutput.changes.read_ahead import ReadAhead
from adapters.pgoutput.changes.reader_choice import Choice, Reader, choose_reader
from adapters.pgoutput.changes.slot_moves import SlotMoves
from adapters.pgoutput.changes.walsender_reader import WalsenderReader
from adapters.pgoutput.session import wal_position
from adapters.pgoutput.session.connection import Connection, connect
from adapters.pgoutput.session.source_errors import source_errors, translated
from adapters.pgoutput.slot import slot
from adapters.pgoutput.slot.writer_lock import give_up_writer_lock, take_writer_lock
from adapters.pgoutput.wire.decoder import BinaryValue, PgoutputDecoder
from cdc_core.ports.change_source import ReadAgain
from cdc_core.slot.continuity import RESNAPSHOT
from cdc_core.values.changes import ChangeBatch, TableChanges
from cdc_core.values.errors import CdcError, ContinuityLost, SourceUnavailable
from cdc_core.values.lsn import ZERO_LSN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator

    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.wire.decoder import DecodedBatch
    from adapters.pgoutput.wire.message_run import MessageRun
    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.checkpoint import SourceIdentity
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Relation

_log = logging.getLogger(__name__)

#: Threads that decode; more would wait for one another.
_DECODERS = 2
#: Messages decoded together, and how far decoding may be ahead of the caller.
_PART_BYTES = 32 << 20


class _Stream:
    """An open stream and its decoder, which goes on from read to read.

    Since `quiet_from` it told nothing of `tables`, so a reading of these that starts anywhere
    between there and its position can go on with it.
    """

    def __init__(
        self, reader: WalsenderReader, decoder: PgoutputDecoder, tables: frozenset[int]
    ) -> None:
        self.reader = reader
        self.decoder = decoder
        self.quiet_from = reader.position
        self.tables = tables

    def fits(self, after: Lsn, tables: frozenset[int]) -> bool:
        return (
            self.reader.is_open
            and self.quiet_from <= after <= self.reader.position
            and tables <= self.tables
        )

    def told(self, batch: ChangeBatch) -> None:
        if batch.complete and batch.changes:
            self.quiet_from = batch.end_lsn


class _Started(NamedTuple):
    """A bulk reader at work before it was asked: what committed after `after`, up to `until`."""

    reader: BulkReader
    after: Lsn
    until: Lsn
    binary: bool


class PgChangeSource:
    """`ChangeSource` of one slot.

    The session that holds the writer lock is also the one that moves the slot, so that a run which
    lost its lock moves nothing.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._control: Connection | None = None
        self._types = CatalogTypes(lambda: nullcontext(self._locked))
        self._relations: dict[Relation, Relation] = {}
        self._stream: _Stream | None = None
        #: While reading in bulk.
        self._moves: SlotMoves | None = None
        self._started: _Started | None = None
        self._read_before = False
        self._chosen: Reader | None = None
        #: Whether values are asked for in binary format; None: not known yet.
        self._binary: bool | None = None
        #: Why the server will not read in bulk, found when parts of a batch had come so.
        self._refusal = ""

    def __enter__(self) -> Self:
        warm_up_arrow()
        control = connect(self._settings)
        try:
            take_writer_lock(control, self._settings.slot_name)
        except BaseException:
            control.close()
            raise
        self._control = control
        return self

    def __exit__(self, *exc: object) -> None:
        self._close_started()
        self._close_stream()
        self._read_before = False
        if self._control is not None:
            give_up_writer_lock(self._control)
            self._control.close()
            self._control = None

    def identity(self) -> SourceIdentity:
        return wal_position.source_identity(self._locked, self._settings.slot_name)

    def left_timeline(self, timeline: int) -> Lsn | None:
        return wal_position.left_timeline(self._settings, timeline)

    def current_lsn(self) -> Lsn:
        return wal_position.current_lsn(self._locked)

    def slot(self) -> SlotState | None:
        return slot.read_slot(self._locked, self._settings.slot_name)

    def create_slot(self) -> Lsn:
        return slot.create_slot(self._locked, self._settings)

    def drop_slot(self) -> bool:
        self._close_started()
        self._close_stream()
        return slot.drop_slot(self._locked, self._settings)

    def note_transactions(self) -> None:
        wal_position.note_transactions(self._locked)

    def expect_read(self) -> Lsn:
        until, state = self.current_lsn(), self.slot()
        if state is None or state.lost or state.plugin != self._settings.plugin_name:
            return until
        confirmed = state.confirmed_flush_lsn
        if confirmed is None or state.active_pid is not None:
            return until
        if self._choose(confirmed, until, state.restart_lsn).reader is Reader.BULK:
            bulk = self._bulk_reader(confirmed, state.restart_lsn, confirmed)
            self._started = _Started(bulk, confirmed, until, self._in_binary())
            with source_errors("beginning to read changes"):
                bulk.start(until)
        return until

    def read(
        self,
        after: Lsn,
        until: Lsn,
        tables: Collection[int],
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[ChangeBatch]:
        oids, refusal, position = frozenset(tables), self._refusal, after
        finished, whole = False, True
        try:
            while True:
                try:
                    for batch in self._read_by_one(position, until, oids, stop, refusal):
                        whole = batch.complete
                        position = batch.end_lsn if whole else position
                        yield batch
                        del batch  # it may be large, and the next one comes
                    finished = position >= until
                    if finished or stop():
                        break
                except BulkRefused as refused:
                    refusal = refused.reason
                    if not whole:
                        self._refusal = refusal
                        raise ReadAgain from refused
                except BinaryValue as unread:
                    self._binary = False
                    self._close_stream()
                    if not whole:
                        raise ReadAgain from unread
            self._read_before = True
        except psycopg.Error as error:
            raise self._read_error(error) from error
        finally:
            if not finished:
                # The stream may be past what the caller has taken, or within a transaction.
                self._close_stream()

    def confirm(self, durable_lsn: Lsn) -> None:
        with source_errors(f"moving replication slot {self._settings.slot_name!r}"):
            if self._stream is not None:
                # The stream has the slot; its feedback moves it.
                _, confirmed = slot.usable_slot(self._locked, self._settings)
                if durable_lsn > confirmed:
                    self._stream.reader.confirm(durable_lsn)
            else:
                (self._moves or SlotMoves(self._settings, self._locked)).move(durable_lsn)

    @property
    def _locked(self) -> Connection:
        """The session with the writer lock."""
        if self._control is None:
            raise RuntimeError("the change source is used outside of its `with` block")
        if self._control.closed or self._control.broken:
            raise SourceUnavailable("the session that held the writer lock was lost", "run again")
        return self._control

    def _read_by_one(
        self,
        position: Lsn,
        until: Lsn,
        tables: frozenset[int],
        stop: Callable[[], bool],
        refusal: str,
    ) -> Iterator[ChangeBatch]:
        """Read with the reader that costs less; end where the other one would."""
        wal_position.require_logical_wal(self._locked)
        state, confirmed = slot.usable_slot(self._locked, self._settings)
        position = max(position, confirmed)
        choice = self._choose(
            position, until, state.restart_lsn, at_tail=self._read_before, refusal=refusal
        )
        if choice.reader is not self._chosen:
            self._chosen = choice.reader
            _log.info("reading by %s: %s", choice.reader.value, choice.reason)
        match choice.reader:
            case Reader.STREAMING:
                self._close_started()
                stream = self._streaming(position, tables)
                pieces = stream.reader.read(until, stop)
                for batch in self._batches(pieces, stream.decoder, position, tables):
                    whole, end_lsn = batch.complete, batch.end_lsn
                    stream.told(batch)
                    yield batch
                    del batch
                    if not whole:
                        continue
                    if stop() or (end_lsn < until and self._bulk_pays(end_lsn, until, refusal)):
                        return
            case Reader.BULK:
                self._close_stream()
                bulk, until = self._bulk(state, confirmed, position, until)
                ended = Event()
                pieces = bulk.read(until, lambda: stop() or ended.is_set())
                # The next batch is decoded while the caller loads this one.
                ahead = ReadAhead(
                    self._batches(pieces, self._new_decoder(), position, tables),
                    size=lambda batch: batch.wire_bytes,
                    max_bytes=_PART_BYTES,
                    cancel=ended.set,
                )
                moves = self._moves = SlotMoves(
                    self._settings, self._locked, lambda: bulk.copy_restarts_at
                )
                try:
                    for batch in iter(ahead.take, None):
                        whole = batch.complete
                        yield batch
                        del batch
                        if whole and stop():
                            break
                finally:
                    self._moves = None
                    ahead.close()
                    bulk.close()
                moves.settle()

    def _choose(
        self,
        position: Lsn,
        until: Lsn,
        restart_lsn: Lsn | None,
        *,
        at_tail: bool = False,
        refusal: str = "",
    ) -> Choice:
        distance = max(0, position - (restart_lsn or position))
        return choose_reader(
            backlog_bytes=max(0, until - position),
            restart_distance_bytes=distance,
            step_bytes=step_bytes(self._settings, distance),
            at_tail=at_tail,
            refusal=refusal,
        )

    def _bulk_pays(self, position: Lsn, until: Lsn, refusal: str) -> bool:
        """Whether what is left is better read in bulk: what held `restart_lsn` back has passed."""
        state, _ = slot.usable_slot(self._locked, self._settings)
        choice = self._choose(position, until, state.restart_lsn, at_tail=True, refusal=refusal)
        return choice.reader is Reader.BULK

    def _streaming(self, position: Lsn, tables: frozenset[int]) -> _Stream:
        if self._stream is None or not self._stream.fits(position, tables):
            self._close_stream()
            reader = WalsenderReader(
                self._settings, self._locked, position, binary=self._in_binary()
            )
            self._stream = _Stream(reader, self._new_decoder(), tables)
        self._stream.tables = tables
        return self._stream

    def _bulk(
        self, state: SlotState, confirmed: Lsn, position: Lsn, until: Lsn
    ) -> tuple[BulkReader, Lsn]:
        """A reader, and up to where it shall read: the one that was started, if that will do."""
        started, self._started = self._started, None
        if started is not None:
            if (
                started.binary == self._in_binary()
                and started.after <= position
                and started.until <= until
            ):
                return started.reader, started.until
            started.reader.close()
        return self._bulk_reader(confirmed, state.restart_lsn, position), until

    def _bulk_reader(self, confirmed: Lsn, restart_lsn: Lsn | None, after: Lsn) -> BulkReader:
        return BulkReader(
            self._settings, self._locked, confirmed, restart_lsn, after, binary=self._in_binary()
        )

    def _in_binary(self) -> bool:
        if self._binary is None:
            self._binary = all_read_binary(self._locked, self._settings.pub_name, self._types)
        return self._binary

    def _close_started(self) -> None:
        if self._started is not None:
            self._started.reader.close()
            self._started = None

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.reader.close()
            self._stream = None

    def _new_decoder(self) -> PgoutputDecoder:
        return PgoutputDecoder(self._types, lambda oid: primary_key(self._locked, oid))

    def _batches(
        self,
        pieces: Iterator[MessageRun],
        decoder: PgoutputDecoder,
        after: Lsn,
        tables: Collection[int],
    ) -> Generator[ChangeBatch, None, None]:
        """Decode pieces as they come, more than one at a time; hand a batch's on together, or a
        part of those that would fill memory."""
        most_bytes = min(_PART_BYTES, self._settings.batch_max_bytes)
        with ThreadPoolExecutor(_DECODERS, "pgbronze-decoder") as pool:
            decoded: list[Future[DecodedBatch]] = []
            wire_bytes = 0
            for piece in pieces:
                if len(piece):
                    wire_bytes += piece.size
                    scanned = decoder.scan(piece.buffer, piece.offsets, after=after, tables=tables)
                    decoded.append(pool.submit(scanned))
                    del scanned
                    if len(decoded) > _DECODERS:
                        # No more bytes in memory than are worked on.
                        decoded[-1 - _DECODERS].result()
                if piece.reached is not None or wire_bytes >= most_bytes:
                    reached = None if piece.reached is None else max(piece.reached, after)
                    batch = self._batch([one.result() for one in decoded], reached, wire_bytes)
                    decoded, wire_bytes = [], 0
                    yield batch
                    del batch
                del piece

    def _batch(
        self, decoded: list[DecodedBatch], reached: Lsn | None, wire_bytes: int
    ) -> ChangeBatch:
        kept = [piece for piece in decoded if piece.transactions]
        ends = [piece.end_lsn for piece in decoded if piece.end_lsn is not None]
        return ChangeBatch(
            self._with_column_numbers([table for piece in decoded for table in piece.tables]),
            max(reached or ZERO_LSN, *ends) if ends else reached or ZERO_LSN,
            kept[-1].last_commit_lsn if kept else None,
            kept[-1].last_committed_at if kept else None,
            sum(piece.transactions for piece in kept),
            wire_bytes,
            complete=reached is not None,
        )

    def _with_column_numbers(self, tables: list[TableChanges]) -> list[TableChanges]:
        """Give columns the numbers that the catalog knows for their names now; 0 for the others."""
        new = {t.relation for t in tables} - self._relations.keys()
        if new:
            numbers = column_numbers(self._locked, [relation.oid for relation in new])
            for relation in new:
                known = numbers.get(relation.oid, {})
                columns = tuple(replace(c, attnum=known.get(c.name, 0)) for c in relation.columns)
                self._relations[relation] = replace(relation, columns=columns)
        return [replace(t, relation=self._relations[t.relation]) for t in tables]

    def _read_error(self, error: psycopg.Error) -> CdcError:
        """What an error met while reading means: a slot that is gone shows in several ways."""
        try:
            slot.usable_slot(self._locked, self._settings)
        except CdcError as lost:
            return lost
        if error.sqlstate == "42704":
            return ContinuityLost(
                f"publication {self._settings.pub_name!r} was missing when changes were made",
                RESNAPSHOT,
            )
        return translated(error, f"reading replication slot {self._settings.slot_name!r}")
