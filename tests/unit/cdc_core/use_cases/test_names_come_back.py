"""Column names that come back with other columns, in runs that go on and in killed ones."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.fakes import FaultPlan, InjectedCrash
from cdc_core.use_cases.stream_changes import LOOK_SECONDS
from cdc_core.values.errors import CdcError
from tests.support.fake_world import World, assert_no_column_is_doubled
from tests.unit.cdc_core.use_cases.test_follow import Following

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Few names, so that they come back.
NAMES = ("a", "b", "c")


def table(*, keyed: bool = True) -> tuple[World, int]:
    world = World(batch_transactions=1)
    columns = {"id": pa.int64(), "a": pa.string(), "b": pa.string()}
    oid = world.postgres.create_table("t", columns, key=("id",) if keyed else ())
    world.postgres.published.add(oid)
    write(world, oid)
    world.snapshot()
    return world, oid


def write(world: World, oid: int) -> None:
    """A new row, and a change of the oldest; each value tells its column and its moment."""
    state = world.postgres.tables[oid]
    at = world.postgres.lsn
    values = {c.name: f"{c.attnum} at {at}" for c in state.relation.columns if c.name != "id"}
    with world.postgres.transaction() as tx:
        if len(state.rows) > 1 and values:
            tx.update(oid, dict(state.rows[0]), **values)
        tx.insert(oid, id=at, **values)


def change(world: World, oid: int, step: str) -> None:
    """`a>b` renames, `+a` adds, `-a` drops where that can be done, `.` writes."""
    names = world.postgres.tables[oid].relation.column_names
    if step == ".":
        write(world, oid)
    elif step[0] == "+" and step[1] not in names:
        world.postgres.add_column(oid, step[1], pa.string())
    elif step[0] == "-" and step[1] in names:
        world.postgres.drop_column(oid, step[1])
    elif step[1] == ">" and step[0] in names and step[2] not in names:
        world.postgres.rename_column(oid, step[0], step[2])


def killed(world: World, call: int) -> None:
    """A run that is killed at a call, and all that it leaves."""
    world.faults = FaultPlan(at={call: InjectedCrash()})
    with suppress(InjectedCrash, CdcError):
        world.cdc()
    world.postgres.writer, world.faults = None, FaultPlan()


STEPS = st.sampled_from(
    [
        ".",
        *(f"{sign}{name}" for sign in "+-" for name in NAMES),
        *(f"{old}>{new}" for old in NAMES for new in NAMES if old != new),
    ]
)


@settings(max_examples=300)
@given(
    keyed=st.booleans(),
    runs=st.lists(st.tuples(st.lists(STEPS, max_size=6), st.integers(0, 30)), max_size=5),
)
# Killed between a rename at the destination and its checkpoint, and renamed once more, or back.
@example(keyed=True, runs=[(["a>c"], 9), (["c>d", "."], 30)])
@example(keyed=True, runs=[(["a>c"], 9), (["c>a", "."], 30)])
# Renamed and renamed back, with rows in between.
@example(
    keyed=False,
    runs=[
        (["+c", "-a", "+a", "-b", "+b"], 28),
        (["-b", "a>b", "c>a", ".", "-a", "b>a"], 0),
    ],
)
def test_killed_runs(keyed: bool, runs: Sequence[tuple[Sequence[str], int]]) -> None:
    world, oid = table(keyed=keyed)
    for steps, call in runs:
        for step in steps:
            change(world, oid, step)
        killed(world, call)
    world.cdc()
    world.assert_equal()


@settings(max_examples=150)
@given(keyed=st.booleans(), pauses=st.lists(st.lists(STEPS, max_size=4), max_size=8))
# Dropped and added again between two looks, with rows of both by one name.
@example(keyed=False, pauses=[["-b", "+b", "."], [".", "-b"]])
@example(keyed=False, pauses=[["-b", "+b", ".", "b>c"]])
@example(keyed=True, pauses=[["."], ["a>c", "+a", "."], ["."], ["-c", "."], ["."]])
def test_a_run_that_follows(keyed: bool, pauses: Sequence[Sequence[str]]) -> None:
    world, oid = table(keyed=keyed)

    def changes(steps: Sequence[str]) -> None:
        for step in steps:
            change(world, oid, step)

    # Some pauses are seen by a look at the catalog before the rows come, others are not.
    look = int(LOOK_SECONDS / 0.5) + 1
    apart = look // 2 + 1
    at = {1 + n * apart: lambda s=steps: changes(s) for n, steps in enumerate(pauses)}
    Following(world, at, len(pauses) * apart + look + 1).run()
    world.assert_equal()


@pytest.mark.parametrize("call", range(40))
@pytest.mark.parametrize(
    "first", [[".", "b>c", "a>b", "."], ["a>c", "."], [".", "a>c", "+a", ".", "-c", "."]]
)
@pytest.mark.parametrize("then", [["."], ["c>b", "."], ["c>a", "."], ["-c", "."]])
def test_names_after_a_kill_at_any_call(first: list[str], then: list[str], call: int) -> None:
    """Also between the load of a definition and that of the rows that had others before."""
    world, oid = table()
    for step in first:
        change(world, oid, step)
    killed(world, call)
    for step in then:
        change(world, oid, step)
    world.cdc()
    world.assert_equal()
    names = {*world.postgres.tables[oid].relation.column_names}
    if {*NAMES} <= names:
        assert_no_column_is_doubled(world)
