"""History on the fakes, against a model in plain Python: exact after any crash."""

from __future__ import annotations

import random
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import FaultPlan
from cdc_core.fold import log, multi_part_batch
from cdc_core.values.errors import SourceUnavailable
from cdc_core.values.history import LOG_FIELDS
from cdc_core.values.relation import ReplicaIdentity
from cdc_core.values.table_rules import Rule
from tests.support.fake_world import (
    CHANGES,
    COLUMNS,
    RuledWorld,
    change_schema,
    row_of,
    touch,
    work,
)
from tests.support.history_model import (
    as_of,
    assert_chained,
    images_of,
    in_blocks,
    modelled,
)

if TYPE_CHECKING:
    from adapters.fakes.postgres import Row

KEYED = Rule(("public.keyed", "public.whole"), history=("log", "scd2"), deletes="soft")
HEAP = Rule(("public.heap",), history=("log",))


@dataclass
class HistoryWorld(RuledWorld):
    rules: tuple[Rule, ...] = (KEYED, HEAP)
    #: The rows of each table at the snapshot at which its history begins, and its LSN.
    starts: dict[int, tuple[int, list[Row]]] = field(default_factory=dict)

    def repair(self) -> None:
        self.verify(repair=True)

    def begin(self, oids: list[int]) -> None:
        """Take the first snapshot; what follows is compared with the model."""
        self.snapshot()
        (lsn,) = [lsn for lsn in self.postgres.seen if lsn == max(self.postgres.seen)]
        for oid in oids:
            self.starts[oid] = int(lsn), [dict(row) for row in self.postgres.seen[lsn][oid]]

    def name_of(self, oid: int) -> str:
        return self.postgres.tables[oid].relation.table.name

    def live_rows(self, oid: int) -> list[Row]:
        names = self.postgres.tables[oid].relation.column_names
        rows = self.lake.tables[self.name_of(oid)].rows
        return [
            {name: row[name] for name in names}
            for row in rows
            if row.get("_cdc_deleted_at") is None
        ]

    def assert_consistent(self, oid: int) -> None:
        """The tables are equal; the images are a chain that ends with the table; so do the
        versions."""
        table = self.postgres.tables[oid]
        name, columns = self.name_of(oid), table.relation.column_names
        wanted = Counter(row_of(row) for row in table.rows)
        assert Counter(row_of(row) for row in self.live_rows(oid)) == wanted, name
        values = Counter(tuple(row[c] for c in columns) for row in table.rows)
        every = [c for c in self.lake.tables[name].columns if not c.startswith("_cdc")]
        found = images_of(self.lake.tables[f"{name}_history"].rows, every)
        left = assert_chained(found, every, table.relation.key)
        places = [every.index(column) for column in columns]
        shown: Counter[tuple[Any, ...]] = Counter()
        for row, count in left.items():
            shown[tuple(row[place] for place in places)] += count
        assert shown == values, name
        if f"{name}_scd2" in self.lake.tables:
            versions = self.lake.tables[f"{name}_scd2"].rows
            assert as_of(versions, int(self.postgres.lsn), columns) == values, name
            identities = [(*(v[k] for k in table.relation.key), v["_cdc_lsn"]) for v in versions]
            assert len({*identities}) == len(identities)

    def assert_exact(self, oid: int) -> None:
        """Every image since the first snapshot, in order, and the versions at every LSN."""
        self.assert_consistent(oid)
        table, (lsn, start) = self.postgres.tables[oid], self.starts[oid]
        columns = table.relation.column_names
        model = modelled(self.postgres, oid, start, lsn)
        found = images_of(self.lake.tables[f"{self.name_of(oid)}_history"].rows, columns)
        first, rest = found[: len(start)], found[len(start) :]
        assert Counter(first) == Counter(
            ("insert", lsn, None, tuple(row[name] for name in columns)) for row in start
        )
        assert in_blocks(rest) == in_blocks(model.images)
        if table.relation.key:
            versions = self.lake.tables[f"{self.name_of(oid)}_scd2"].rows
            for at, rows in model.copies.items():
                copy = Counter(tuple(row[name] for name in columns) for row in rows)
                assert as_of(versions, at, columns) == copy, at


