"""The invariant, on the fakes: the destination equals the source, however the runs ended."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import (
    FaultPlan,
    InMemoryDestination,
    InMemorySource,
)
from adapters.fakes.snapshot import Chunk, InMemorySnapshot
from cdc_core.fold import multi_part_batch
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.values.changes import Unrepresentable
from cdc_core.values.checkpoint import Checkpoint, TableStatus
from cdc_core.values.errors import (
    CdcError,
    ContinuityLost,
    DefinitionChanged,
    OperatorNeeded,
    SettingsError,
    TablesLocked,
    TablesNeedSnapshot,
    TablesRefused,
)
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import ReplicaIdentity
from tests.support.fake_world import (
    CHANGES,
    COLUMNS,
    NAME_CHANGES,
    World,
    assert_no_column_is_doubled,
    build,
    change_names,
    change_schema,
    row_of,
    touch,
    work,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdc_core.values.relation import Relation


@settings(max_examples=120)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 4), rounds=st.integers(1, 3))
def test_stream_converges_whatever_the_workload(seed: int, cut: int, rounds: int) -> None:
    world, oids = build(seed, cut)
    world.snapshot()
    world.assert_equal()
    for _ in range(rounds):
        work(world, oids, 8)
        world.cdc()
        world.assert_equal()


@pytest.mark.parametrize("seed", range(25))
def test_a_crash_at_any_port_call_is_cured_by_running_again(seed: int) -> None:
    call = 0
    reached = True
    while reached:
        world, oids = build(seed, batch_transactions=1 + seed % 3)
        world.snapshot()
        work(world, oids, 6)
        reached = world.crashing(call, "cdc")
        work(world, oids, 3)
        # Cut elsewhere than before the crash.
        world.batch_transactions = 1 + (seed + call) % 4
        world.cdc()
        world.assert_equal()
        call += 1
    assert call > 10


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("again", ["snapshot", "cdc"])
def test_a_crashed_snapshot_is_cured(seed: int, again: str) -> None:
    call = 0
    reached = True
    while reached:
        world, oids = build(seed)
        world.snapshot()
        work(world, oids, 4)
        reached = world.crashing(call, "snapshot")
        work(world, oids, 4)
        getattr(world, again)()
        world.assert_equal()
        call += 1
    assert call > 8


def test_a_first_snapshot_that_crashed_is_taken_again() -> None:
    call = 0
    reached = True
    while reached:
        world, oids = build(3)
        reached = world.crashing(call, "snapshot")
        work(world, oids, 2)
        world.snapshot()
        work(world, oids, 2)
        world.cdc()
        world.assert_equal()
        call += 1


@pytest.mark.parametrize("seed", range(40))
def test_a_stale_checkpoint_replays_without_harm(seed: int) -> None:
    """The slot behind, as after a crash of PostgreSQL, and the checkpoint of some batches ago."""
    world, oids = build(seed, batch_transactions=2)
    world.snapshot()
    slot, checkpoint = world.postgres.slot, world.lake.checkpoint
    work(world, oids, 6)
    world.cdc()
    work(world, oids, 2)
    world.postgres.slot, world.lake.checkpoint = slot, checkpoint
    world.batch_transactions = 3
    world.cdc()
    world.assert_equal()


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is staged, and folded again in groups of a few rows."""
    monkeypatch.setattr(multi_part_batch, "HELD_BYTES", 0)
    monkeypatch.setattr(multi_part_batch, "REGROUP_ROWS", 3)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("seed", range(25))
def test_a_batch_in_parts_ends_like_a_whole_one(seed: int) -> None:
    world, oids = build(seed, batch_transactions=1 + seed % 5)
    world.part_events = 1 + seed % 4
    world.snapshot()
    slot, checkpoint = world.postgres.slot, world.lake.checkpoint
    work(world, oids, 12)
    world.cdc()
    world.assert_equal()
    # Again from the start, cut elsewhere.
    world.postgres.slot, world.lake.checkpoint = slot, checkpoint
    world.batch_transactions, world.part_events = 3, 5 - world.part_events
    work(world, oids, 2)
    world.cdc()
    world.assert_equal()


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("seed", range(2))
def test_a_crash_within_a_batch_in_parts_is_recovered(seed: int) -> None:
    call = 0
    reached = True
    while reached:
        world, oids = build(seed, batch_transactions=4)
        world.part_events = 2
        world.snapshot()
        work(world, oids, 6)
        reached = world.crashing(call, "cdc")
        work(world, oids, 2)
        world.part_events = 3
        world.cdc()
        world.assert_equal()
        call += 1
    assert call > 15


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("change", ["add", "drop", "rename", "rename key", "widen", "rename table"])
@pytest.mark.parametrize("table", [0, 2], ids=["keyed", "heap"])
def test_a_table_that_changes_between_the_parts_of_a_batch_is_followed(
    change: str, table: int
) -> None:
    world, oids = build(7, batch_transactions=100)
    world.part_events = 2
    world.snapshot()
    work(world, oids, 6)
    change_schema(world, oids[table], change)
    for _ in range(3):
        with world.postgres.transaction() as tx:
            touch(world, tx, oids[table])
    world.cdc()
    world.assert_equal()


