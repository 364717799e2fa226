"""Moving the slot to what is durable, at a cost that does not grow with what was read before.

`pg_replication_slot_advance` reads WAL from `restart_lsn` to the new position each time, and moves
`restart_lsn` on the way where it can. A stream's status update moves the position alone, at once.
Manual: "Replication Management Functions", "Streaming Replication Protocol".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import psycopg

from adapters.pgoutput import slot
from adapters.pgoutput.streaming_reader import StreamingReader
from cdc_core.errors import CdcError
from cdc_core.lsn import ZERO_LSN, Lsn

if TYPE_CHECKING:
    from adapters.pgoutput.connection import Connection
    from adapters.pgoutput.settings import SourceSettings

_log = logging.getLogger(__name__)

#: WAL that is read as fast as a stream is opened.
_SOON_READ_BYTES = 64 << 20
#: WAL that may be kept a while longer, for `restart_lsn` to move less often.
_KEPT_BYTES = 4 << 30


class SlotMoves:
    """The moves of a reading up to `until`. `control` has the writer lock; nobody has the slot."""

    def __init__(
        self, settings: SourceSettings, control: Connection, until: Lsn = ZERO_LSN
    ) -> None:
        self._settings = settings
        self._control = control
        self._until = until
        self._advanced: Lsn | None = None
        self._owed: Lsn | None = None

    def move(self, lsn: Lsn) -> None:
        """Move the position; `restart_lsn` too unless it may wait for a later move."""
        state, confirmed = slot.usable_slot(self._control, self._settings)
        if lsn <= confirmed:
            return
        if self._advanced is None:
            self._advanced = confirmed
        distance = lsn - (state.restart_lsn or confirmed)
        waits = lsn < self._until and lsn - self._advanced < max(_KEPT_BYTES, distance // 2)
        if waits and distance > _SOON_READ_BYTES and self._by_stream(lsn):
            self._owed = lsn
        else:
            self._advance(lsn)

    def settle(self) -> None:
        """At the end: `restart_lsn` follows, and lets go of the WAL before."""
        if self._owed is not None:
            self._advance(self._owed)

    def _advance(self, lsn: Lsn) -> None:
        name = self._settings.slot_name
        slot.when_not_in_use(self._control, name, lambda: slot.advance(self._control, name, lsn))
        self._advanced, self._owed = lsn, None

    def _by_stream(self, lsn: Lsn) -> bool:
        """False where no replication connection is to be had."""
        stream = StreamingReader(self._settings, self._control, lsn)
        try:
            stream.open()
            return stream.confirm(lsn)
        except (CdcError, psycopg.Error) as error:
            _log.debug("moving the slot without a stream: %s", error)
            return False
        finally:
            stream.close()
