"""A full load that was killed: the next one keeps the tables that were done, and ends exact."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.fakes import FaultPlan, InjectedCrash, InMemoryDestination, Lake
from adapters.fakes.snapshot import InMemorySnapshot
from cdc_core.full_load import read_tables
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.values.checkpoint import Checkpoint
from cdc_core.values.errors import DestinationForbidden, OperatorNeeded, TablesNeedSnapshot
from cdc_core.values.relation import ReplicaIdentity
from tests.support.fake_world import World, build, change_schema, work

if TYPE_CHECKING:
    from cdc_core.use_cases.take_snapshot import SnapshotReport
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Relation


@pytest.fixture(autouse=True)
def every_table_is_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_tables, "GROUP_TABLES", 1)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Oids of the tables that are read, in order."""
    found: list[int] = []
    plain = InMemorySnapshot.read

    def noting(self: InMemorySnapshot, relation: Relation, *part: str) -> Any:
        found.append(relation.oid)
        return plain(self, relation, *part)

    monkeypatch.setattr(InMemorySnapshot, "read", noting)
    return found


def take(world: World) -> SnapshotReport:
    source = world.source()
    return TakeSnapshot(source, source, source, InMemoryDestination(world.lake)).run()


def done(world: World) -> set[int]:
    """Tables that a full load has come to and that the next run may keep."""
    if world.lake.checkpoint is None:
        return set()
    checkpoint = Checkpoint.from_state(world.lake.checkpoint)
    return {oid for oid in checkpoint.tables if checkpoint.loaded(oid)}


def first(world: World, oids: list[int]) -> None:
    pass


def again(world: World, oids: list[int]) -> None:
    world.snapshot()
    work(world, oids, 3)


def after_the_slot_was_lost(world: World, oids: list[int]) -> None:
    again(world, oids)
    world.postgres.slot = None


@pytest.mark.parametrize("before", [first, again, after_the_slot_was_lost])
@pytest.mark.parametrize("meanwhile", ["", "rewrite", "rename", "rename table", "drop and add"])
def test_a_kill_at_any_call(before: Any, meanwhile: str, read: list[int]) -> None:
    call, reached, kept = 0, True, set()
    while reached:
        world, oids = build(31, batch_transactions=2)
        before(world, oids)
        reached = world.crashing(call, "snapshot")
        work(world, oids, 4)
        if meanwhile:
            change_schema(world, oids[0], meanwhile)
        there = done(world)
        read.clear()
        report = take(world)
        world.assert_equal()
        assert done(world) == set()
        if not meanwhile:
            work(world, oids, 2)
            assert sorted(read) == sorted({*oids} - there)
            assert report.kept == len(there)
        kept.add(len(there))
        world.cdc()
        world.assert_equal()
        call += 1
    assert kept == {0, 1, 2, 3}


@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 10**6), kills=st.lists(st.integers(0, 40), max_size=4))
def test_kills_one_after_another(seed: int, kills: list[int]) -> None:
    world, oids = build(seed, batch_transactions=2)
    for call in kills:
        world.crashing(call, "snapshot")
        work(world, oids, 3)
        position = world.lake.checkpoint and Checkpoint.from_state(world.lake.checkpoint).lsn
        assert world.postgres.slot is None or position is None or world.postgres.slot <= position
    world.snapshot()
    world.assert_equal()
    work(world, oids, 3)
    world.cdc()
    world.assert_equal()


def killed_after_two_tables(seed: int = 33) -> tuple[World, list[int]]:
    call = 0
    while True:
        world, oids = build(seed)
        assert world.crashing(call, "snapshot")
        if len(done(world)) == 2:
            return world, oids
        call += 1


def test_the_run_says_what_it_keeps() -> None:
    world, oids = killed_after_two_tables()
    (unread,) = {*oids} - done(world)
    position = world.postgres.lsn
    report = take(world)
    assert (report.tables, report.kept) == (3, 2)
    assert report.lsn >= position
    assert report.rows == len(world.postgres.tables[unread].rows)


def test_after_the_stream_a_full_load_is_a_full_load(read: list[int]) -> None:
    world, oids = killed_after_two_tables()
    world.cdc()
    world.assert_equal()
    world.lake.tables["keyed"].rows.clear()
    read.clear()
    world.snapshot()
    world.assert_equal()
    assert sorted(read) == sorted(oids)


def test_tables_named_are_read_whatever_is_done(read: list[int]) -> None:
    world, oids = killed_after_two_tables()
    world.lake.tables["keyed"].rows.clear()
    read.clear()
    world.snapshot("public.keyed")
    assert read == [oids[0]]
    assert len(done(world)) == 2
    world.snapshot()
    world.assert_equal()


def test_nothing_is_kept_when_the_slot_is_another(read: list[int]) -> None:
    world, oids = killed_after_two_tables()
    work(world, oids, 3)
    world.postgres.slot = world.postgres.write_wal()
    read.clear()
    assert take(world).kept == 0
    assert sorted(read) == sorted(oids)
    world.assert_equal()