def build(seed: int, batch_transactions: int = 1000) -> tuple[HistoryWorld, list[int]]:
    world = HistoryWorld(random=random.Random(seed), batch_transactions=batch_transactions)
    oids = [
        world.postgres.create_table("keyed", COLUMNS, toasted=("big",), labels=("y",)),
        world.postgres.create_table("whole", COLUMNS, identity=ReplicaIdentity.FULL),
        world.postgres.create_table("heap", COLUMNS, key=(), labels=("y",)),
    ]
    world.postgres.published.update(oids)
    work(world, oids, 3)
    world.begin(oids)
    return world, oids


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 5), rounds=st.integers(1, 3))
def test_every_change_is_an_image_and_every_lsn_a_copy(seed: int, cut: int, rounds: int) -> None:
    world, oids = build(seed, cut)
    for _ in range(rounds):
        work(world, oids, 8)
        world.cdc()
    for oid in oids:
        world.assert_exact(oid)


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_any_port_call_leaves_history_exact(seed: int) -> None:
    call, reached = 0, True
    while reached:
        world, oids = build(seed, batch_transactions=1 + seed % 3)
        work(world, oids, 6)
        reached = world.crashing(call, "cdc")
        work(world, oids, 3)
        # Batches end elsewhere than before the crash, and so they do after another one.
        world.batch_transactions = 1 + (seed + call) % 4
        world.crashing(9 + (seed * 7 + call) % 12, "cdc")
        work(world, oids, 2)
        world.batch_transactions = 1 + (seed + call) % 5
        world.cdc()
        for oid in oids:
            world.assert_exact(oid)
        call += 1
    assert call > 15


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_parts_of_large_transactions_leave_history_exact(seed: int, data: st.DataObject) -> None:
    world, oids = build(seed, batch_transactions=data.draw(st.integers(1, 4)))
    snapshots = len(world.postgres.seen)
    plain = [oid for oid in oids if data.draw(st.booleans())] or oids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_part_batch, "HELD_BYTES", data.draw(st.sampled_from([0, 400, 1 << 20])))
        patch.setattr(multi_part_batch, "REGROUP_ROWS", data.draw(st.sampled_from([1, 3, 1 << 20])))
        patch.setattr(log, "HELD_BYTES", data.draw(st.sampled_from([0, 400, 1 << 20])))
        world.part_events = data.draw(st.integers(1, 7))
        for _ in range(2):
            work(world, plain, 6)
            if data.draw(st.booleans()):
                world.crashing(data.draw(st.integers(5, 40)), "cdc")
                world.part_events = data.draw(st.integers(1, 7))
                world.batch_transactions = data.draw(st.integers(1, 4))
            world.cdc()
    entangled = len(world.postgres.seen) > snapshots
    for oid in oids:
        world.assert_consistent(oid)
        if not entangled:
            world.assert_exact(oid)


@pytest.mark.parametrize("action", ["snapshot", "snapshot_one", "repair"])
@pytest.mark.parametrize("again", ["snapshot", "cdc"])
@pytest.mark.parametrize("seed", range(1))
def test_a_full_load_that_crashed_leaves_the_difference(seed: int, action: str, again: str) -> None:
    call, reached = 0, True
    while reached:
        world, oids = build(seed)
        work(world, oids, 4)
        if action == "repair":
            world.lake.tables["keyed"].rows[:1] = []
            world.lake.tables["heap"].rows[:1] = []
        if action == "snapshot_one":
            reached = _crashing_snapshot(world, call)
        else:
            reached = world.crashing(call, action)
        if action == "repair":
            world.repair()  # what the source does not send is taken from the table
        work(world, oids, 4)
        getattr(world, again)()
        work(world, oids, 2)
        world.cdc()
        for oid in oids:
            world.assert_consistent(oid)
        call += 1
    assert call > 8


def _crashing_snapshot(world: HistoryWorld, call: int) -> bool:
    world.snapshot_one = lambda: world.snapshot("public.keyed", "public.heap")  # type: ignore[attr-defined]
    return world.crashing(call, "snapshot_one")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", [0, 2])
