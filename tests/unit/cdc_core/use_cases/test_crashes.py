"""Runs that end at any port call, before and after its effect, by a kill or by an error.

Every use case is swept: a fault at its first call, then at its second, until it runs through. After
each, running again must make the destination equal to the source, and at no moment may the slot be
past the checkpoint.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import (
    FaultPlan,
    InjectedCrash,
    InMemoryDestination,
    InMemoryMonitor,
    InMemorySource,
)
from cdc_core.ports.catalog import Catalog
from cdc_core.ports.change_source import ChangeSource
from cdc_core.ports.destination import Destination
from cdc_core.ports.snapshot_source import SnapshotSource
from cdc_core.ports.source_inspector import SourceInspector
from cdc_core.ports.source_monitor import SourceMonitor
from cdc_core.use_cases.reset import Reset
from cdc_core.use_cases.verify_parity import VerifyParity
from cdc_core.values.changes import Op
from cdc_core.values.errors import (
    CdcError,
    ContinuityLost,
    DestinationUnavailable,
    OperatorNeeded,
    SnapshotGone,
    SourceUnavailable,
)
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import ReplicaIdentity
from tests.support.fake_world import COLUMNS, World, build, work

if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS: dict[str, Callable[[], BaseException]] = {
    "killed": InjectedCrash,
    "source gone": lambda: SourceUnavailable("gone"),
    "destination gone": lambda: DestinationUnavailable("gone"),
    "refused": lambda: OperatorNeeded("refused"),
}


@dataclass
class BusyWorld(World):
    """The application writes while a snapshot is read."""

    oids: tuple[int, ...] = ()

    def source(self) -> InMemorySource:
        source = super().source()
        source.while_reading = lambda: work(self, [*self.oids], 2)
        return source

    def repair(self) -> None:
        source = self.source()
        destination = InMemoryDestination(self.lake, self.faults)
        VerifyParity(source, source, source, destination).run(repair=True)

    def cleanup(self) -> None:
        source = self.source()
        Reset(source, source, InMemoryDestination(self.lake, self.faults)).run()

    def snapshot_one(self) -> None:
        self.snapshot("keyed", "heap")

    def assert_slot_is_not_past_the_checkpoint(self) -> None:
        if self.postgres.slot is not None and self.lake.checkpoint is not None:
            assert self.postgres.slot <= Lsn.parse(self.lake.checkpoint["lsn"])

    def cure(self) -> None:
        """What a person does: `cdc`, or `snapshot` where that says so."""
        try:
            self.cdc()
        except OperatorNeeded:
            self.snapshot()
            self.cdc()


def busy(seed: int) -> BusyWorld:
    plain, oids = build(seed, batch_transactions=2)
    return BusyWorld(
        plain.postgres, plain.lake, plain.random, plain.batch_transactions, oids=tuple(oids)
    )


def first_snapshot(world: BusyWorld) -> str:
    return "snapshot"


def snapshot_again(world: BusyWorld) -> str:
    world.snapshot()
    work(world, [*world.oids], 2)
    return "snapshot"


def first_snapshot_in_parts(world: BusyWorld) -> str:
    world.range_rows = 2
    return "snapshot"


def snapshot_again_in_parts(world: BusyWorld) -> str:
    world.range_rows = 2
    return snapshot_again(world)


def snapshot_after_the_slot_was_lost(world: BusyWorld) -> str:
    world.snapshot()
    world.postgres.slot = None
    work(world, [*world.oids], 2)
    return "snapshot"


def snapshot_of_some(world: BusyWorld) -> str:
    world.snapshot()
    work(world, [*world.oids], 2)
    world.lake.tables["keyed"].rows.clear()
    return "snapshot_one"


def stream(world: BusyWorld) -> str:
    world.snapshot()
    work(world, [*world.oids], 4)
    return "cdc"


def stream_with_a_reading(world: BusyWorld) -> str:
    stream(world)
    world.postgres.rewrite(world.oids[0], "n", pa.string(), lambda n: f"<{n}>")
    world.oids = world.oids[1:]
    late = world.postgres.create_table("late", COLUMNS)
    with world.postgres.transaction() as tx:
        tx.insert(late, id=1, n=1, big="before it was published")
    return "cdc"


def stream_with_a_reading_in_parts(world: BusyWorld) -> str:
    action = stream_with_a_reading(world)
    world.range_rows = 2
    return action


def stream_with_a_table_that_loses_its_identity(world: BusyWorld) -> str:
    stream(world)
    world.postgres.published.discard(world.oids[1])
    world.postgres.set_identity(world.oids[1], ReplicaIdentity.NOTHING)
    world.oids = (world.oids[0], world.oids[2])
    return "cdc"


def repair(world: BusyWorld) -> str:
    stream(world)
    for table in world.lake.tables.values():
        del table.rows[1:]
    return "repair"


def cleanup(world: BusyWorld) -> str:
    stream(world)
    return "cleanup"


SCENARIOS = [
    first_snapshot,
    snapshot_again,
    first_snapshot_in_parts,
    snapshot_again_in_parts,
    snapshot_after_the_slot_was_lost,
    snapshot_of_some,
    stream,
    stream_with_a_reading,
    stream_with_a_reading_in_parts,
    stream_with_a_table_that_loses_its_identity,
    repair,
    cleanup,
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_fault_at_any_call_is_cured_by_running_again(
    scenario: Callable[[BusyWorld], str], fault: str
) -> None:
    call, raised, passed = 0, True, []
    while raised:
        world = busy(31)
        action = getattr(world, scenario(world))
        world.faults = FaultPlan(at={call: FAULTS[fault]()})
        with suppress(InjectedCrash, CdcError):
            action()
        passed = world.faults.calls
        raised = len(passed) > call
        world.postgres.writer, world.faults = None, FaultPlan()
        if scenario is not snapshot_after_the_slot_was_lost:
            # There a new slot is past the old checkpoint, and what follows says so.
            world.assert_slot_is_not_past_the_checkpoint()
        work(world, [*world.oids], 2)
        world.batch_transactions = 1 + call % 3
        world.cure()
        if scenario is repair:
            world.repair()  # what the first one did not come to
        if scenario is stream_with_a_table_that_loses_its_identity:
            world.snapshot()
        world.cdc()  # what was written meanwhile
        world.assert_slot_is_not_past_the_checkpoint()
        world.assert_equal()
        call += 1
    assert passed[0] == "source.open"
    assert call == len(passed) + 1 > 8


ACTIONS = st.sampled_from(["cdc", "cdc", "snapshot", "snapshot_one", "repair", "cleanup", "work"])


@settings(max_examples=160)
@given(
    seed=st.integers(0, 10**6),
    range_rows=st.sampled_from([None, 1, 2]),
    steps=st.lists(
        st.tuples(ACTIONS, st.integers(0, 60), st.sampled_from(list(FAULTS))), max_size=6
    ),
)
def test_any_sequence_of_failed_runs_is_cured(
    seed: int, range_rows: int | None, steps: list[tuple[str, int, str]]
) -> None:
    world = busy(seed)
    world.range_rows = range_rows
    for action, call, fault in steps:
        if action == "work":
            work(world, [*world.oids], 3)
            continue
        world.faults = FaultPlan(at={call: FAULTS[fault]()})
        with suppress(InjectedCrash, CdcError):
            getattr(world, action)()
        world.postgres.writer, world.faults = None, FaultPlan()
        world.assert_slot_is_not_past_the_checkpoint()
    world.cure()
    world.assert_equal()
    work(world, [*world.oids], 1)
    world.cdc()
    assert not world.lake.written


def test_a_checkpoint_without_slot_is_refused_not_followed() -> None:
    """A cleanup drops the destination first; the other way round is refused loudly."""
    world = busy(1)
    stream(world)
    world.postgres.slot = None
    with pytest.raises(ContinuityLost):
        world.cdc()


PORTS: dict[type, tuple[str, Callable[[BusyWorld, FaultPlan], Any]]] = {
    ChangeSource: ("source", lambda w, f: InMemorySource(w.postgres, faults=f)),
    Catalog: ("catalog", lambda w, f: InMemorySource(w.postgres, faults=f)),
    SnapshotSource: ("snapshot", lambda w, f: InMemorySource(w.postgres, faults=f)),
    SourceInspector: ("source", lambda w, f: InMemorySource(w.postgres, faults=f)),
    SourceMonitor: ("monitor", lambda w, f: InMemoryMonitor(w.postgres, faults=f)),
    Destination: ("destination", lambda w, f: InMemoryDestination(w.lake, f)),
}
#: Calls that reach nothing outside of the process.
PURE = {(Destination, "column_type")}
CALLS = [
    (port, name)
    for port in PORTS
    for name, _ in inspect.getmembers(port, inspect.isfunction)
    if name == "__enter__" or not (name.startswith("_") or (port, name) in PURE)
]


@pytest.mark.parametrize(
    ("port", "name"), CALLS, ids=[f"{port.__name__}.{name}" for port, name in CALLS]
)
def test_every_call_of_every_port_can_fail(port: type, name: str) -> None:
    world = busy(1)
    world.snapshot()
    prefix, make = PORTS[port]
    call = f"{prefix}.{'open' if name == '__enter__' else name}"
    faults = FaultPlan(named={call: InjectedCrash()})
    part = make(world, faults)
    if port is ChangeSource and name != "__enter__":
        part.__enter__()
    method = getattr(part, name)

    def begin() -> None:
        with method(create_slot=False):
            pass

    def run_through() -> None:
        needed = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
        list(method(*[None for _ in needed]))

    with pytest.raises(InjectedCrash):
        begin() if name == "begin" else run_through()
    assert faults.calls[-1] == call


def test_a_fault_after_an_effect_leaves_the_effect() -> None:
    world = busy(1)
    world.snapshot()
    before = world.postgres.slot
    work(world, [*world.oids], 2)
    world.faults = FaultPlan(named={"source.confirm.done": SourceUnavailable("gone")})
    with pytest.raises(SourceUnavailable):
        world.cdc()
    assert world.postgres.slot > before
    assert world.lake.checkpoint["lsn"] == str(world.postgres.slot)


@pytest.mark.parametrize("place", ["snapshot.page_ranges", "snapshot.read", "snapshot.read.next"])
def test_a_snapshot_that_is_gone_is_no_matter_of_one_table(place: str) -> None:
    """Which an operator would have to look at, while the others are read."""
    world = busy(3)
    work(world, [*world.oids], 3)
    world.faults = FaultPlan(named={place: SnapshotGone()})
    with pytest.raises(SnapshotGone, match="the snapshot is gone") as gone:
        world.snapshot()
    assert (gone.value.exit_code, gone.value.retryable) == (1, True)
    world.faults = FaultPlan()
    world.snapshot()


def test_the_busy_application_writes_while_a_snapshot_is_read() -> None:
    world = busy(2)
    work(world, [*world.oids], 3)
    before = len(world.postgres.wal)
    world.snapshot()
    later = [t for t in world.postgres.wal[before:] if t.commit_lsn > world.postgres.slot]
    assert any(event.op is not Op.TRUNCATE for t in later for event in t.events)
