"""Traces of the model, replayed on the real use cases: model and code cannot drift apart.

A trace is a random walk of the model with every guard. Commits come between the steps of a run,
runs are killed at any of them, and statements of dead runs are executed late. The fakes execute the
same. After each run, and each step between runs, tables, checkpoint and slot must be the model's.
A full load runs through: what kills it anywhere is in `test_crashes`.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from adapters.fakes import FaultPlan, InjectedCrash, InMemoryDestination, InMemorySource
from adapters.fakes.destination import merge_keyed
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.values.errors import OperatorNeeded
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import KeyedMerge
from tests.model.protocol import TABLES, Model, Run, State, content
from tests.support.fake_world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.merges import LoadBatch

WALKS = 200
STEPS = 50
COMMITS = 6

#: The call of a port that is a step of a run.
CALLS = {
    "source.read": "reads",
    "source.read.next": "reads",
    "destination.merge": "merge",
    "destination.checkpoint": "checkpoint",
    "source.confirm": "confirm",
}


@dataclass
class Script(FaultPlan):
    """What happens before each step of a run; the list ends where the run is killed."""

    before: list[list[Callable[[], None]]] = field(default_factory=list)
    killed: bool = False

    def pass_by(self, call: str) -> None:
        if call in CALLS and self._crash is None:
            if self.before:
                for happens in self.before.pop(0):
                    happens()
            elif self.killed:
                self.at[len(self.calls)] = InjectedCrash()
        super().pass_by(call)


@dataclass
class Destination(InMemoryDestination):
    """Remembers the merges of the last load."""

    sent: list[KeyedMerge] = field(default_factory=list)

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        self.sent = [merge for merge in batch.merges if isinstance(merge, KeyedMerge)]
        super().load(batch, checkpoint)


class Replayed:
    """The fakes, on which the model's steps are executed."""

    def __init__(self) -> None:
        self.world = World()
        columns = {"id": pa.int64(), "n": pa.int64()}
        self.oids = [self.world.postgres.create_table(f"t{n}", columns) for n in TABLES]
        self.world.postgres.published.update(self.oids)
        self.in_flight: dict[str, KeyedMerge] = {}
        self.commits: list[Lsn] = []

    def commit(self, op: str) -> None:
        kind, _, of = op.partition(" ")
        oid = self.oids[int(of)]
        row = next(iter(self.world.postgres.tables[oid].rows), None)
        number = len(self.commits) + 1
        with self.world.postgres.transaction() as transaction:
            if kind == "delete":
                assert row is not None
                transaction.delete(oid, **row)
            elif row is None:
                transaction.insert(oid, id=1, n=number)
            else:
                transaction.update(oid, dict(row), n=number)
        self.commits.append(self.world.postgres.wal[-1].end_lsn)

    def snapshot(self) -> None:
        source = InMemorySource(self.world.postgres)
        TakeSnapshot(source, source, source, InMemoryDestination(self.world.lake)).run()
        self.in_flight.clear()

    def stream(self, script: Script, batch_transactions: int) -> list[KeyedMerge]:
        """Run `cdc`; return the merges that it had sent when it ended."""
        postgres = self.world.postgres
        source = InMemorySource(postgres, faults=script, batch_transactions=batch_transactions)
        destination = Destination(self.world.lake, script)
        try:
            StreamChanges(source, source, source, destination).run()
            assert not script.killed
        except InjectedCrash:
            postgres.writer = None
        assert not script.before, "the run ended before the model's"
        return destination.sent

    def late(self, statement: str) -> None:
        """The destination executes a statement of a run that is dead."""
        merge = self.in_flight[statement]
        table = self.world.lake.tables[merge.target.name]
        rows = merge_keyed(table.rows, merge)
        table.rows = [{name: row.get(name) for name in table.columns} for row in rows]

    def operator(self, label: str) -> None:
        if label == "drop the slot":
            self.world.postgres.slot = None
        else:
            with InMemorySource(self.world.postgres) as source:
                source.create_slot()

    def refuses(self) -> bool:
        """Whether `cdc` would refuse to begin, on a copy."""
        other = copy.deepcopy(self.world)
        source = InMemorySource(other.postgres)
        try:
            StreamChanges(source, source, source, InMemoryDestination(other.lake)).run()
        except OperatorNeeded:
            return True
        return False

    def position(self, lsn: Lsn | None) -> int | None:
        return None if lsn is None else sum(commit <= lsn for commit in self.commits)

    def assert_is(self, state: State) -> None:
        held = self.world.lake.checkpoint
        checkpoint = None if held is None else Lsn.parse(held["lsn"])
        assert self.position(checkpoint) == state.checkpoint
        assert self.position(self.world.postgres.slot) == state.slot
        for number, row in zip(TABLES, state.rows, strict=True):
            table = self.world.lake.tables.get(f"t{number}")
            found = [each["n"] for each in table.rows] if table else []
            assert found == ([] if row is None else [row[0]]), f"table {number}"


