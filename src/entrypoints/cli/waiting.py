"""Runs of one slot that start beside one another: a later one may wait instead of failing.

Jobs on a schedule meet: a full load starts while the stream follows, the stream while tables are
compared. One of them at a time has the slot, and by default the second ends at once.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from cdc_core.values.errors import NeverLoaded, WriterBusy

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoints.container import Container

logger = logging.getLogger("pgbronze")

#: How often a run that waits tries again; less than passes between two runs of a continuous job.
POLL_SECONDS = 2.0


def when_free(
    work: Callable[[], int], seconds: float, asked: Callable[[], bool] | None = None
) -> int:
    """Do `work`; while another run holds the slot, try again for up to `seconds`, or until `asked`
    to stop. Raises `WriterBusy` after that.
    """
    end, waits = time.monotonic() + seconds, False
    while True:
        try:
            return work()
        except WriterBusy as busy:
            if time.monotonic() >= end or (asked is not None and asked()):
                raise
            if not waits:
                logger.info("%s; waiting for its end", busy.what)
            waits = True
        time.sleep(POLL_SECONDS)


def once_loaded(
    stream: Callable[[], int], container: Container, stop: Callable[[], bool] | None
) -> int:
    """Stream; before the first snapshot wait for it until `stop`, and end well without it.

    Without `stop` there is no wait. While it waits it asks the source only, as a statement to a
    warehouse would keep that running. Raises what `stream` raises for any other reason: a slot
    without a checkpoint, or the reverse, is a loss and no beginning.
    """
    while True:
        try:
            return stream()
        except NeverLoaded as never:
            logger.info("%s", never.what)
        except WriterBusy:
            # It may be the first load that has the slot.
            if _checkpoint_exists(container):
                raise
        if stop is None or not _slot_appears(container, stop):
            logger.info("cdc done: nothing to stream before the first snapshot")
            return 0


def _checkpoint_exists(container: Container) -> bool:
    with container.destination() as destination:
        return destination.read_checkpoint() is not None


def _slot_appears(container: Container, stop: Callable[[], bool]) -> bool:
    """Whether there is a slot before `stop`; at least one poll is waited."""
    while not stop():
        time.sleep(POLL_SECONDS)
        with container.source_monitor() as monitor:
            if monitor.slot() is not None:
                return True
    return False