def test_named_tables_are_read_again_and_the_stream_continues_for_all() -> None:
    world, oids = build(1)
    world.snapshot()
    work(world, oids, 5)
    world.lake.tables["keyed"].rows.clear()
    world.snapshot("keyed")
    assert {r["id"] for r in world.lake.rows("keyed")} == {
        r["id"] for r in world.postgres.tables[oids[0]].rows
    }
    work(world, oids, 5)
    world.cdc()
    world.assert_equal()


def test_a_glob_without_match_is_a_wrong_command_line() -> None:
    world, _ = build(1)
    world.snapshot()
    for globs in (("nothing*",), ("*", "nothing*"), ("", "nothing*")):
        with pytest.raises(SettingsError, match=r"--tables ('' )?'nothing\*' matches none"):
            world.snapshot(*globs)


def test_a_new_table_is_read_and_followed() -> None:
    world, oids = build(2)
    world.snapshot()
    late = world.postgres.create_table("late", COLUMNS)
    with world.postgres.transaction() as tx:
        tx.insert(late, id=1, n=1, big="before it was published")
    world.cdc()
    world.assert_equal()
    work(world, [*oids, late], 5)
    world.cdc()
    world.assert_equal()


def test_a_recreated_table_takes_the_place_of_the_old() -> None:
    world, oids = build(4)
    world.snapshot()
    work(world, oids, 3)
    world.postgres.drop_table(oids[0])
    new = world.postgres.create_table("keyed", {"id": pa.int64(), "other": pa.string()})
    with world.postgres.transaction() as tx:
        tx.insert(new, id=5, other="new")
    world.cdc()
    world.assert_equal()
    assert_no_column_is_doubled(world)
    assert oids[0] not in {table["oid"] for table in (world.lake.checkpoint or {})["tables"]}


def test_a_dropped_table_stays_as_it_was() -> None:
    world, oids = build(5)
    world.snapshot()
    before = world.lake.rows("keyed")
    world.postgres.drop_table(oids[0])
    world.cdc()
    assert world.lake.rows("keyed") == before
    world.assert_equal()


def targets(world: World) -> dict[str, str]:
    checkpoint = world.lake.checkpoint or {"tables": []}
    return {table["name"]: table["target"] for table in checkpoint["tables"]}


