"""Progress of long work as events, for any number of listeners: displays, receipts, metrics.

An event stands for a chunk of rows, a batch or a table, never for a single row, so emitting costs
nothing that can be measured. No event holds a row's values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.changes import Operations
    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.lsn import Lsn


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run of `command` (snapshot, cdc or verify) has reached source and destination."""

    command: str


@dataclass(frozen=True, slots=True)
class TableStarted:
    """Rows of `table` are read from here on. `estimated_rows` is 0 where no estimate exists."""

    table: str
    estimated_rows: int


@dataclass(frozen=True, slots=True)
class ChunkRead:
    """A chunk of `rows` rows of `table` was read from the source, `size` bytes in memory."""

    table: str
    rows: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class TableFinished:
    """All rows of `table` are read. They may not be durable yet."""

    table: str


@dataclass(frozen=True, slots=True)
class BatchLoaded:
    """A batch of changes and its checkpoint are durable in the destination."""

    #: Row changes and transactions of the batch, including those of tables that are not loaded.
    changes: int
    transactions: int
    #: WAL between the end of the batch and the position that the run is heading for.
    lag_bytes: int
    #: From the start of reading the batch until it was durable.
    seconds: float = 0.0
    #: Bytes read from the replication slot.
    bytes_read: int = 0
    #: Where the checkpoint stands now; the commit time is in microseconds since 1970-01-01 UTC.
    lsn: Lsn | None = None
    committed_at: int | None = None
    #: Changes by source table.
    tables: Mapping[str, Operations] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableRepaired:
    """Rows of `table` that differed were rewritten, counted by what was done to them."""

    table: str
    operations: Operations


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """The checkpoint that a run starts from (None: there is none yet), or that is durable now."""

    checkpoint: Checkpoint | None


@dataclass(frozen=True, slots=True)
class ReadingUpTo:
    """The run now loads what committed before `source_lsn`, the source's position."""

    source_lsn: Lsn


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Every change that committed before `source_lsn` is durable. The source was there
    `seconds_ago`."""

    source_lsn: Lsn
    seconds_ago: float


@dataclass(frozen=True, slots=True)
class SlotObserved:
    """The slot (None: it does not exist) and the source's position at this moment."""

    slot: SlotState | None
    source_lsn: Lsn


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The end of a run that `RunStarted` began; `error` is empty without one."""

    exit_code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A line for people."""

    message: str


@dataclass(frozen=True, slots=True)
class Warned:
    """A line for people about something that needs attention."""

    message: str


Event: TypeAlias = (
    RunStarted
    | TableStarted
    | ChunkRead
    | TableFinished
    | TableRepaired
    | BatchLoaded
    | Checkpointed
    | ReadingUpTo
    | CaughtUp
    | SlotObserved
    | RunEnded
    | Note
    | Warned
)


class Progress(Protocol):
    """A listener of events.

    Events arrive on the thread that runs the use case, in any order: a table may be read twice, or
    send rows without having started. A listener returns quickly and raises nothing.
    """

    def emit(self, event: Event) -> None: ...


class Listeners:
    """Pass each event on to every listener, in the order in which they were added.

    Without a listener it does nothing.
    """

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Progress) -> None:
        self._listeners.append(listener)

    def remove(self, listener: Progress) -> None:
        self._listeners = [each for each in self._listeners if each is not listener]

    def emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener.emit(event)