def walk(seed: int) -> None:
    """One trace, executed by model and fakes side by side."""
    chance, model, replayed = random.Random(seed), Model(commits=COMMITS), Replayed()
    state = State()
    for _ in range(STEPS):
        label, after = chance.choice(_between_runs(model, state))
        kind, _, rest = label.partition(": ")
        if kind == "commit":
            replayed.commit(rest)
        elif kind == "late":
            replayed.late(rest)
        elif rest == "snapshot begins":
            after = _through(model, after)
            replayed.snapshot()
        elif rest == "cdc begins":
            after = _streamed(chance, model, after, replayed)
        else:
            replayed.operator(label)
        state = after
        replayed.assert_is(state)
        can_begin = "0: cdc begins" in (label for label, _ in model.steps(state))
        # A slot that was created again where the checkpoint is may or may not be told from the old.
        if not state.detached or (state.slot or 0) > (state.checkpoint or 0):
            assert replayed.refuses() != can_begin


def _between_runs(model: Model, state: State) -> list[tuple[str, State]]:
    """Steps of which each can be executed: nobody deletes a row that does not exist."""
    return [step for step in model.steps(state) if _is_possible(state, step[0])]


def _is_possible(state: State, label: str) -> bool:
    return label != "commit: delete 0" or content(state.wal, 0, len(state.wal)) is not None


def _through(model: Model, state: State) -> State:
    """A full load that nothing interrupts."""
    while state.runs[0] is not None:
        state = next(
            after
            for label, after in model.steps(state)
            if label.startswith("0: ") and label != "0: killed"
        )
    return state


def _streamed(chance: random.Random, model: Model, state: State, replayed: Replayed) -> State:
    """A stream with commits between its steps, which ends or is killed."""
    one_by_one = chance.random() < 0.5
    script = Script()
    pending: list[Callable[[], None]] = []
    reads = False
    while (run := state.runs[0]) is not None:
        steps = [s for s in _between_runs(model, state) if _fits(s[0], state, run, one_by_one)]
        if not reads:
            # What commits before the first read would be read too.
            steps = [step for step in steps if not step[0].startswith("commit")]
        label, after = chance.choice(steps)
        kind, _, rest = label.partition(": ")
        if kind == "commit":
            pending.append(lambda op=rest: replayed.commit(op))  # type: ignore[misc]
        elif rest == "killed":
            script.killed = True
            happened, pending = pending, []
            sent = replayed.stream(script, 1 if one_by_one else 1000)
            for happens in happened:
                happens()
            replayed.in_flight = {
                f"merge ({each.low}, {each.high}] into table {each.table}": merge
                for each in run.todo
                for merge in sent
                if merge.target.name == f"t{each.table}"
            }
            return after
        else:
            script.before.append(pending)
            pending, reads = [], True
        state = after
    replayed.in_flight.clear()
    replayed.stream(script, 1 if one_by_one else 1000)
    return state


def _fits(label: str, state: State, run: Run, one_by_one: bool) -> bool:
    """Whether a step of the model is one of a run of the fakes, with batches of this size."""
    if label.startswith("0: reads up to "):
        return int(label.rpartition(" ")[2]) == (run.low + 1 if one_by_one else run.until)
    if label.startswith("0: merge "):
        # The fake destination merges tables in the order of their first changes.
        ops = state.wal[run.low : run.high]
        left = [str(each.table) for each in run.todo]
        return label.endswith(next(op[-1] for op in ops if op[-1] in left))
    return not label.startswith(("late", "1: "))


@pytest.mark.parametrize("part", range(4))
def test_the_use_cases_do_what_the_model_does(part: int) -> None:
    for seed in range(part, WALKS, 4):
        try:
            walk(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
