"""Column choice and masks on the fakes: the destination has what the rules make of the source."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import InMemoryDestination
from adapters.fakes.destination import LakeTable
from adapters.fakes.source import InMemoryMonitor
from cdc_core.check.findings import Level
from cdc_core.use_cases.check_source import CheckSource
from cdc_core.use_cases.show_status import ShowStatus
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.errors import RulesError
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA, UNREPRESENTABLE_TABLE
from cdc_core.values.relation import ReplicaIdentity
from cdc_core.values.table_rules import Rule
from tests.support.fake_world import COLUMNS, RuledWorld, change_schema, row_of, work
from tests.support.mask_model import MASKS, hashed

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class MaskedWorld(RuledWorld):
    def assert_ruled(
        self,
        masks: Mapping[str, str] = {},
        excluded: tuple[str, ...] = (),
    ) -> None:
        """The destination has exactly what the rules make of every table."""
        for table in self.postgres.tables.values():
            name = table.relation.table.name
            names = [n for n in table.relation.column_names if n not in excluded]
            made = [
                {n: MASKS[masks[n]](row[n]) if n in masks else row[n] for n in names}
                for row in table.rows
            ]
            found = Counter(row_of(row) for row in self.lake.rows(name, *names))
            assert found == Counter(row_of(row) for row in made), name
            own = {*names, "_cdc_lsn", "_cdc_committed_at"}
            assert {*self.lake.tables[name].columns} == own, name


def world_of(seed: int, *rules: Rule, **options: Any) -> tuple[MaskedWorld, list[int]]:
    world = MaskedWorld(random=random.Random(seed), rules=rules, **options)
    oids = [
        world.postgres.create_table("keyed", COLUMNS, toasted=("big",)),
        world.postgres.create_table("whole", COLUMNS, identity=ReplicaIdentity.FULL),
        world.postgres.create_table("heap", COLUMNS, key=()),
    ]
    world.postgres.published.update(oids)
    work(world, oids, 5)
    return world, oids


CHOICES = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["", "hash"]),
        "n": st.sampled_from(["", "hash", "null", "last4", "exclude"]),
        "big": st.sampled_from(["", "hash", "null", "last4", "exclude"]),
    }
)


def rule_of(choice: Mapping[str, str]) -> tuple[Rule, dict[str, str], tuple[str, ...]]:
    masks = {n: mask for n, mask in choice.items() if mask not in ("", "exclude")}
    excluded = tuple(n for n, mask in choice.items() if mask == "exclude")
    return Rule(("*",), mask=masks, exclude_columns=excluded), masks, excluded  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    choice=CHOICES,
    cut=st.integers(1, 4),
    parts=st.none() | st.integers(1, 4),
)
def test_any_workload_under_any_rules(
    seed: int, choice: dict[str, str], cut: int, parts: int | None
) -> None:
    rule, masks, excluded = rule_of(choice)
    world, oids = world_of(seed, rule, batch_transactions=cut, part_events=parts)
    world.snapshot()
    world.assert_ruled(masks, excluded)
    for _ in range(2):
        work(world, oids, 8)
        world.cdc()
        world.assert_ruled(masks, excluded)
    assert world.verify().equal


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), before=CHOICES, after=CHOICES, full=st.booleans())
def test_changed_rules_take_effect_with_the_next_run(
    seed: int, before: dict[str, str], after: dict[str, str], full: bool
) -> None:
    world, oids = world_of(seed, rule_of(before)[0])
    world.snapshot()
    work(world, oids, 3)
    rule, masks, excluded = rule_of(after)
    world.rules = (rule,)
    world.notes.clear()
    if full:
        world.snapshot()
    else:
        world.cdc()
        assert any("its rules changed" in note for note in world.notes) == (before != after)
    world.assert_ruled(masks, excluded)
    world.notes.clear()
    work(world, oids, 3)
    world.cdc()
    world.assert_ruled(masks, excluded)
    assert not any("rules changed" in note for note in world.notes)


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_while_rules_take_effect_is_cured(seed: int) -> None:
    call, reached = 0, True
    masks = {"id": "hash", "n": "last4"}
    while reached:
        world, oids = world_of(seed)
        world.snapshot()
        work(world, oids, 3)
        world.rules = (Rule(("*",), mask=masks, exclude_columns=("big",)),)  # type: ignore[arg-type]
        reached = world.crashing(call, "cdc")
        world.cdc()
        world.assert_ruled(masks, ("big",))
        call += 1
    assert call > 10


def test_another_mask_key_takes_effect() -> None:
    rule = Rule(("*",), mask={"big": "hash"})
    world, _ = world_of(1, rule)
    world.snapshot()
    world.assert_ruled({"big": "hash"})
    world.key = b"another"
    world.cdc()
    for table in world.postgres.tables.values():
        found = Counter(row["big"] for row in world.lake.rows(table.relation.table.name, "big"))
        assert found == Counter(hashed(row["big"], b"another") for row in table.rows)


def test_a_table_that_is_not_streamed_gets_changed_rules_too() -> None:
    world, _ = world_of(2)
    still = world.postgres.create_table("still", COLUMNS, key=(), identity=ReplicaIdentity.DEFAULT)
    with world.postgres.transaction() as tx:
        tx.insert(still, id=1, n=2, big="secret")
    world.snapshot()
    world.rules = (Rule(("still",), mask={"big": "last4"}),)
    world.cdc()
    assert [row["big"] for row in world.lake.rows("still", "big")] == ["**cret"]
    state = next(s for s in _states(world) if s.target == "still")
    assert state.status is TableStatus.NOT_STREAMED


def _states(world: MaskedWorld) -> list[Any]:
    with InMemoryDestination(world.lake) as destination:
        checkpoint = destination.read_checkpoint()
    assert checkpoint is not None
    return list(checkpoint.tables.values())


def test_a_wrong_rule_stops_every_command_before_anything_is_changed() -> None:
    world, _ = world_of(3, Rule(("keyed",), exclude_columns=("nope",)))
    world.postgres.published.clear()
    for run in (world.snapshot, world.cdc, world.verify):
        if run != world.snapshot:
            world.rules = ()
            world.snapshot()
            world.rules = (Rule(("keyed",), exclude_columns=("nope",)),)
        with pytest.raises(RulesError, match=r"rule 1 .*keyed.*public\.keyed.*nope"):
            run()
        if run == world.snapshot:
            assert not world.postgres.published
            assert not world.lake.tables


@pytest.mark.parametrize("change", ["drop", "add", "add with default", "rename key", "widen"])
def test_definitions_are_followed_under_rules(change: str) -> None:
    rule = Rule(("*",), mask={"b*": "hash"}, exclude_columns=("n*",))
    world, oids = world_of(4, rule)
    world.snapshot()
    work(world, oids, 2)
    change_schema(world, oids[0], change)
    world.cdc()
    world.assert_ruled({"big": "hash"}, ("n",))


def test_a_masked_column_that_is_renamed_stays_masked() -> None:
    world, oids = world_of(5, Rule(("*",), mask={"*big": "hash", "*g*": "last4"}))
    world.snapshot()
    with world.postgres.transaction() as tx:
        tx.insert(oids[0], id=100, n=1, big="before")
    world.postgres.rename_column(oids[0], "big", "so_big")
    with world.postgres.transaction() as tx:
        tx.insert(oids[0], id=101, n=1, so_big="after")
    world.cdc()
    found = {row["id"]: row["so_big"] for row in world.lake.rows("keyed", "id", "so_big")}
    assert (found[100], found[101]) == ("**fore", "*fter")


def test_an_excluded_column_that_is_renamed_into_view_is_read_again() -> None:
    world, oids = world_of(6, Rule(("*",), exclude_columns=("b*",)))
    world.snapshot()
    with world.postgres.transaction() as tx:
        tx.insert(oids[0], id=100, n=1, big="before")
    world.postgres.rename_column(oids[0], "big", "large")
    world.cdc()
    rows = world.postgres.tables[oids[0]].rows
    found = {row["id"]: row["large"] for row in world.lake.rows("keyed", "id", "large")}
    assert found == {row["id"]: row["large"] for row in rows}


def test_a_column_that_was_renamed_into_hiding_and_back_loses_nothing() -> None:
    """In between the stream sent it under a name that a rule excludes."""
    world, oids = world_of(7, Rule(("*",), exclude_columns=("b*",)))
    postgres = world.postgres
    postgres.rename_column(oids[0], "big", "large")
    world.snapshot()
    postgres.rename_column(oids[0], "large", "big")
    with postgres.transaction() as tx:
        tx.insert(oids[0], id=100, n=1, big="in between")
    postgres.rename_column(oids[0], "big", "large")
    world.cdc()
    rows = postgres.tables[oids[0]].rows
    found = {row["id"]: row["large"] for row in world.lake.rows("keyed", "id", "large")}
    assert found == {row["id"]: row["large"] for row in rows}


def test_a_dropped_column_that_is_excluded_later_is_removed() -> None:
    world, oids = world_of(8)
    world.snapshot()
    world.postgres.drop_column(oids[0], "big")
    world.cdc()
    assert "big" in world.lake.tables["keyed"].columns
    world.rules = (Rule(("keyed",), exclude_columns=("b*",)),)
    world.cdc()
    assert "big" not in world.lake.tables["keyed"].columns
    world.notes.clear()
    world.cdc()
    assert not any("rules changed" in note for note in world.notes)


def test_a_dropped_column_keeps_its_masked_values_when_its_mask_is_removed() -> None:
    world, oids = world_of(8, Rule(("keyed",), mask={"big": "hash"}))
    world.snapshot()
    before = Counter(row["big"] for row in world.lake.rows("keyed", "id", "big"))
    assert any(before)
    world.postgres.drop_column(oids[0], "big")
    world.rules = ()
    world.cdc()
    assert Counter(row["big"] for row in world.lake.rows("keyed", "id", "big")) == before


def test_verify_names_masked_keys_and_repair_writes_masked_rows() -> None:
    masks = {"id": "hash", "big": "last4", "n": "null"}
    world, oids = world_of(9, Rule(("*",), mask=masks))  # type: ignore[arg-type]
    with world.postgres.transaction() as tx:
        tx.insert(oids[0], id=1000, n=7, big="marker value")
    world.snapshot()
    lost = [row for row in world.lake.tables["keyed"].rows if row["id"] != hashed(1000)]
    world.lake.tables["keyed"].rows = [*lost, {**lost[0], "id": "extra"}] if lost else []
    report = world.verify()
    line = next(found for found in report.tables if found.target == "keyed")
    assert line.missing == 1
    keys = {(key.kind, json.loads(key.key)["id"]) for key in line.keys}
    assert ("missing", hashed(1000)) in keys
    assert "1000" not in str(report).replace(str(hashed(1000)), "")
    assert world.verify(repair=True).equal
    world.assert_ruled(masks)


def test_verify_reports_rules_that_have_not_taken_effect() -> None:
    world, _ = world_of(10)
    world.snapshot()
    world.rules = (Rule(("keyed",), mask={"big": "null"}),)
    report = world.verify(repair=True)
    line = next(found for found in report.tables if found.target == "keyed")
    assert not report.equal
    assert "its rules changed" in line.problem
    assert "pgbronze cdc" in line.problem


@pytest.mark.parametrize("full", [True, False])
def test_the_run_says_that_earlier_history_stays(full: bool) -> None:
    world, _ = world_of(12, Rule(("keyed",), history=("log",)))
    world.snapshot()
    world.rules = (Rule(("keyed",), history=("log",), mask={"big": "hash"}),)
    world.notes.clear()
    (world.snapshot if full else world.cdc)()
    said = [note for note in world.notes if "history" in note and "stay as they were" in note]
    assert len(said) == 1
    assert "public.keyed" in said[0]


def test_types_of_masked_columns() -> None:
    world, _ = world_of(11, Rule(("keyed",), mask={"n": "null", "id": "hash"}))
    world.snapshot()
    state = next(s for s in _states(world) if s.target == "keyed")
    assert state.target_table.schema.field("n").type == pa.int32()
    assert state.target_table.schema.field("id").type == pa.string()


def test_check_warns_of_globs_without_a_table_and_stops_at_a_rule_that_does_not_fit() -> None:
    world, _ = world_of(13, Rule(("keyed", "later_*")))
    parts = world.parts()
    rules = parts["catalog"].rules
    check = CheckSource(
        parts["source"], parts["catalog"], parts["destination"], rules=rules
    )  # fmt: skip
    warned = [found for found in check.run() if found.level is Level.WARN]
    assert ["later_*" in found.sentence for found in warned] == [True]
    assert "rule 1" in warned[0].subject
    world.rules = (Rule(("keyed",), mask={"nope": "null"}),)
    parts = world.parts()
    with pytest.raises(RulesError, match=r"keyed.*nope"):
        CheckSource(parts["source"], parts["catalog"], parts["destination"]).run()


def test_status_shows_which_rules_apply() -> None:
    world, _ = world_of(14)
    world.snapshot()
    world.rules = (
        Rule(("keyed",), history=("log",), mask={"big": "hash"}, exclude_columns=("n",)),
    )
    parts = world.parts()
    monitor = InMemoryMonitor(world.postgres)
    lines = ShowStatus(monitor, parts["catalog"], parts["destination"]).run().tables
    found = {line.target: line for line in lines}
    columns = {"n": "exclude", "big": "hash"}
    assert found["keyed"].rules == {"history": ["log"], "columns": columns}
    assert "its rules changed" in found["keyed"].reason
    assert found["heap"].rules == {}
    assert found["heap"].reason == ""


@pytest.mark.parametrize("checkpoint", ["known", "lost"])
def test_values_that_rules_hide_later_are_in_no_deleted_row(checkpoint: str) -> None:
    """Also if nobody knows under which rules they were stored."""
    world, (keyed, *_) = world_of(15, Rule(("keyed",), deletes="soft"))
    world.postgres.published.update(world.postgres.tables)
    with world.postgres.transaction() as tx:
        tx.insert(keyed, id=70, n=7, big="marker")
    world.snapshot()
    with world.postgres.transaction() as tx:
        tx.delete(keyed, id=70)
    world.cdc()
    assert (70, "marker") in {(row["id"], row["big"]) for row in world.lake.rows("keyed")}
    world.rules = (Rule(("keyed",), deletes="soft", mask={"big": "last4"}),)
    if checkpoint == "lost":
        world.lake.checkpoint = None
    world.snapshot()
    (row,) = (row for row in world.lake.rows("keyed") if row["id"] == 70)
    assert (row["n"], row["big"]) == (7, None)
    assert row["_cdc_deleted_at"] is not None


@pytest.mark.parametrize("checkpoint", ["known", "lost"])
def test_values_that_rules_hide_later_are_forgotten(checkpoint: str) -> None:
    world, _ = world_of(15)
    world.snapshot()
    names = UNREPRESENTABLE_SCHEMA.names
    held = [
        dict(zip(names, (t, "n", "{}", "marker", 1, None), strict=True)) for t in ("keyed", "heap")
    ]
    columns = {field.name: field.type for field in UNREPRESENTABLE_SCHEMA}
    world.lake.tables[UNREPRESENTABLE_TABLE] = LakeTable(columns, held)
    world.rules = (Rule(("keyed",), mask={"big": "hash"}),)
    if checkpoint == "lost":
        world.lake.checkpoint = None
    world.snapshot()
    left = world.lake.rows(UNREPRESENTABLE_TABLE, "table_name")
    assert [row["table_name"] for row in left] == ["heap"]