def test_history_follows_definitions(change: str, place: int) -> None:
    if change == "rename key" and place == 2:
        return
    call, reached = 0, True
    while reached and call < 60:
        world, oids = build(7, batch_transactions=2)
        oid = oids[place]
        work(world, oids, 3)
        change_schema(world, oid, change)
        with world.postgres.transaction() as tx:
            touch(world, tx, oid)
        world.rules = (Rule(("*",), history=("log",)), KEYED) if place else (
            Rule(("*",), history=("log", "scd2"), deletes="soft"),
            Rule(("public.heap",), history=("log",), deletes="hard"),
        )  # fmt: skip
        reached = world.crashing(call, "cdc")
        world.cdc()
        with world.postgres.transaction() as tx:
            touch(world, tx, oid)
        world.cdc()
        for each in oids:
            world.assert_consistent(each)
        call += 7


def test_a_key_that_changes_inserts_all_rows_under_the_new_one() -> None:
    world = HistoryWorld(rules=(Rule(("*",), history=("log",)),))
    oid = world.postgres.create_table("t", {"id": pa.int64(), "code": pa.int64()})
    world.postgres.published.add(oid)
    with world.postgres.transaction() as tx:
        tx.insert(oid, id=1, code=5)
        tx.insert(oid, id=2, code=5)
        tx.delete(oid, id=2)
    world.begin([oid])
    table = world.postgres.tables[oid]
    table.relation = replace(table.relation, key=("code",))
    table.definition += 1
    with world.postgres.transaction() as tx:
        tx.truncate(oid)
    world.cdc()
    world.assert_consistent(oid)


@pytest.mark.parametrize("lost", ["keyed_history", "keyed_scd2", "heap_history"])
def test_history_that_somebody_dropped_begins_again(lost: str) -> None:
    world, oids = build(2)
    work(world, oids, 3)
    world.cdc()
    del world.lake.tables[lost]
    work(world, oids, 3)
    world.cdc()
    for oid in oids:
        world.assert_consistent(oid)


def test_history_that_is_switched_off_and_on_again_is_the_difference() -> None:
    world, oids = build(3)
    for rules in ((), (KEYED, HEAP), (), (KEYED, HEAP)):
        work(world, oids, 3)
        world.cdc()
        world.rules = rules
        work(world, oids, 3)
    world.cdc()
    work(world, oids, 3)
    world.cdc()
    for oid in oids:
        world.assert_consistent(oid)


def test_a_table_that_is_created_again_continues_the_log_of_its_name() -> None:
    world, (keyed, *_) = build(4)
    work(world, [keyed], 5)
    world.cdc()
    world.snapshot()
    before = max(image["_sort_by"] for image in world.lake.tables["keyed_history"].rows)
    world.postgres.drop_table(keyed)
    again = world.postgres.create_table("keyed", COLUMNS, toasted=("big",))
    with world.postgres.transaction() as tx:
        tx.insert(again, id=90, n=1, big="new")
    world.cdc()
    with world.postgres.transaction() as tx:
        tx.update(again, dict(world.postgres.tables[again].rows[0]), n=2)
    world.cdc()
    world.assert_consistent(again)
    numbers = [image["_sort_by"] for image in world.lake.tables["keyed_history"].rows]
    assert len([number for number in numbers if number > before]) > 2


@pytest.mark.parametrize("call", range(0, 60, 5))
def test_tables_that_swap_their_names_begin_another_history(call: int) -> None:
    rules = (Rule(("*",), history=("log",)),)
    world = HistoryWorld(rules=rules)
    one = world.postgres.create_table("one", {"id": pa.int64(), "a": pa.int32()})
    other = world.postgres.create_table(
        "other", {"id": pa.int64(), "a": pa.string(), "b": pa.int64()}
    )
    world.postgres.published.update([one, other])
    with world.postgres.transaction() as tx:
        tx.insert(one, id=1, a=1)
        tx.insert(other, id=1, a="text", b=2)
    world.snapshot()
    for oid, name in ((one, "spare"), (other, "one"), (one, "other")):
        world.postgres.rename_table(oid, name)
    world.crashing(call, "cdc")
    with world.postgres.transaction() as tx:
        tx.insert(one, id=2, a=2)
        tx.insert(other, id=2, a="more", b=3)
    world.cdc()
    for oid in (one, other):
        world.assert_consistent(oid)
        table = world.postgres.tables[oid]
        stored = world.lake.tables[world.name_of(oid)].columns
        assert {*stored} == {*table.relation.column_names, "_cdc_lsn", "_cdc_committed_at"}


