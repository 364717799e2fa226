"""The change source port: reads a slot with one of two readers, under the writer lock.

Reading never moves the slot; the caller decides which LSN to confirm. Manual: "Logical Decoding".
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from threading import Event
from typing import TYPE_CHECKING, NamedTuple, Self

import psycopg

from adapters.arrow_warmup import warm_up_arrow
from adapters.pgoutput.catalog.catalog_types import CatalogTypes
from adapters.pgoutput.catalog.table_queries import column_numbers, primary_key
from adapters.pgoutput.catalog.value_format import all_read_binary
from adapters.pgoutput.changes.batch_decoding import PART_BYTES, BatchDecoding
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
from adapters.pgoutput.wire.decoder import BinaryValue
from cdc_core.ports.change_source import ReadAgain
from cdc_core.slot.continuity import RESNAPSHOT
from cdc_core.values.errors import CdcError, ContinuityLost, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping

    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.wire.decoder import PgoutputDecoder
    from adapters.pgoutput.wire.message_run import MessageRun
    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.changes import ChangeBatch
    from cdc_core.values.checkpoint import SourceIdentity
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.table_rules import ColumnRules

_log = logging.getLogger(__name__)


class _Stream:
    """An open walsender stream and its decoder, used for several reads.

    Since `quiet_from` it sent no changes of `tables`. So a read of these tables that starts between
    there and the stream's position can continue with it.
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

    def handed_over(self, batch: ChangeBatch) -> None:
        if batch.complete and batch.changes:
            self.quiet_from = batch.end_lsn


class _Started(NamedTuple):
    """A bulk reader that was started early, for commits after `after` and up to `until`."""

    reader: BulkReader
    after: Lsn
    until: Lsn
    binary: bool


class PgChangeSource:
    """`ChangeSource` of one slot.

    The session that holds the writer lock also moves the slot. So a run that lost its lock moves
    nothing.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._control: Connection | None = None
        self._types = CatalogTypes(lambda: nullcontext(self._locked))
        self._decoding = BatchDecoding(
            self._types,
            lambda oid: primary_key(self._locked, oid),
            lambda oids: column_numbers(self._locked, oids),
            settings.batch_max_bytes,
        )
        self._stream: _Stream | None = None
        #: Only during a bulk read.
        self._moves: SlotMoves | None = None
        self._started: _Started | None = None
        self._read_before = False
        self._chosen: Reader | None = None
        #: How columns of the current `read` are read.
        self._rules: Mapping[int, ColumnRules] = {}
        #: Whether values are requested in binary format; None: not known yet.
        self._binary: bool | None = None
        #: Why the server refused a bulk read in the middle of a batch.
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
        rules: Mapping[int, ColumnRules] | None = None,
    ) -> Iterator[ChangeBatch]:
        self._rules = rules or {}
        oids, refusal, position = frozenset(tables), self._refusal, after
        finished, whole = False, True
        try:
            while True:
                try:
                    for batch in self._read_by_one(position, until, oids, stop, refusal):
                        whole = batch.complete
                        position = batch.end_lsn if whole else position
                        yield batch
                        del batch  # frees memory for the next one
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
                # The stream may be ahead of the caller, or within a transaction.
                self._close_stream()

    def open_messages(self, after: Lsn, *, as_text: bool = False) -> WalsenderReader:
        """Return a reader of the messages after `after`, undecoded; close it. Moves nothing.

        `as_text` requests values in text format; else they have the format that `read` requests.
        """
        wal_position.require_logical_wal(self._locked)
        _, confirmed = slot.usable_slot(self._locked, self._settings)
        binary = not as_text and self._in_binary()
        return WalsenderReader(self._settings, self._locked, max(after, confirmed), binary=binary)

    def confirm(self, durable_lsn: Lsn) -> None:
        with source_errors(f"moving replication slot {self._settings.slot_name!r}"):
            if self._stream is not None:
                # The stream uses the slot, so its feedback must move it.
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
        """Read with the reader that costs less. Ends where the other one would cost less."""
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
                runs = stream.reader.read(until, stop)
                for batch in self._batches(runs, stream.decoder, position, tables):
                    whole, end_lsn = batch.complete, batch.end_lsn
                    stream.handed_over(batch)
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
                runs = bulk.read(until, lambda: stop() or ended.is_set())
                # Decode the next batch while the caller loads this one.
                ahead = ReadAhead(
                    self._batches(runs, self._decoding.new_decoder(), position, tables),
                    size=lambda batch: batch.wire_bytes,
                    max_bytes=PART_BYTES,
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

    def _batches(
        self,
        runs: Iterator[MessageRun],
        decoder: PgoutputDecoder,
        position: Lsn,
        tables: frozenset[int],
    ) -> Generator[ChangeBatch, None, None]:
        return self._decoding.batches(runs, decoder, position, tables, self._rules)

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
        """Whether the rest costs less in bulk, because `restart_lsn` is no longer held back."""
        state, _ = slot.usable_slot(self._locked, self._settings)
        choice = self._choose(position, until, state.restart_lsn, at_tail=True, refusal=refusal)
        return choice.reader is Reader.BULK

    def _streaming(self, position: Lsn, tables: frozenset[int]) -> _Stream:
        if self._stream is None or not self._stream.fits(position, tables):
            self._close_stream()
            reader = WalsenderReader(
                self._settings, self._locked, position, binary=self._in_binary()
            )
            self._stream = _Stream(reader, self._decoding.new_decoder(), tables)
        self._stream.tables = tables
        return self._stream

    def _bulk(
        self, state: SlotState, confirmed: Lsn, position: Lsn, until: Lsn
    ) -> tuple[BulkReader, Lsn]:
        """A reader and the LSN to read up to. Uses the reader that was started early if it fits."""
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
        if self._settings.text_format:
            return False
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

    def _read_error(self, error: psycopg.Error) -> CdcError:
        """The cause of an error while reading. A lost slot shows in several ways."""
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
