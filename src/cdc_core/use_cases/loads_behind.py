"""Loading a batch while the next one is read and folded: loads keep their order, one at a time."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Self

from cdc_core.errors import CdcError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.checkpoint import Checkpoint
    from cdc_core.ports.destination import Destination
    from cdc_core.staging import LoadBatch


class LoadsBehind:
    """Loads that the caller does not wait for, until the next one or the end of the `with` block.

    What a load raises is raised there, instead of what the block raises; the load after it never
    begins.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._under_way: tuple[Callable[[], None], Callable[[], None]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        loaded = self._ended()
        with suppress(CdcError) if error is not None else nullcontext():
            loaded()

    def begin(self, batch: LoadBatch, checkpoint: Checkpoint, then: Callable[[], None]) -> None:
        """Begin a load once the one before has ended; `then` is called once this one is durable."""
        loaded = self._ended()
        self._under_way = self._destination.begin_load(batch, checkpoint), then
        loaded()

    def _ended(self) -> Callable[[], None]:
        """Wait for the load that is under way; what is to be done now that it is durable."""
        if self._under_way is None:
            return lambda: None
        (wait, then), self._under_way = self._under_way, None
        wait()
        return then