def logs_of_two(*, keyless: str = "") -> tuple[HistoryWorld, int, int]:
    """Two tables with a log, loaded: `one` and `other`, which has columns of its own."""
    world = HistoryWorld(rules=(Rule(("*",), history=("log",)),))
    one = world.postgres.create_table(
        "one", {"id": pa.int64(), "a": pa.int32()}, key=() if keyless == "one" else ("id",)
    )
    other = world.postgres.create_table("other", {"id": pa.int64(), "b": pa.string()})
    world.postgres.published.update([one, other])
    with world.postgres.transaction() as tx:
        tx.insert(one, id=1, a=1)
        tx.insert(one, id=1 if keyless == "one" else 2, a=2)
        tx.insert(other, id=1, b="text")
    world.snapshot()
    return world, one, other


def test_a_new_table_under_the_name_of_one_that_waits_begins_a_history() -> None:
    """The one that waits has left its history under the old name."""
    world, one, other = logs_of_two(keyless="one")
    world.postgres.drop_column(one, "a")  # the log of a table without a key is read again
    world.faults = FaultPlan(named={"snapshot.begin": SourceUnavailable("gone")})
    with pytest.raises(SourceUnavailable):
        world.cdc()
    world.faults = FaultPlan()
    world.postgres.drop_table(other)
    world.postgres.rename_table(one, "other")
    new = world.postgres.create_table("one", {"id": pa.int64(), "c": pa.int64()})
    with world.postgres.transaction() as tx:
        tx.insert(new, id=7, c=7)
    world.cdc()
    for oid in (one, new):
        world.assert_consistent(oid)
    assert len(world.lake.tables["one_history"].rows) == 1


def test_deletes_of_a_table_whose_place_is_taken_are_whole() -> None:
    world, one, _ = logs_of_two()
    world.postgres.drop_table(one)
    new = world.postgres.create_table("one", {"id": pa.int64()})
    with world.postgres.transaction() as tx:
        tx.insert(new, id=1)
    world.cdc()
    world.postgres.add_column(new, "a", pa.int32())
    with world.postgres.transaction() as tx:
        tx.update(new, {"id": 1, "a": None}, a=9)
    world.cdc()
    world.assert_consistent(new)
    images = world.lake.tables["one_history"].rows
    assert [image["a"] for image in images if image["_pg_change_type"] == "delete"] == [1, 2]


def test_deletes_of_a_table_whose_place_is_taken_hide_what_the_rules_hide_now() -> None:
    world, one, _ = logs_of_two()
    world.postgres.drop_table(one)
    new = world.postgres.create_table("one", {"id": pa.int64()})
    world.rules = (Rule(("*",), history=("log",), exclude_columns=("a*",)),)
    world.cdc()
    world.assert_consistent(new)
    images = world.lake.tables["one_history"].rows
    assert [image["a"] for image in images if image["_pg_change_type"] == "delete"] == [None, None]


@pytest.mark.parametrize("left", ["renamed", "renamed_history"])
@pytest.mark.parametrize("action", ["cdc", "snapshot"])
def test_a_rename_onto_what_a_dead_load_has_left_is_read_again(left: str, action: str) -> None:
    world, one, other = logs_of_two()
    name = left.replace("renamed", "other")
    world.lake.tables[left] = deepcopy(world.lake.tables[name])
    world.postgres.rename_table(one, "renamed")
    with world.postgres.transaction() as tx:
        tx.update(one, dict(world.postgres.tables[one].rows[0]), a=5)
    getattr(world, action)()
    for oid in (one, other):
        world.assert_consistent(oid)


