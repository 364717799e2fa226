"""Moving the slot to what is durable, at a cost that does not grow with what was read before.

`pg_replication_slot_advance` reads WAL from `restart_lsn` to the new position each time, and moves
`restart_lsn` on the way where it can. A stream's status update moves the position alone, at once.
Manual: "Replication Management Functions", "Streaming Replication Protocol".
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from adapters.pgoutput import slot
from adapters.pgoutput.streaming_reader import StreamingReader
from cdc_core.errors import CdcError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.pgoutput.connection import Connection
    from adapters.pgoutput.settings import SourceSettings
    from cdc_core.lsn import Lsn
    from cdc_core.ports.change_source import SlotState

_log = logging.getLogger(__name__)

#: WAL that is read as fast as a stream is opened.
_SOON_READ_BYTES = 64 << 20
#: WAL that may be kept a while longer, for `restart_lsn` to move less often.
_KEPT_BYTES = 1 << 30


class SlotMoves:
    """The moves of one reading, or of none. `control` has the writer lock; nobody has the slot.

    `copy_restarts_at` tells from where a copy of the slot that is read in its place decodes: the
    slot's `restart_lsn` would move up to there. `ended` says that nothing more is read.
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
        self.ended = False

    def move(self, lsn: Lsn) -> None:
        """Move the position; `restart_lsn` too, unless it may wait for a later move or would stay
        where it is."""
        state, confirmed = slot.usable_slot(self._control, self._settings)
        if lsn <= confirmed:
            return
        distance = lsn - (state.restart_lsn or confirmed)
        waits = self._restart_may_wait(state, lsn, distance)
        if not (waits and distance > _SOON_READ_BYTES and self._by_stream(lsn)):
            name = self._settings.slot_name
            move = partial(slot.advance, self._control, name, lsn)
            slot.when_not_in_use(self._control, name, move)

    def _restart_may_wait(self, state: SlotState, lsn: Lsn, distance: int) -> bool:
        copy = self._copy_restarts_at()
        if copy is None or state.restart_lsn is None:
            return False
        freed = max(0, copy - state.restart_lsn)
        if self.ended:
            return not freed
        # A move to before where the copy restarts would not bring it there.
        return lsn < copy or freed < max(_KEPT_BYTES, distance // 2)

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
