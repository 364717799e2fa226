"""A plan and the run that follows it decide alike, whatever happened to the tables."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import FaultPlan, InjectedCrash, InMemoryDestination
from adapters.fakes.snapshot import InMemorySnapshot
from adapters.fakes.source import InMemoryMonitor
from cdc_core.plan.plan import Action, DefinitionKind, Run, RunPlan
from cdc_core.tables.catalog_with_rules import CatalogWithRules
from cdc_core.tables.table_rules import RuleSet
from cdc_core.use_cases.plan_run import PlanRun
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.values.table_rules import Rule
from tests.support.fake_world import World, build

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    Change = Callable[[World, int], None]


def plan(world: World, *, freeze: bool = False) -> RunPlan:
    source = world.source()
    monitor = InMemoryMonitor(world.postgres)
    destination = InMemoryDestination(world.lake)
    return PlanRun(monitor, source, source, destination, freeze_schema=freeze).run()


def actions(planned: RunPlan) -> dict[str, Action]:
    return {table.table.partition(".")[2]: table.action for table in planned.tables}


def columns(world: World) -> dict[str, set[str]]:
    return {name: set(table.columns) for name, table in world.lake.tables.items()}


def _state(world: World) -> tuple[object, ...]:
    postgres = world.postgres
    return (
        copy.deepcopy(world.lake),
        postgres.lsn,
        postgres.slot,
        postgres.publication,
        set(postgres.published),
        postgres.writer,
    )


def _add(name: str, default: str | None = None) -> Change:
    def add(world: World, oid: int) -> None:
        if name not in world.postgres.tables[oid].relation.column_names:
            world.postgres.add_column(oid, name, pa.string(), default=default)

    return add


def _rename(world: World, oid: int) -> None:
    taken = {table.relation.table.name for table in world.postgres.tables.values()}
    if "renamed" not in taken:
        world.postgres.rename_table(oid, "renamed")


def _create(world: World, _: int) -> None:
    if all(t.relation.table.name != "late" for t in world.postgres.tables.values()):
        world.postgres.create_table("late", {"id": pa.int64()})


#: Changes of definitions, each on the table with this oid.
CHANGES: list[Change] = [
    _add("plain"),
    _add("given", default="x"),
    _rename,
    _create,
    lambda world, oid: world.postgres.rename_column(oid, "n", "number"),
    lambda world, oid: world.postgres.drop_column(oid, "n"),
    lambda world, oid: world.postgres.drop_column(oid, "big"),
    lambda world, oid: world.postgres.rewrite(oid, "n", pa.int64(), lambda value: value),
    lambda world, oid: world.postgres.vacuum_full(oid),
    lambda world, oid: world.postgres.drop_table(oid),
]


@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 2)), max_size=4))
@settings(max_examples=80, deadline=None)
def test_a_run_reads_and_defines_what_the_plan_says(
    changes: list[tuple[Change, int]],
) -> None:
    world, oids = build(7)
    world.snapshot()
    for change, number in changes:
        try:
            change(world, oids[number])
        except (KeyError, StopIteration):
            continue  # the table or column is gone
    before = _state(world)
    planned = plan(world)
    assert _state(world) == before
    assert planned.run is Run.CDC
    there = columns(world)
    read: set[str] = set()
    original = InMemorySnapshot.read

    def reading(snapshot, relation, *arguments):
        read.add(relation.table.name)
        return original(snapshot, relation, *arguments)

    InMemorySnapshot.read = reading  # type: ignore[method-assign]
    try:
        world.cdc()
    finally:
        InMemorySnapshot.read = original  # type: ignore[method-assign]
    wanted = {name for name, action in actions(planned).items() if action is Action.READ}
    assert wanted == read
    for table in planned.tables:
        for definition in table.definitions:
            now = columns(world)[definition.table]
            match definition.kind:
                case DefinitionKind.RENAME_TABLE:
                    assert definition.was in there
                    assert definition.was not in columns(world)
                case DefinitionKind.RENAME_COLUMN:
                    assert definition.column in now
                    assert definition.was not in now
                case DefinitionKind.ADD_COLUMN:
                    assert definition.column in now
                    assert all(definition.column not in held for held in there.values())
                case DefinitionKind.CREATE_TABLE:
                    assert definition.table not in there
    # What the run changed is in the plan.
    defined = {d.table for table in planned.tables for d in table.definitions}
    changed = {name for name, held in columns(world).items() if there.get(name) != held}
    assert changed <= defined


def test_before_the_first_load_it_plans_the_snapshot() -> None:
    world, _ = build(1)
    before = _state(world)
    planned = plan(world)
    assert (planned.run, planned.why) == (Run.SNAPSHOT, "no snapshot was taken yet")
    assert set(actions(planned).values()) == {Action.READ}
    assert planned.statements == 3
    assert planned.checkpoint is None
    assert planned.wal_bytes is None
    assert _state(world) == before


def test_an_excluded_column_is_left_out() -> None:
    world, _ = build(1)
    source = world.source()
    rules = RuleSet((Rule(match=("*",), exclude_columns=("n",)),))
    catalog = CatalogWithRules(source, rules)
    destination = InMemoryDestination(world.lake)
    planned = PlanRun(InMemoryMonitor(world.postgres), source, catalog, destination).run()
    with_n = [t for t in planned.tables if any(left.name == "n" for left in t.left_out)]
    assert with_n
    assert not any(column.name == "n" for table in planned.tables for column in table.columns)


def test_history_tables_are_created_with_their_table_and_once() -> None:
    world, _ = build(1)
    rules = RuleSet((Rule(match=("public.keyed",), history=("log", "scd2")),))

    def planned() -> RunPlan:
        source = world.source()
        catalog = CatalogWithRules(source, rules)
        monitor, destination = InMemoryMonitor(world.postgres), InMemoryDestination(world.lake)
        return PlanRun(monitor, source, catalog, destination).run()

    def created(plan_: RunPlan) -> set[str]:
        definitions = (d for table in plan_.tables for d in table.definitions)
        return {d.table for d in definitions if d.kind is DefinitionKind.CREATE_TABLE}

    first = planned()
    keyed = next(table for table in first.tables if table.table == "public.keyed")
    assert keyed.history == ("keyed_history", "keyed_scd2")
    assert keyed.rules == {"history": ["log", "scd2"]}
    assert keyed.statements == 5
    source = world.source()
    catalog = CatalogWithRules(source, rules)
    TakeSnapshot(source, catalog, source, InMemoryDestination(world.lake)).run()
    assert created(first) == world.lake.tables.keys() - {"_cdc_runs", "_cdc_run_tables"}
    assert created(planned()) == set()
    # Lost at the destination: read again, and the difference goes to the history that is there.
    del world.lake.tables["keyed"]
    again = planned()
    keyed = next(table for table in again.tables if table.table == "public.keyed")
    assert (keyed.action, keyed.history) == (Action.READ, ("keyed_history", "keyed_scd2"))
    assert created(again) == {"keyed"}


def test_an_unfinished_snapshot_reads_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdc_core.full_load.read_tables.GROUP_TABLES", 1)
    world, _ = build(1)
    call = 0
    while True:
        call += 1
        if not world.crashing(call, "snapshot"):
            break
        checkpoint = world.lake.checkpoint
        if checkpoint and checkpoint["full_load"] and checkpoint["tables"]:
            planned = plan(world)
            assert planned.run is Run.SNAPSHOT
            assert "not finished" in planned.why
            done = {table["name"] for table in checkpoint["tables"]}
            expected = {
                name: Action.STREAM if name in done else Action.READ
                for name in ("heap", "keyed", "other")
            }
            assert actions(planned) == expected
            return
    raise AssertionError("no crash left an unfinished snapshot")


def test_a_lost_slot_is_a_problem_and_a_new_snapshot() -> None:
    world, _ = build(1)
    world.snapshot()
    world.postgres.slot = None
    planned = plan(world)
    assert planned.run is Run.SNAPSHOT
    assert planned.problem
    assert planned.at_source[0] == "create replication slot dlt_cdc_slot"
    kinds = {d.kind for table in planned.tables for d in table.definitions}
    assert kinds == {DefinitionKind.REPLACE_TABLE}


def test_a_refused_table_is_set_aside() -> None:
    world, oids = build(1)
    world.snapshot()
    world.postgres.add_column(oids[0], "extra", pa.string())
    planned = plan(world, freeze=True)
    assert actions(planned)["keyed"] is Action.SET_ASIDE
    assert planned.statements == 0


def test_a_fault_of_the_destination_is_raised() -> None:
    world, _ = build(1)
    source = world.source()
    broken = FaultPlan(named={"destination.read_checkpoint": InjectedCrash()})
    case = PlanRun(
        InMemoryMonitor(world.postgres), source, source, InMemoryDestination(world.lake, broken)
    )
    try:
        case.run()
    except InjectedCrash:
        return
    raise AssertionError("the fault was hidden")