@pytest.mark.parametrize("action", ["cdc", "snapshot", "snapshot of one"])
def test_a_new_table_never_takes_the_name_of_another(action: str) -> None:
    world, oids = build(6)
    elsewhere = world.postgres.create_table("c", COLUMNS, schema="a__b")
    world.snapshot()
    before = {n: world.lake.rows(n) for n in ("keyed", "a__b__c")}
    new = world.postgres.create_table("Keyed", COLUMNS)
    bare = world.postgres.create_table("a__b__c", COLUMNS)
    with world.postgres.transaction() as tx:
        tx.insert(new, id=1, n=1, big="of the new one")
        tx.insert(bare, id=2, n=2, big="of the bare one")
        tx.insert(elsewhere, id=3, n=3, big="of the other schema")
    if action == "snapshot":
        world.snapshot()
    elif action == "snapshot of one":
        world.snapshot("Keyed")
    world.cdc()
    assert targets(world)["keyed"] == "keyed"
    assert targets(world)["Keyed"] == "Keyed_2"
    assert world.lake.rows("keyed") == before["keyed"]
    assert [row["id"] for row in world.lake.rows("a__b__c")] == [3]
    assert [row["id"] for row in world.lake.rows("a__b__c_2")] == [2]
    assert [row["id"] for row in world.lake.rows("Keyed_2")] == [1]
    # The first one gone, its content stays, and the others keep their names.
    world.postgres.drop_table(oids[0])
    third = world.postgres.create_table("KEYED", COLUMNS)
    with world.postgres.transaction() as tx:
        tx.insert(third, id=4, n=4, big="of the third")
    world.cdc()
    assert targets(world)["KEYED"] == "KEYED_3"
    assert world.lake.rows("keyed") == before["keyed"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("table", [0, 2], ids=["keyed", "heap"])
def test_schema_changes_are_followed(change: str, table: int) -> None:
    world, oids = build(6, batch_transactions=3)
    world.snapshot()
    work(world, oids, 4)
    change_schema(world, oids[table], change)
    with world.postgres.transaction() as tx:
        touch(world, tx, oids[table])
    world.cdc()
    world.assert_equal()
    assert [f for f in world.lake.tables if f.startswith("renamed")] == (
        ["renamed"] if change == "rename table" else []
    )
    with world.postgres.transaction() as tx:
        touch(world, tx, oids[table])
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("change", CHANGES)
def test_a_crash_while_a_schema_change_is_followed_is_cured(change: str) -> None:
    call = 0
    reached = True
    while reached:
        world, oids = build(13, batch_transactions=2)
        world.snapshot()
        work(world, oids, 3)
        change_schema(world, oids[0], change)
        with world.postgres.transaction() as tx:
            touch(world, tx, oids[0])
        reached = world.crashing(call, "cdc")
        with world.postgres.transaction() as tx:
            touch(world, tx, oids[0])
        world.cdc()
        world.assert_equal()
        call += 1
    assert call > 8


def test_a_table_that_cannot_be_read_does_not_stop_the_others() -> None:
    world, oids = build(14)
    world.snapshot()
    work(world, oids, 3)
    change_schema(world, oids[0], "rewrite")
    world.faults = FaultPlan(named={"snapshot.read": OperatorNeeded("permission denied")})
    with pytest.raises(TablesNeedSnapshot, match=r"public\.keyed"):
        world.cdc()
    world.faults = FaultPlan()
    other = world.postgres.tables[oids[1]]
    assert Counter(map(row_of, other.rows)) == Counter(map(row_of, world.lake.rows("other")))
    world.snapshot("public.keyed")
    world.cdc()
    world.assert_equal()


def test_a_new_table_that_may_not_be_read_does_not_stop_another_new_one() -> None:
    world, oids = build(14)
    world.snapshot()
    work(world, oids, 3)
    good, bad = (world.postgres.create_table(name, COLUMNS) for name in ("good", "bad"))
    with world.postgres.transaction() as tx:
        tx.insert(good, id=1, n=1, big="b")
    source = refusing(world, bad)
    with pytest.raises(TablesNeedSnapshot, match=r"public\.bad") as told:
        StreamChanges(source, source, source, InMemoryDestination(world.lake)).run()
    assert list(told.value.tables) == ["public.bad"]
    assert world.lake.rows("good") == [{"id": 1, "n": 1, "big": "b"}]
    world.cdc()
    world.assert_equal()


def refusing(world: World, oid: int) -> InMemorySource:
    """A source that does not let this table be read."""
    source = world.source()

    @dataclass(frozen=True)
    class Guarded(InMemorySnapshot):
        def read(self, relation, *part):
            if relation.oid == oid:
                raise OperatorNeeded("permission denied", "GRANT it")
            return super().read(relation, *part)

    begin = source.begin

    @contextmanager
    def guarded(**how: bool):
        with begin(**how) as snapshot:
            yield Guarded(**vars(snapshot))

    source.begin = guarded  # type: ignore[method-assign]
    return source


@pytest.mark.parametrize("before", ["nothing", "all loaded"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("globs", [(), ("public.*",)])
def test_a_table_that_may_not_be_read_does_not_stop_a_snapshot(
    before: str, place: int, globs: tuple[str, ...]
) -> None:
    world, oids = build(14)
    if before == "all loaded" or globs:
        world.snapshot()
        work(world, oids, 3)
    source, bad = refusing(world, oids[place]), world.postgres.tables[oids[place]].relation.table
    with pytest.raises(TablesRefused, match=rf"not read: {bad} \(permission denied\).*GRANT it"):
        TakeSnapshot(source, source, source, InMemoryDestination(world.lake)).run(globs)
    for other in oids[:place] + oids[place + 1 :]:
        table = world.postgres.tables[other]
        found = world.lake.rows(table.relation.table.name)
        assert Counter(map(row_of, table.rows)) == Counter(map(row_of, found))
    # The stream goes on for the others, and for this one once it may be read.
    work(world, oids, 3)
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("change", ["retype", "rename", "drop", "key"])
def test_a_table_that_a_snapshot_read_is_not_read_again_for_changes_before_it(change: str) -> None:
    world, oids = build(33, batch_transactions=100)
    world.snapshot()
    work(world, oids, 6)
    (keyed, *_) = oids
    match change:
        case "retype":
            world.postgres.rewrite(keyed, "n", pa.string(), str)
        case "key":
            world.postgres.rename_column(keyed, "id", "key")
        case _:
            change_schema(world, keyed, change)
    world.snapshot("public.keyed")
    for oid in oids:
        with world.postgres.transaction() as tx:
            touch(world, tx, oid)
    world.faults.calls.clear()
    world.cdc()
    assert "snapshot.begin" not in world.faults.calls
    world.assert_equal()


def test_a_new_table_that_is_locked_does_not_stop_the_others() -> None:
    world, oids = build(32)
    world.snapshot()
    locked, free = (world.postgres.create_table(name, COLUMNS) for name in ("locked", "free"))
    world.postgres.locked.add(locked)
    work(world, [*oids, locked, free], 6)
    with pytest.raises(TablesLocked, match=r"public\.locked; every other table is up to") as told:
        world.cdc()
    assert told.value.exit_code == 1
    assert "locked" not in world.lake.tables
    waiting = world.postgres.tables.pop(locked)
    world.assert_equal()
    world.postgres.tables[locked] = waiting
    with pytest.raises(TablesLocked, match=r"public\.locked; run again"):
        world.snapshot()
    world.snapshot("public.free")
    work(world, [*oids, locked], 4)
    world.postgres.locked.clear()
    world.cdc()
    world.assert_equal()


def test_a_new_table_that_may_not_be_published_does_not_stop_the_others() -> None:
    world, oids = build(34)
    world.snapshot()
    bad, free = (world.postgres.create_table(name, COLUMNS) for name in ("bad", "free"))
    world.postgres.refused.add(bad)
    work(world, [*oids, bad, free], 6)
    refused = r"public\.bad \(PostgreSQL refuses to publish.*ADD TABLE public\.bad"
    with pytest.raises(TablesRefused, match=refused):
        world.snapshot("public.bad")
    for run in (world.cdc, world.snapshot, world.cdc):
        with pytest.raises(TablesRefused, match=refused) as told:
            run()
        assert told.value.exit_code == 3
        assert "bad" not in world.lake.tables
        waiting = world.postgres.tables.pop(bad)
        world.assert_equal()
        world.postgres.tables[bad] = waiting
        work(world, [*oids, free], 2)
    world.postgres.refused.clear()
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("between", ["cdc", "snapshot"])
def test_a_followed_table_that_may_not_be_published_again(between: str) -> None:
    world, oids = build(35)
    world.snapshot()
    bad = oids[0]
    work(world, oids, 4)
    world.postgres.published.discard(bad)
    world.postgres.refused.add(bad)
    work(world, oids, 4)
    with pytest.raises(TablesRefused, match="refuses to publish"):
        getattr(world, between)()
    work(world, oids, 4)
    with pytest.raises(TablesRefused, match="refuses to publish"):
        world.cdc()
    world.postgres.refused.clear()
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("action", ["cdc", "snapshot"])
@pytest.mark.parametrize("change", NAME_CHANGES)
def test_names_follow_the_source_and_nothing_is_doubled(change: str, action: str) -> None:
    world, oids = build(21, batch_transactions=2)
    world.snapshot()
    work(world, oids, 4)
    change_names(world, oids, change)
    live = [oid for oid in oids if oid in world.postgres.tables]
    for oid in live:
        with world.postgres.transaction() as tx:
            touch(world, tx, oid)
    getattr(world, action)()
    world.assert_equal()
    assert_no_column_is_doubled(world)
    for oid in live:
        with world.postgres.transaction() as tx:
            touch(world, tx, oid)
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("action", ["cdc", "snapshot"])
@pytest.mark.parametrize("change", NAME_CHANGES)
def test_a_crash_while_names_are_followed_is_cured(change: str, action: str) -> None:
    call = 0
    reached = True
    while reached:
        world, oids = build(22, batch_transactions=2)
        world.snapshot()
        work(world, oids, 3)
        change_names(world, oids, change)
        reached = world.crashing(call, action)
        for oid in (oid for oid in oids if oid in world.postgres.tables):
            with world.postgres.transaction() as tx:
                touch(world, tx, oid)
        world.cdc()
        world.assert_equal()
        assert_no_column_is_doubled(world)
        call += 1
    assert call > 8


@pytest.mark.parametrize("change", NAME_CHANGES)
def test_a_snapshot_after_the_slot_was_dropped_follows_names(change: str) -> None:
    world, oids = build(29, batch_transactions=2)
    world.snapshot()
    world.postgres.slot = None
    change_names(world, oids, change)
    world.snapshot()
    world.assert_equal()
    assert_no_column_is_doubled(world)
    live = {table.relation.table.name for table in world.postgres.tables.values()}
    # What has the name of a dropped table is read anew there.
    assert world.lake.tables.keys() == live | ({"keyed"} if "dropped table" in change else set())
    work(world, [oids[2]], 3)
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("again", ["cdc", "snapshot"])
@pytest.mark.parametrize("change", ["swap tables", "rename"])
def test_a_crash_of_a_snapshot_after_the_slot_was_dropped_is_cured(change: str, again: str) -> None:
    call, reached = 0, True
    while reached:
        world, oids = build(30, batch_transactions=2)
        world.snapshot()
        work(world, oids, 2)
        world.postgres.slot = None
        work(world, oids, 2)
        change_names(world, oids, change)
        reached = world.crashing(call, "snapshot")
        work(world, [oids[2]], 2)
        try:
            getattr(world, again)()
        except ContinuityLost:
            world.snapshot()
        world.assert_equal()
        assert_no_column_is_doubled(world)
        call += 1
    assert call > 8


def test_tables_that_are_not_streamed_and_exchange_names_are_read_again() -> None:
    world, _ = build(31)
    first, second = (world.postgres.create_table(name, COLUMNS, key=()) for name in ("a", "b"))
    for number, oid in enumerate((first, second)):
        world.postgres.set_identity(oid, ReplicaIdentity.NOTHING)
        with world.postgres.transaction() as tx:
            tx.insert(oid, id=number, n=1, big="b")
    world.snapshot()
    world.postgres.rename_table(first, "spare")
    world.postgres.rename_table(second, "a")
    world.postgres.rename_table(first, "b")
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("action", ["cdc", "snapshot"])
def test_a_discarded_read_of_a_new_table_leaves_no_column(action: str) -> None:
    call, reached = 0, True
    while reached:
        world, oids = build(26, batch_transactions=2)
        world.snapshot()
        late = world.postgres.create_table("late", COLUMNS, toasted=("big",))
        with world.postgres.transaction() as tx:
            tx.insert(late, id=1, n=1, big="b")
        reached = world.crashing(call, action)
        change_schema(world, late, "rename")
        work(world, oids, 1)
        getattr(world, action)()
        world.assert_equal()
        assert_no_column_is_doubled(world)
        call += 1
    assert call > 5


@pytest.mark.parametrize("change", ["none", "add with default", "rename table"])
def test_a_table_that_the_destination_lost_is_read_again(change: str) -> None:
    """Also after a crash at any call, and where the source has changed its definition."""
    call, reached = 0, True
    while reached:
        world, oids = build(25, batch_transactions=2)
        world.snapshot()
        work(world, oids, 4)
        world.cdc()
        for lost in ("keyed", "heap"):
            assert world.lake.rows(lost)
            del world.lake.tables[lost]
        if change != "none":
            change_schema(world, oids[0], change)
        with world.postgres.transaction() as tx:
            touch(world, tx, oids[0])
        reached = world.crashing(call, "cdc")
        work(world, oids[1:], 2)
        world.cdc()
        world.assert_equal()
        call += 1
    assert call > 8


def test_a_lost_table_is_not_hidden_by_one_that_moves_out_of_its_new_name() -> None:
    world, (keyed, other, _) = build(27)
    world.snapshot()
    del world.lake.tables["keyed"]
    world.postgres.rename_table(other, "further")
    world.postgres.rename_table(keyed, "other")
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("dropped", [False, True])
def test_a_new_table_that_was_read_alone_is_not_taken_for_the_one_that_had_its_name(
    dropped: bool,
) -> None:
    world, (keyed, other, _) = build(28)
    world.snapshot()
    name = "further"
    if dropped:
        world.postgres.drop_table(other)
        name = "other"
    world.postgres.rename_table(keyed, name)
    new = world.postgres.create_table("keyed", COLUMNS, toasted=("big",))
    with world.postgres.transaction() as tx:
        tx.insert(new, id=1, n=1, big="new")
    world.snapshot("public.keyed")
    world.cdc()
    world.assert_equal()
    for oid in (keyed, new):
        with world.postgres.transaction() as tx:
            touch(world, tx, oid)
    world.cdc()
    world.assert_equal()


def test_unrepresentable_values_of_a_read_are_counted_in_the_warning() -> None:
    world, oids = build(23)
    world.snapshot()
    world.postgres.rewrite(oids[0], "n", pa.string(), str)
    with world.postgres.transaction() as tx:
        touch(world, tx, oids[1])
    source = world.source()
    begin = source.begin

    @contextmanager
    def with_one_odd_value(*, create_slot: bool) -> Iterator[object]:
        with begin(create_slot=create_slot) as snapshot:
            plain = snapshot.read

            def read(relation: Relation, part: str) -> Iterator[Chunk]:
                for number, piece in enumerate(plain(relation, part)):
                    odd = () if number else (Unrepresentable("big", 0, "infinity"),)
                    yield Chunk(piece.rows, odd)

            object.__setattr__(snapshot, "read", read)
            yield snapshot

    source.begin = with_one_odd_value  # type: ignore[method-assign,assignment]
    report = StreamChanges(source, source, source, InMemoryDestination(world.lake)).run()
    assert report.unrepresentable == 1
    assert len(world.lake.tables["_cdc_unrepresentable"].rows) == 1


def test_a_column_added_while_the_run_reads() -> None:
    """The stream knows more than the catalog did when the run began."""
    world, oids = build(7)
    world.snapshot()
    work(world, oids, 2)
    source = world.source()
    publish = source.publish
    asked = []

    def late() -> object:
        tables = publish()
        if not asked:
            asked.append(1)
            world.postgres.add_column(oids[0], "extra", pa.string())
            with world.postgres.transaction() as tx:
                tx.insert(oids[0], id=77, n=1, big="b", extra="e")
        return tables

    source.publish = late  # type: ignore[method-assign]
    StreamChanges(source, source, source, InMemoryDestination(world.lake)).run()
    world.cdc()
    world.assert_equal()


@pytest.mark.parametrize("moment", ["before the snapshot", "after the snapshot"])
@pytest.mark.parametrize("action", ["cdc", "snapshot"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_definition_that_changes_while_the_table_is_read(
    change: str, action: str, moment: str
) -> None:
    world, _ = build(7)
    world.snapshot()
    new = world.postgres.create_table("new", COLUMNS, toasted=("big",), labels=("y",))
    with world.postgres.transaction() as tx:
        tx.insert(new, id=1, n=1, big="y")
    source, done = world.source(), []

    def once() -> None:
        if not done:
            done.append(change)
            change_schema(world, new, change)
            with world.postgres.transaction() as tx:
                for row in list(world.postgres.tables[new].rows):
                    types = {
                        c.name: c.arrow_type for c in world.postgres.tables[new].relation.columns
                    }
                    own = [n for n in row if n not in ("id", "key")]
                    tx.update(
                        new, dict(row), **{n: "u" if types[n] == pa.string() else 9 for n in own}
                    )

    if moment == "after the snapshot":
        source.while_reading = once
    else:
        begin = source.begin

        def late(**how: bool) -> object:
            once()
            return begin(**how)

        source.begin = late  # type: ignore[method-assign, assignment]
    destination = InMemoryDestination(world.lake)
    if action == "cdc":
        StreamChanges(source, source, source, destination).run()
    else:
        TakeSnapshot(source, source, source, destination).run()
        world.cdc()
    world.assert_equal()
    assert all(table["status"] == "streaming" for table in (world.lake.checkpoint or {})["tables"])


def test_a_definition_that_never_rests_ends_the_run() -> None:
    world, _ = build(7)
    world.snapshot()
    new = world.postgres.create_table("new", COLUMNS)
    for use_case in (StreamChanges, TakeSnapshot):
        source = world.source()
        source.while_reading = lambda: world.postgres.add_column(
            new, f"c{world.postgres.lsn}", pa.string()
        )
        with pytest.raises(DefinitionChanged, match="new") as told:
            use_case(source, source, source, InMemoryDestination(world.lake)).run()
        assert told.value.exit_code == 1
    world.cdc()
    world.assert_equal()


FROZEN = {
    "add": "column extra added",
    "drop": "column n dropped",
    "rename": "column big renamed to large",
    "rename key": "column id renamed to key",
    "widen": "column n changed type",
    "rewrite": "column n changed type",
    "rename table": "table public.keyed renamed to public.renamed",
    "drop and add": "column big dropped, column big added",
    "take a dropped table's name": "table public.keyed renamed to public.other",
    "replace by a new table": "table public.keyed renamed to public.keyed_old",
}


@pytest.mark.parametrize("mended", ["by snapshot", "by evolve"])
@pytest.mark.parametrize("change", FROZEN)
def test_a_frozen_table_is_set_aside_and_the_others_go_on(change: str, mended: str) -> None:
    world, oids = build(8, batch_transactions=2)
    world.snapshot()
    held = world.lake.rows("keyed")
    work(world, oids[2:], 3)
    change_names(world, oids, change)
    with world.postgres.transaction() as tx:
        touch(world, tx, oids[0])
    for _ in range(2):
        work(world, oids[2:], 2)
        with pytest.raises(TablesNeedSnapshot, match=re.escape(FROZEN[change])) as told:
            world.cdc(freeze=True)
        assert 'pipeline.schema_changes = "evolve"' in told.value.cure
        # As it was, and the others are up to date.
        assert world.lake.rows("keyed") == held
        heap = world.postgres.tables[oids[2]]
        assert Counter(map(row_of, heap.rows)) == Counter(map(row_of, world.lake.rows("heap")))
    if mended == "by evolve":
        world.cdc()
    else:
        world.snapshot(*(str(t.relation.table) for t in world.postgres.tables.values()))
        world.cdc(freeze=True)
    world.assert_equal()


def test_a_frozen_table_continues_once_the_change_is_undone() -> None:
    world, oids = build(8)
    world.snapshot()
    world.postgres.add_column(oids[0], "extra", pa.string())
    with pytest.raises(TablesNeedSnapshot, match=r"public\.keyed .*column extra added"):
        world.cdc(freeze=True)
    world.postgres.drop_column(oids[0], "extra")
    work(world, oids, 4)
    world.cdc(freeze=True)
    world.assert_equal()
    assert "extra" not in world.lake.tables["keyed"].columns


def test_a_frozen_table_that_was_dropped_stays_as_it_was() -> None:
    world, oids = build(8)
    world.snapshot()
    held = world.lake.rows("keyed")
    world.postgres.drop_table(oids[0])
    world.cdc(freeze=True)
    assert world.lake.rows("keyed") == held
    world.postgres.create_table("keyed", {"id": pa.int64(), "other": pa.string()})
    world.cdc(freeze=True)
    world.assert_equal()


def test_a_frozen_table_that_was_created_again_is_named() -> None:
    world, oids = build(8)
    world.snapshot()
    held = world.lake.rows("keyed")
    world.postgres.drop_table(oids[0])
    world.postgres.create_table("keyed", {"id": pa.int64(), "other": pa.string()})
    with pytest.raises(TablesNeedSnapshot, match=r"public\.keyed .*table dropped"):
        world.cdc(freeze=True)
    assert world.lake.rows("keyed") == held
    world.cdc()
    world.cdc(freeze=True)
    world.assert_equal()


def test_history_that_is_gone_is_refused() -> None:
    world, oids = build(9)
    with pytest.raises(OperatorNeeded, match="no snapshot"):
        world.cdc()
    world.snapshot()
    good = world.postgres.slot
    cases = {"does not exist": None, "past the checkpoint": Lsn(world.postgres.lsn + 999)}
    for text, slot in cases.items():
        world.postgres.slot = slot
        with pytest.raises(ContinuityLost, match=text):
            world.cdc()
    world.postgres.slot = good
    world.postgres.system_id = "2"
    with pytest.raises(ContinuityLost, match="cluster 1"):
        world.cdc()
    world.snapshot()
    work(world, oids, 3)
    world.cdc()
    world.assert_equal()


def test_a_promoted_source_continues_if_it_has_everything_that_was_loaded() -> None:
    world, oids = build(9)
    world.snapshot()
    work(world, oids, 3)
    world.cdc()
    for timeline in (2, 3):
        world.postgres.left[world.postgres.timeline] = world.postgres.lsn
        world.postgres.timeline = timeline
        work(world, oids, 3)
        world.cdc()
        world.assert_equal()


@pytest.mark.parametrize("left", [None, 1])
def test_a_source_promoted_too_early_is_refused(left: int | None) -> None:
    world, oids = build(9)
    world.snapshot()
    world.postgres.left = {} if left is None else {1: Lsn(world.postgres.lsn - left)}
    world.postgres.timeline = 2
    with pytest.raises(ContinuityLost, match=r"timeline 1.*is on 2"):
        world.cdc()
    work(world, oids, 3)
    world.snapshot()
    work(world, oids, 3)
    world.cdc()
    world.assert_equal()


def test_a_copy_from_before_the_checkpoint_is_refused() -> None:
    world, _ = build(9)
    world.snapshot()
    world.postgres.slot = None
    world.postgres._lsn -= 1
    world.postgres.slot = world.postgres.lsn
    with pytest.raises(ContinuityLost, match="restored from a backup"):
        world.cdc()


def test_an_idle_database_does_not_pin_wal() -> None:
    world, _ = build(10)
    world.snapshot()
    end = world.postgres.write_wal(1 << 30)
    world.cdc()
    assert world.postgres.slot is not None
    assert world.postgres.slot >= end


def test_the_slot_never_passes_the_checkpoint() -> None:
    for call in range(60):
        world, oids = build(11, batch_transactions=1)
        world.snapshot()
        work(world, oids, 4)
        world.crashing(call, "cdc")
        assert world.lake.checkpoint is not None
        assert world.postgres.slot is not None
        assert world.postgres.slot <= Lsn.parse(world.lake.checkpoint["lsn"])


def test_an_error_of_the_destination_is_an_error_of_the_run() -> None:
    world, oids = build(12)
    world.snapshot()
    work(world, oids, 2)
    world.faults = FaultPlan(named={"destination.merge": CdcError("refused")})
    with pytest.raises(CdcError, match="refused"):
        world.cdc()
    world.faults = FaultPlan()
    world.cdc()
    world.assert_equal()


@dataclass
class AtEachRead(FaultPlan):
    """Calls `act` before each read of the stream, up to a number of times."""

    act: Callable[[], None] = lambda: None
    left: int = 50

    def pass_by(self, call: str) -> None:
        if call == "source.read":
            self.left -= 1
            assert self.left, "the run does not end"
            self.act()


def test_a_run_ends_though_tables_must_be_read_again_with_every_batch() -> None:
    """Guarantee 1: every table is at or past the position at which the run began."""
    world, (keyed, other, heap) = build(13)
    world.snapshot()
    numbers = iter(range(100, 1000))

    def rewrite() -> None:
        for oid in (keyed, other):
            n = next(numbers)
            world.postgres.add_column(oid, f"more_{n}", pa.string(), default="d")
            with world.postgres.transaction() as tx:
                tx.insert(oid, **{**dict.fromkeys(columns_of(oid)), "id": n})

    def columns_of(oid: int) -> tuple[str, ...]:
        return world.postgres.tables[oid].relation.column_names

    with world.postgres.transaction() as tx:
        tx.insert(heap, id=90, n=1, big="last")
    began, world.faults = world.postgres.lsn, AtEachRead(act=rewrite)
    world.cdc()
    world.faults = FaultPlan()
    checkpoint = Checkpoint.from_state(world.lake.checkpoint or {})
    assert checkpoint.lsn >= began
    waiting = [s for s in checkpoint.tables.values() if s.status is TableStatus.NEEDS_SNAPSHOT]
    assert {state.oid for state in waiting} <= {keyed, other}
    for state in waiting:
        assert state.snapshot_lsn >= began
        then = Counter(row_of(row) for row in world.postgres.seen[state.snapshot_lsn][state.oid])
        names = dict(next(iter(then), ())).keys()
        assert Counter(map(row_of, world.lake.rows(state.target, *names))) == then
    world.cdc()
    world.assert_equal()
