"""The change source port: a slot read by either reader, decoded by one decoder, under one lock.

Manual: "Logical Decoding". What may be confirmed is the caller's rule; that reading moves nothing is
kept here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

import psycopg

from adapters.pgoutput import cluster, slot
from adapters.pgoutput.bulk_reader import BulkReader
from adapters.pgoutput.catalog_types import CatalogTypes
from adapters.pgoutput.connection import Connection, connect
from adapters.pgoutput.lock import take_writer_lock
from adapters.pgoutput.source_errors import source_errors, translated
from adapters.pgoutput.table_rows import column_numbers, primary_key
from adapters.pgoutput.wire.decoder import PgoutputDecoder
from cdc_core.changes import ChangeBatch, TableChanges
from cdc_core.errors import CdcError, HistoryLost, SourceUnavailable
from cdc_core.history import RESNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from adapters.pgoutput.settings import SourceSettings
    from adapters.pgoutput.wire_batch import WireBatch
    from cdc_core.checkpoint import SourceIdentity
    from cdc_core.lsn import Lsn
    from cdc_core.ports.change_source import SlotState
    from cdc_core.relation import Relation


class PgChangeSource:
    """`ChangeSource` of one slot.

    The session that holds the writer lock is also the one that moves the slot, so that a run which
    lost its lock moves nothing.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._control: Connection | None = None
        self._relations: dict[Relation, Relation] = {}

    def __enter__(self) -> Self:
        control = connect(self._settings)
        try:
            take_writer_lock(control, self._settings.slot_name)
        except BaseException:
            control.close()
            raise
        self._control = control
        return self

    def __exit__(self, *exc: object) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def identity(self) -> SourceIdentity:
        return cluster.source_identity(self._locked, self._settings.slot_name)

    def current_lsn(self) -> Lsn:
        return cluster.current_lsn(self._locked)

    def slot(self) -> SlotState | None:
        return slot.read_slot(self._locked, self._settings.slot_name)

    def create_slot(self) -> Lsn:
        return slot.create_slot(self._locked, self._settings)

    def drop_slot(self) -> bool:
        return slot.drop_slot(self._locked, self._settings.slot_name)

    def read(
        self,
        after: Lsn,
        until: Lsn,
        tables: Collection[int],
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[ChangeBatch]:
        cluster.require_logical_wal(self._locked)
        _, confirmed = slot.usable_slot(self._locked, self._settings)
        decoder = PgoutputDecoder(
            CatalogTypes(lambda: self._locked), lambda oid: primary_key(self._locked, oid)
        )
        reader = BulkReader(self._settings, self._locked, confirmed, after)
        doing = f"reading replication slot {self._settings.slot_name!r}"
        try:
            for wire in reader.read(until, stop):
                with source_errors("reading the catalog"):
                    batch = self._decoded(decoder, wire, after, tables)
                yield batch
                if stop():
                    return
        except psycopg.Error as error:
            raise self._read_error(error, doing) from error
        finally:
            reader.close()

    def confirm(self, durable_lsn: Lsn) -> None:
        _, confirmed = slot.usable_slot(self._locked, self._settings)
        if durable_lsn <= confirmed:
            return
        with source_errors(f"moving replication slot {self._settings.slot_name!r}"):
            slot.advance(self._locked, self._settings.slot_name, durable_lsn)

    @property
    def _locked(self) -> Connection:
        if self._control is None:
            raise RuntimeError("the change source is used outside of its `with` block")
        if self._control.closed or self._control.broken:
            raise SourceUnavailable(
                "the connection that held the writer lock was lost", "run again"
            )
        return self._control

    def _decoded(
        self, decoder: PgoutputDecoder, wire: WireBatch, after: Lsn, tables: Collection[int]
    ) -> ChangeBatch:
        if len(wire) == 0:
            return ChangeBatch((), max(wire.reached, after))
        decoded = decoder.decode(
            memoryview(wire.buffer), wire.offsets, after=after, tables=tables
        )
        return ChangeBatch(
            self._with_column_numbers(decoded.tables),
            max(wire.reached, decoded.end_lsn or wire.reached, after),
            decoded.last_commit_lsn,
            decoded.last_committed_at,
            decoded.transactions,
            len(wire.buffer),
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

    def _read_error(self, error: psycopg.Error, doing: str) -> CdcError:
        """What an error met while reading means: a lost slot shows as one of several."""
        if error.sqlstate in {"55000", "42704", "58P01"}:
            try:
                slot.usable_slot(self._locked, self._settings)
            except CdcError as lost:
                return lost
            if error.sqlstate == "42704":
                return HistoryLost(
                    f"publication {self._settings.pub_name!r} was missing when changes were made",
                    RESNAPSHOT,
                )
        return translated(error, doing)
