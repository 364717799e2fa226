"""Wait for another run that holds the slot, instead of failing.

Scheduled jobs overlap: a full load starts while `cdc` follows, or `cdc` while tables are compared.
One run at a time holds the slot. By default the second ends at once.
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

#: Seconds between attempts; less than between two runs of a continuous job.
POLL_SECONDS = 2.0


def when_free(
    work: Callable[[], int], seconds: float, asked: Callable[[], bool] | None = None
) -> int:
    """Do `work`. While another run holds the slot, try again for up to `seconds`, or until `asked`
    returns true; then raise `WriterBusy`.
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
    """Stream. Before the first snapshot, wait for it until `stop`, and return 0 without it.

    Without `stop` it does not wait. While it waits it queries only the source, because a statement
    would keep a warehouse running. Every other error of `stream` is raised: a slot without a
    checkpoint, or the reverse, means that changes were lost.
    """
    while True:
        try:
            return stream()
        except NeverLoaded as never:
            logger.info("%s", never.what)
        except WriterBusy:
            # The first load may hold the slot.
            if _checkpoint_exists(container):
                raise
        if stop is None or not _slot_appears(container, stop):
            logger.info("cdc done: nothing to stream before the first snapshot")
            return 0


def _checkpoint_exists(container: Container) -> bool:
    with container.destination() as destination:
        return destination.read_checkpoint() is not None


def _slot_appears(container: Container, stop: Callable[[], bool]) -> bool:
    """Whether a slot appears before `stop`. Waits for at least one poll."""
    while not stop():
        time.sleep(POLL_SECONDS)
        with container.source_monitor() as monitor:
            if monitor.slot() is not None:
                return True
    return False