def test_a_table_that_is_read_before_the_other_of_a_swap_keeps_its_history() -> None:
    world, one, other = logs_of_two()
    for oid, name in ((one, "spare"), (other, "one"), (one, "other")):
        world.postgres.rename_table(oid, name)
    world.snapshot("public.one")
    images = [dict(image) for image in world.lake.tables["one_history"].rows]
    world.cdc()
    for oid in (one, other):
        world.assert_consistent(oid)
    assert world.lake.tables["one_history"].rows[: len(images)] == images


def assert_log_of(world: HistoryWorld, oid: int) -> None:
    """Images are a chain in every column of the log, and end with the rows of the table."""
    relation, name = world.postgres.tables[oid].relation, world.name_of(oid)
    log = world.lake.tables[f"{name}_history"]
    columns = [name for name in log.columns if name not in pa.schema(LOG_FIELDS).names]
    left = assert_chained(images_of(log.rows, columns), columns, relation.key)
    places = [columns.index(column) for column in relation.column_names]
    rows = world.lake.tables[name].rows
    assert Counter(tuple(values[place] for place in places) for values in left.elements()) == (
        Counter(tuple(row[column] for column in relation.column_names) for row in rows)
    )


def test_a_history_that_no_checkpoint_knows_continues_if_its_columns_are_the_tables() -> None:
    world, one, other = logs_of_two()
    world.postgres.drop_column(one, "a")
    with world.postgres.transaction() as tx:
        tx.delete(one, id=1)
        tx.delete(other, id=1)
    world.lake.checkpoint = None
    world.snapshot()
    for oid in (one, other):
        assert_log_of(world, oid)
    kinds = [image["_pg_change_type"] for image in world.lake.tables["other_history"].rows]
    assert kinds == ["insert", "delete"]
    assert len(world.lake.tables["one_history"].rows) == 1


@pytest.mark.parametrize("then", ["dropped", "renamed"])
def test_a_column_that_a_dead_run_has_renamed_may_change_again(then: str) -> None:
    """Nobody knows the name that it has in the history then."""
    call, reached = 0, True
    while reached:
        world, one, _ = logs_of_two()
        world.postgres.rename_column(one, "a", "b")
        reached = world.crashing(call, "cdc")
        if then == "dropped":
            world.postgres.drop_column(one, "b")
        else:
            world.postgres.rename_column(one, "b", "c")
        with world.postgres.transaction() as tx:
            tx.delete(one, id=2)
            tx.insert(one, id=3)
        world.cdc()
        assert_log_of(world, one)
        call += 1
    assert call > 10


def test_a_soft_delete_keeps_the_row_that_was() -> None:
    world, (keyed, *_) = build(1)
    with world.postgres.transaction() as tx:
        tx.insert(keyed, id=70, n=1, big="kept")
    world.cdc()
    with world.postgres.transaction() as tx:
        tx.delete(keyed, id=70)
    at = world.postgres.now
    world.cdc()
    (row,) = [row for row in world.lake.tables["keyed"].rows if row["id"] == 70]
    assert (row["n"], row["big"]) == (1, "kept")
    assert int(row["_cdc_deleted_at"].timestamp() * 1_000_000) == at
    assert world.verify().equal
    world.snapshot()
    assert [row] == [r for r in world.lake.tables["keyed"].rows if r["id"] == 70]
    with world.postgres.transaction() as tx:
        tx.insert(keyed, id=70, n=2, big="back")
    world.cdc()
    (row,) = [row for row in world.lake.tables["keyed"].rows if row["id"] == 70]
    assert (row["n"], row["_cdc_deleted_at"]) == (2, None)


@pytest.mark.parametrize("seed", range(3))
def test_a_repair_shows_in_history_as_the_difference(seed: int) -> None:
    world, oids = build(seed)
    work(world, oids, 3)
    world.cdc()
    logs = {oid: len(world.lake.tables[f"{world.name_of(oid)}_history"].rows) for oid in oids}
    spoiled = world.lake.tables["keyed"].rows
    for row in spoiled:
        row["n"] = -1
    report = world.verify(repair=True)
    assert report.equal
    # The table was wrong, its history was not.
    for oid in oids:
        assert len(world.lake.tables[f"{world.name_of(oid)}_history"].rows) == logs[oid]
        world.assert_exact(oid)
    work(world, oids, 3)
    world.cdc()
    for oid in oids:
        world.assert_exact(oid)
