"""Moves the slot to a durable LSN, at a cost that does not grow with the distance already read.

`pg_replication_slot_advance` reads the WAL from `restart_lsn` to the new position each time, and
moves `restart_lsn` if it can. A status update of a stream moves only the position, at once.
Manual: "Replication Management Functions", "Streaming Replication Protocol".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import psycopg

from adapters.pgoutput.changes.walsender_reader import WalsenderReader
from adapters.pgoutput.slot import slot
from cdc_core.values.errors import CdcError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.lsn import Lsn

_log = logging.getLogger(__name__)

#: Reading this much WAL takes as long as opening a stream.
_SOON_READ_BYTES = 64 << 20
#: WAL that may be retained longer, so that `restart_lsn` moves less often.
_KEPT_BYTES = 1 << 30


class SlotMoves:
    """The moves during one read, or outside of any. `control` holds the writer lock, and the slot
    is not in use.

    `copy_restarts_at` returns the `restart_lsn` of the slot copy that is being read. The slot's own
    `restart_lsn` could move up to there.
    """

    def __init__(
        self,
        settings: SourceSettings,
        control: Connection,
        copy_restarts_at: Callable[[], Lsn | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._control = control
        self._copy_restarts_at = copy_restarts_at
        self._owed: Lsn | None = None

    def move(self, lsn: Lsn) -> None:
        """Move the position, and `restart_lsn` too unless that can wait for a later move."""
        state, confirmed = slot.usable_slot(self._control, self._settings)
        if lsn <= confirmed:
            return
        distance = lsn - (state.restart_lsn or confirmed)
        freed, copy = self._freed(state), self._copy_restarts_at()
        # A copy beyond `lsn` has reached a restart point that the slot cannot reach.
        ahead = copy is not None and copy > lsn
        waits = freed is not None and (ahead or freed < max(_KEPT_BYTES, distance // 2))
        if waits and distance > _SOON_READ_BYTES and self._by_stream(lsn):
            self._owed = lsn
        else:
            self._advance(lsn)

    def settle(self) -> None:
        """Call this at the end: moves `restart_lsn` if possible, which frees the WAL before it."""
        if self._owed is None:
            return
        state, _ = slot.usable_slot(self._control, self._settings)
        if self._freed(state) != 0:
            self._advance(self._owed)

    def _freed(self, state: SlotState) -> int | None:
        """WAL that a move of `restart_lsn` frees; None: not known."""
        copy = self._copy_restarts_at()
        if copy is None or state.restart_lsn is None:
            return None
        return max(0, copy - state.restart_lsn)

    def _advance(self, lsn: Lsn) -> None:
        name = self._settings.slot_name
        slot.when_not_in_use(self._control, name, lambda: slot.advance(self._control, name, lsn))
        self._owed = None

    def _by_stream(self, lsn: Lsn) -> bool:
        """Move only the position. False if no replication connection is available."""
        stream = WalsenderReader(self._settings, self._control, lsn, begin=lsn)
        try:
            stream.open()
            return stream.confirm(lsn)
        except (CdcError, psycopg.Error) as error:
            _log.debug("moving the slot without a stream: %s", error)
            return False
        finally:
            stream.close()
