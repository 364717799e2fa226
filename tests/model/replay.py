"""Replays a trace of the model against `StreamChanges` on the fakes, step by step.

Each run has a thread that stops before every call which has a step in the model. So a trace decides
in which order the runs, the application and the operator act, and where a run dies. After each step
source and destination must be as the model says.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.fakes import (
    FaultPlan,
    InjectedCrash,
    InMemoryDestination,
    InMemoryPostgres,
    InMemorySource,
    Lake,
)
from cdc_core.tables.catalog_with_rules import CatalogWithRules
from cdc_core.tables.table_rules import RuleSet
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import LoadBatch
from cdc_core.values.table_rules import Rule
from tests.model.stream import CHECKPOINT, CONFIRM, HISTORY, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdc_core.values.checkpoint import Checkpoint

RULES = RuleSet((Rule(("public.keyed",), history=("log",)),))
START, END = "start", "end"
STEPS = {
    "source.read": START,
    "destination.history": HISTORY,
    "destination.checkpoint": CHECKPOINT,
    "source.confirm": CONFIRM,
}
#: Longer than any step takes.
SECONDS = 60


class Mismatch(AssertionError):
    """The code does something else than the model."""


@dataclass
class Steps(FaultPlan):
    """Stops a run before each step, until it may go on or has to die."""

    arrived: SimpleQueue[str | BaseException] = field(default_factory=SimpleQueue)
    allowed: SimpleQueue[bool] = field(default_factory=SimpleQueue)
    merges: list[str] = field(default_factory=list)
    dead: bool = False

    def pass_by(self, call: str) -> None:
        if self.dead:
            raise InjectedCrash
        step = self.merges.pop(0) if call == "destination.merge" else STEPS.get(call)
        if step is None:
            return
        self.arrived.put(step)
        if not self.allowed.get(timeout=SECONDS):
            self.dead = True
            raise InjectedCrash


class Destination(InMemoryDestination):
    """Remembers what it was sent."""

    batch = LoadBatch()

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        self.batch = batch
        self.faults.merges = [f"merge {merge.target.name}" for merge in batch.merges]  # type: ignore[attr-defined]
        super().load(batch, checkpoint)


class Run:
    """`StreamChanges` in a thread of its own. `next` is the step that it stopped before."""

    def __init__(self, postgres: InMemoryPostgres, lake: Lake, size: int) -> None:
        self.steps = Steps()
        self.destination = Destination(lake, self.steps)
        self._source = InMemorySource(postgres, faults=self.steps, batch_transactions=size)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.next: str | BaseException = ""
        self._thread.start()
        self._wait()

    def _run(self) -> None:
        try:
            catalog = CatalogWithRules(self._source, RULES)
            StreamChanges(self._source, catalog, self._source, self.destination).run()
        except BaseException as error:  # noqa: BLE001 - the replay judges it
            self.steps.arrived.put(error)
        else:
            self.steps.arrived.put(END)

    def go(self, step: str) -> None:
        """Let it do a step, up to the next one."""
        if self.next != step:
            raise Mismatch(f"the code is at {self.next!r}, the model before {step!r}")
        self.steps.allowed.put(True)
        self._wait()

    def die(self) -> LoadBatch:
        """Kill it; what it had sent."""
        sent = self.statement(self.next)
        if self.next != END and not isinstance(self.next, BaseException):
            self.steps.allowed.put(False)
            self._wait()
            assert isinstance(self.next, InjectedCrash)
        self._thread.join(SECONDS)
        return sent

    def statement(self, step: object) -> LoadBatch:
        batch = self.destination.batch
        if step == HISTORY:
            return LoadBatch(history=batch.history)
        return LoadBatch(merges=tuple(m for m in batch.merges if f"merge {m.target.name}" == step))

    def _wait(self) -> None:
        self.next = self.steps.arrived.get(timeout=SECONDS)


class Replay:
    def __init__(self, *, sweeps: bool = True) -> None:
        self.postgres, self.lake = InMemoryPostgres(), Lake()
        self.keyed = self.postgres.create_table("keyed", {"id": pa.int64(), "n": pa.int64()})
        self.heap = self.postgres.create_table("heap", {"n": pa.int64()}, key=())
        source = InMemorySource(self.postgres)
        catalog = CatalogWithRules(source, RULES)
        TakeSnapshot(source, catalog, source, InMemoryDestination(self.lake)).run()
        #: The LSN of each position.
        self.positions = [self.postgres.lsn]
        self.runs: dict[str, Run] = {}
        self.left: LoadBatch | None = None
        #: Whether a run removes what dead runs left.
        self._sweeps = sweeps

    def follow(self, trace: Iterable[tuple[str, State]]) -> None:
        """Raises `Mismatch` where the code does something else than the trace."""
        try:
            for label, state in trace:
                self._act(label)
                self._compare(label, state)
        finally:
            for run in self.runs.values():
                with suppress(AssertionError):
                    run.die()

    def _act(self, label: str) -> None:
        match label:
            case "commit U" | "commit D":
                self._commit(label[-1])
            case "server restarts, slot is back":
                self.postgres.slot = self.positions[self._position(self.postgres.slot) - 1]
            case "slot is created again":
                self.postgres.slot = self.postgres.lsn
            case "late statement":
                assert self.left is not None
                self._apply(self.left)
                self.left = None
            case "late statement fails":
                self.left = None
            case _:
                self._act_of_run(label)

    def _act_of_run(self, label: str) -> None:
        who = re.split(r"\W", label)[0]
        if started := re.fullmatch(r"\w+ starts, (\d+) a batch", label):
            if self._sweeps:
                self.left = None
            self.runs[who] = run = Run(self.postgres, self.lake, int(started[1]))
            run.go(START)
        elif label.endswith(" dies"):
            sent = self.runs.pop(who).die()
            if not self.runs:
                self.postgres.writer = None
            if sent.merges or sent.history:
                self.left = sent
        elif label.endswith(" ends"):
            if self.runs.pop(who).next != END:
                raise Mismatch("the run does not end")
        elif label.endswith(" is sent again"):
            step = label.split(": ")[1].removesuffix(" is sent again")
            self._apply(self.runs[who].statement(step))
        else:
            self.runs[who].go(label.split(": ")[1])

    def _commit(self, kind: str) -> None:
        position = len(self.positions)
        rows = self.postgres.tables[self.keyed].rows
        with self.postgres.transaction() as tx:
            if kind == "D":
                tx.delete(self.keyed, id=1)
                tx.delete(self.heap, n=7)
            else:
                if rows:
                    tx.update(self.keyed, dict(rows[0]), n=position)
                else:
                    tx.insert(self.keyed, id=1, n=position)
                tx.insert(self.heap, n=7)
        self.positions.append(self.postgres.lsn)

    def _apply(self, sent: LoadBatch) -> None:
        """What the server does with a statement, whoever has sent it."""
        destination = InMemoryDestination(self.lake)
        checkpoint = destination.read_checkpoint()
        assert checkpoint is not None
        destination.load(sent, checkpoint)

    def _position(self, lsn: Lsn | None) -> int:
        assert lsn is not None
        return max(n for n, at in enumerate(self.positions) if at <= lsn)

    def _compare(self, label: str, state: State) -> None:
        checkpoint = self.lake.checkpoint
        assert checkpoint is not None
        keyed, heap = (self.lake.tables[name].rows for name in ("keyed", "heap"))
        found: dict[str, Any] = {
            "slot": self._position(self.postgres.slot),
            "checkpoint": self._position(Lsn.parse(checkpoint["lsn"])),
            "row": keyed[0]["n"] if keyed else 0,
            "copies": len(heap),
            "counted": self._commit_number(heap[0]["_cdc_lsn"]) if heap else 0,
            "history": self._history(len(state.history)),
        }
        wanted = {name: getattr(state, name) for name in found}
        if found != wanted:
            raise Mismatch(f"after {label!r}: the code has {found}, the model {wanted}")

    def _commit_number(self, lsn: int) -> int:
        """The position that a commit leads to, by its LSN."""
        return next(n for n, at in enumerate(self.positions) if lsn <= at)

    def _history(self, commits: int) -> tuple[int, ...]:
        """How often the history holds each commit: an update has two images."""
        counts = [0] * commits
        log = self.lake.tables.get("keyed_history")
        for image in log.rows if log else ():
            if image["_pg_change_type"] != "update_preimage":
                counts[self._commit_number(image["_pg_lsn"]) - 1] += 1
        return tuple(counts)
