"""Faults: at calls of the source, and of four kinds at every call of the destination.

- *rejected*: the call has no effect and raises.
- *failed after the write*: the call raises when part of its effect, or all of it, is durable.
- *answer lost*: the call has its effect, but the answer is lost. The connector sends the statements
  again; in half of the cases no answer arrives at all and the call raises.
- *slow*: the call takes long. Meanwhile the application commits and a second run starts.

A kill can happen at any call, and between the statements of a load. What the killed run had sent
may still be applied until the next run opens the destination.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.fakes import FaultPlan, InjectedCrash, InMemoryDestination
from cdc_core.ports.destination import Destination
from cdc_core.values.errors import (
    DestinationFailed,
    DestinationForbidden,
    DestinationRefused,
    DestinationUnavailable,
    OperatorNeeded,
    SourceUnavailable,
)
from cdc_core.values.history import VersionMerge
from cdc_core.values.merges import (
    LSN_COLUMN,
    OP_COLUMN,
    SOFT_DELETE,
    UNCHANGED_COLUMN,
    KeyedMerge,
    LoadBatch,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from adapters.fakes import Lake
    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.merges import Merge

REJECTED, FAILED, LOST, SLOW = KINDS = (
    "rejected", "failed after the write", "answer lost", "slow",
)  # fmt: skip
#: Every call of the port.
CALLS = frozenset(
    name for name, _ in inspect.getmembers(Destination, inspect.isfunction) if name[0] != "_"
)


#: More calls than any run of a few small tables needs, although the application goes on.
CALLS_OF_A_RUN = 3000
#: Then the application pauses: a later run has all of it to load, perhaps one commit at a time.
COMMITS_OF_A_RUN = 40


@dataclass
class Odds:
    """How likely it is, at one call, that something happens."""

    fault: float = 0.0
    kill: float = 0.0
    commits: float = 0.0
    definition: float = 0.0
    second_run: float = 0.0


CALM = Odds()


@dataclass
class Weather(FaultPlan):
    """What happens at the calls of one run. `faults` and `changes` count what did."""

    random: random.Random = field(kw_only=True)
    odds: Odds = field(kw_only=True)
    say: Callable[[str], None] = field(kw_only=True)
    reach: Callable[[str], None] = field(kw_only=True)
    #: Called at each call: checks what must always hold.
    watch: Callable[[str], None] = field(kw_only=True)
    #: The application commits, changes a definition; a second run starts; time passes.
    commit: Callable[[], None] = field(kw_only=True)
    redefine: Callable[[], None] = field(kw_only=True)
    second_run: Callable[[], None] = field(kw_only=True)
    wait: Callable[[float], None] = field(kw_only=True)
    faults: int = 0
    definitions: int = 0
    commits: int = 0
    count: int = 0
    last: str = ""
    _dead: InjectedCrash | None = None
    #: Calls within the destination until the armed error is raised.
    _armed: tuple[int, Exception] | None = None
    _busy: bool = False

    def happens(self, odds: float) -> bool:
        return odds > 0 and self.random.random() < odds

    def pass_by(self, call: str) -> None:
        if self._dead is not None:
            raise self._dead  # a process that was killed makes no more calls
        if self._busy:
            return
        before, self.last = self.last, call
        self.count += 1
        if self.count > CALLS_OF_A_RUN:
            raise AssertionError(f"the run does not end: {call} after {before}")
        self.watch(call)
        # The slot exports its snapshot as it is created: no commit lies between the two.
        if call not in ("source.create_slot.done", "catalog.settled"):
            self.around(call)
        if self.happens(self.odds.kill):
            self.kill(call, before)
        if call.startswith("destination."):
            self._within_destination(call)
        elif self.happens(self.odds.fault / 2) and not call.endswith((".done", ".next", ".part")):
            self.faults += 1
            self.say(f"  fault: {call} fails: the source is gone")
            if call == "snapshot.read" and self.random.random() < 0.5:
                raise OperatorNeeded("permission denied", "GRANT it")
            raise SourceUnavailable("gone")

    def around(self, call: str) -> None:
        """What others do at this moment."""
        self._busy = True
        try:
            if self.commits < COMMITS_OF_A_RUN and self.happens(self.odds.commits):
                self.commits += 1
                self.commit()
                if call.startswith("snapshot.read"):
                    self.reach("the application commits while a table is read")
            if self.happens(self.odds.definition):
                self.definitions += 1
                self.redefine()
                self.reach("a definition changes during a run")
            if call != "source.open" and self.happens(self.odds.second_run):
                self.second_run()  # the writer lock is taken by now
        finally:
            self._busy = False

    def kill(self, call: str, before: str) -> None:
        self.faults += 1
        self.say(f"  killed at {call}")
        match call:
            case "destination.checkpoint":
                self.reach("killed between the data and its checkpoint")
            case "destination.merge" if before == "destination.merge":
                self.reach("killed between two tables of one batch")
            case "destination.load.done" | "source.confirm":
                self.reach("killed between the checkpoint and the slot")
            case "source.confirm.done":
                self.reach("killed right after the slot moved")
            case "snapshot.read.next":
                self.reach("killed while a table is read")
            case "source.read.part":
                self.reach("killed between two parts of one batch")
            case "source.create_slot.done":
                self.reach("killed right after the slot was created")
        self._dead = InjectedCrash()
        raise self._dead

    def arm(self, calls: int, error: Exception) -> None:
        self._armed = calls, error

    def disarm(self) -> None:
        self._armed = None

    def _within_destination(self, call: str) -> None:
        if self._armed is None:
            return
        calls, error = self._armed
        if calls:
            self._armed = calls - 1, error
            return
        self._armed = None
        self.say(f"  fault: … at {call}")
        if call == "destination.load.done":
            self.reach("a load fails whose checkpoint is durable")
        elif call == "destination.checkpoint":
            self.reach("a load fails between the data and its checkpoint")
        raise error

    def destination_fault(self, call: str) -> str | None:
        """The kind of the fault at this call of the destination, if there is one."""
        self.reach(f"destination.{call} is called")
        if not self.happens(self.odds.fault):
            return None
        # Loads whose statements run twice are the ones to look at.
        weights = (1, 1, 4, 1) if call == "load" else (1, 1, 1, 1)
        (kind,) = self.random.choices(KINDS, weights)
        self.reach(f"destination.{call}: {kind}")
        if kind != SLOW:
            self.faults += 1
        self.say(f"  fault: destination.{call}: {kind}")
        return kind

    def error(self) -> Exception:
        return self.random.choice(
            [
                DestinationUnavailable("gone"),
                DestinationFailed("no"),
                DestinationForbidden("may not"),
            ]
        )


@dataclass
class UnreliableDestination:
    """A destination whose calls fail, written for the port: it knows no method of the fake."""

    inner: InMemoryDestination
    lake: Lake
    weather: Weather
    #: Statements that a killed run had sent.
    left_behind: list[LoadBatch]

    def __post_init__(self) -> None:
        self.naming = self.inner.naming

    def __enter__(self) -> UnreliableDestination:
        self._call("open", self.inner.__enter__)
        return self

    def __exit__(self, *exc: object) -> None:
        self.inner.__exit__(*exc)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in CALLS:
            return method
        return lambda *args, **options: self._call(name, lambda: method(*args, **options))

    def scan(self, *args: Any) -> Iterator[pa.Table]:
        yield from self._call("scan", lambda: self.inner.scan(*args))

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        sent = LoadBatch(
            merges=tuple(map(_in_memory, batch.merges)),
            history=tuple(step for step in batch.history if not getattr(step, "staged", ())),
        )
        self._note_soft_deletes(sent)
        targets = [change.target.name for change in (*batch.merges, *batch.replacements)]
        try:
            kind = self.weather.destination_fault("load")
            if kind == REJECTED:
                raise self._rejection(targets)
            if kind == FAILED:
                within = 1 + len(targets) + len(batch.steps) + 2
                self.weather.arm(self.weather.random.randrange(within), self.weather.error())
            if kind == SLOW:
                self._slow("load")
            self.inner.load(batch, checkpoint)
            self.weather.disarm()
            if kind == LOST:
                self._again(sent)
                if self.weather.random.random() < 0.3:
                    raise DestinationUnavailable("no answer")
        except InjectedCrash:
            # The statement in hand. A table is merged once its history is written.
            if self.weather.last == "destination.history":
                self.left_behind.append(replace(sent, merges=()))
            elif self.weather.last in ("destination.merge", "destination.checkpoint"):
                self.left_behind.append(replace(sent, history=()))
            raise

    def _note_soft_deletes(self, sent: LoadBatch) -> None:
        reach = self.weather.reach
        for merge in sent.merges:
            if not isinstance(merge, KeyedMerge):
                continue
            deleted = [row for row in merge.rows.to_pylist() if row[OP_COLUMN] == SOFT_DELETE]
            if deleted:
                reach("a row is deleted in the batch that changes it")
            if any(row[UNCHANGED_COLUMN] for row in deleted):
                reach("a deleted row has a value that the source did not send")
            table = self.lake.tables.get(merge.target.name)
            held = {tuple(map(row.get, merge.key)) for row in table.rows} if table else set()
            if any(tuple(row[k] for k in merge.key) not in held for row in deleted):
                reach("a row is deleted that has no row at the destination")
            first = merge.truncated_at
            if first is not None and any(row[LSN_COLUMN] > first for row in deleted):
                reach("rows between two truncations of a batch are deleted")

    def _again(self, sent: LoadBatch) -> None:
        apply_again(self.lake, sent)
        if sent.history:
            self.weather.reach("history is sent twice")
        if any(isinstance(step, VersionMerge) for step in sent.history):
            self.weather.reach("versions are sent twice")
        for merge in sent.merges:
            self.weather.reach("a statement is sent twice")
            if merge.truncated_at is not None:
                self.weather.reach("a truncation in a batch whose statement is sent twice")
            if not isinstance(merge, KeyedMerge):
                self.weather.reach("a statement of a table without a key is sent twice")
                continue
            if merge.has_hops:
                self.weather.reach("a key change with an unsent value is sent twice")

    def _rejection(self, targets: list[str]) -> Exception:
        if targets and self.weather.random.random() < 0.4:
            target = self.weather.random.choice(targets)
            self.weather.reach("the destination refuses one table")
            return DestinationRefused({target: "a constraint is violated"})
        return self.weather.error()

    def _call(self, name: str, act: Callable[[], Any]) -> Any:
        kind = self.weather.destination_fault(name)
        if kind == REJECTED:
            raise self.weather.error()
        if kind == SLOW:
            self._slow(name)
        result = act()
        if kind == FAILED or (kind == LOST and self.weather.random.random() < 0.5):
            raise self.weather.error()
        return result

    def _slow(self, name: str) -> None:
        weather = self.weather
        weather.wait(weather.random.choice([1.0, 40.0, 90.0]))
        usual = weather.odds
        weather.odds = replace(
            usual, commits=max(usual.commits, 0.8), second_run=0.5 if usual is not CALM else 0.0
        )
        try:
            weather.around(f"destination.{name}")
        finally:
            weather.odds = usual


def apply_again(lake: Lake, sent: LoadBatch) -> bool:
    """Apply statements once more, behind the run's back; False if one does not fit its table.

    The checkpoint and the rows that are kept stay as they are.
    """
    fitting = []
    for merge in sent.merges:
        held = lake.tables.get(merge.target.name)
        if held is not None and {*merge.target.schema.names} <= held.columns.keys():
            fitting.append(merge)
    if not (fitting or sent.history):
        return False
    destination, kept = InMemoryDestination(lake), dict(lake.written)
    checkpoint = destination.read_checkpoint()
    assert checkpoint is not None
    destination.load(LoadBatch(merges=tuple(fitting), history=sent.history), checkpoint)
    lake.written.update(kept)
    return True


def _in_memory(merge: Merge) -> Merge:
    """The merge without staged rows, which last only until its load ends."""
    if not merge.staged:
        return merge
    rows = pa.concat_tables([merge.rows, *(part.read() for part in merge.staged)])
    return replace(merge, rows=rows, staged=())