def test_a_table_that_is_not_streamed_is_read_again(read: list[int]) -> None:
    world, oids = killed_after_two_tables()
    world.postgres.published.discard(oids[0])
    world.postgres.set_identity(oids[0], ReplicaIdentity.NOTHING)
    with world.postgres.transaction() as tx:
        tx.insert(oids[0], id=99, n=1, big="not told by the stream")
    read.clear()
    take(world)
    assert oids[0] in read
    world.assert_equal()


def test_a_table_that_may_not_be_read_is_named_and_the_rest_is_kept() -> None:
    world, _ = killed_after_two_tables()
    there = done(world)
    world.faults = FaultPlan(named={"snapshot.read": OperatorNeeded("permission denied")})
    with pytest.raises(TablesNeedSnapshot):
        world.snapshot()
    world.faults = FaultPlan()
    assert done(world) == there
    assert take(world).kept == 2
    world.assert_equal()


def test_an_error_keeps_as_a_kill_does() -> None:
    world, _ = killed_after_two_tables()
    world.faults = FaultPlan(named={"destination.replace": InjectedCrash()})
    with suppress(InjectedCrash):
        world.snapshot()
    world.postgres.writer = None
    world.faults = FaultPlan()
    assert take(world).kept == 2
    world.assert_equal()


@pytest.mark.parametrize("kills", range(6, 24, 3))
def test_the_stream_after_a_going_on_that_was_killed(kills: int) -> None:
    """It skips changes of tables that it was about to read; a later run must not take them for
    loaded."""
    call, reached = 0, True
    while reached:
        world, oids = build(35, batch_transactions=1)
        world.snapshot()
        work(world, oids, 3)
        world.crashing(kills, "snapshot")
        work(world, oids, 3)
        reached = world.crashing(call, "snapshot")
        world.cdc()
        world.assert_equal()
        call += 1


@pytest.mark.parametrize("back", [False, True])
def test_tables_that_exchange_names_before_one_is_read_once_more(back: bool) -> None:
    """One is read into the place of the other, whose rows are gone then: that one is read again,
    even if the run died and the names are as before by then."""
    call, reached = 0, True
    while reached:
        world, (keyed, other, _) = build(36)
        world.snapshot()
        postgres = world.postgres
        world.faults = FaultPlan(at={call: InjectedCrash()})
        source, once = world.source(), iter([True])
        source.while_reading = lambda postgres=postgres, once=once, keyed=keyed: (
            next(once, False) and postgres.add_column(keyed, "extra", pa.string())
        )
        confirm = source.confirm

        def confirm_and_exchange(lsn: Lsn, confirm=confirm, world=world) -> None:  # type: ignore[no-untyped-def]
            confirm(lsn)
            exchange(world, "keyed", "other")

        source.confirm = confirm_and_exchange  # type: ignore[method-assign]
        destination = InMemoryDestination(world.lake, world.faults)
        try:
            TakeSnapshot(source, source, source, destination).run()
            reached = False
        except InjectedCrash:
            postgres.writer = None
        world.faults = FaultPlan()
        if back and postgres.tables[keyed].relation.table.name == "other":
            exchange(world, "keyed", "other")
        for _ in range(2):
            world.cdc()
            world.assert_equal()
            work(world, [other], 3)
        call += 1
    assert call > 20


def exchange(world: World, one: str, two: str) -> None:
    """Two tables exchange their names."""
    oids = {t.relation.table.name: oid for oid, t in world.postgres.tables.items()}
    for oid, name in ((oids[one], "spare"), (oids[two], one), (oids[one], two)):
        world.postgres.rename_table(oid, name)


def test_a_table_dropped_before_an_unfinished_load_goes_on() -> None:
    world, (keyed, _, _) = build(37)
    call = 0
    while world.lake.checkpoint is None:
        world, (keyed, _, _) = build(37)
        world.crashing(call, "snapshot")
        call += 1
    assert keyed not in done(world)
    source = world.source()
    publish, asked = source.publish, []

    def publish_and_drop() -> Any:
        found = publish()
        if not asked:
            asked.append(world.postgres.drop_table(keyed))
        return found

    source.publish = publish_and_drop  # type: ignore[method-assign]
    TakeSnapshot(source, source, source, InMemoryDestination(world.lake)).run()
    world.cdc()
    world.assert_equal()


def test_a_destination_that_cannot_be_written_costs_no_slot() -> None:
    """As with a typing error in the name of the destination: it has no checkpoint."""
    world, _ = build(1)
    world.snapshot()
    slot = world.postgres.slot
    elsewhere = World(world.postgres, Lake())
    refused = DestinationForbidden("no rights", "grant them")
    elsewhere.faults = FaultPlan(named={"destination.try_writing": refused})
    with pytest.raises(DestinationForbidden):
        elsewhere.snapshot()
    assert world.postgres.slot == slot
    world.cdc()
