"""The source monitor port: reads slot and WAL position. Takes no lock and writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from adapters.pgoutput.session import wal_position
from adapters.pgoutput.session.connection import Session
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.slot import slot

if TYPE_CHECKING:
    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.checkpoint import SourceIdentity
    from cdc_core.values.lsn import Lsn


class PgSourceMonitor:
    """`SourceMonitor` of one slot."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._session = Session(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._session.close()

    def identity(self) -> SourceIdentity:
        return wal_position.source_identity(self._session.connection, self._settings.slot_name)

    def left_timeline(self, timeline: int) -> Lsn | None:
        return wal_position.left_timeline(self._settings, timeline)

    def slot(self) -> SlotState | None:
        return slot.read_slot(self._session.connection, self._settings.slot_name)

    def current_lsn(self) -> Lsn:
        with source_errors("reading the WAL position"):
            return wal_position.readable_lsn(self._session.connection)

    def now(self) -> int:
        with source_errors("reading the source's clock"):
            row: Any = self._session.connection.execute(wal_position.NOW).fetchone()
        return int(row[0])
