"""Following on a clock held by hand: when it looks, when it waits, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from adapters.fakes import FaultPlan, InMemoryDestination, ManualClock, RecordedProgress
from cdc_core.ports.progress import BatchLoaded
from cdc_core.use_cases.stream_changes import IDLE_BYTES, IDLE_SECONDS, LOOK_SECONDS, StreamChanges
from cdc_core.values.errors import OperatorNeeded, TablesNeedSnapshot
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import ReplicaIdentity
from tests.support.fake_world import COLUMNS, World, build, work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdc_core.ports.progress import Event
    from cdc_core.use_cases.stream_changes import StreamReport
    from cdc_core.values.changes import ChangeBatch
    from cdc_core.values.checkpoint import SourceIdentity


@dataclass
class Following:
    """A run that follows; `at` says what happens at the source in which pause."""

    world: World
    at: dict[int, Callable[[], object]]
    pauses: int
    clock: ManualClock = field(default_factory=ManualClock)
    progress: RecordedProgress = field(default_factory=RecordedProgress)

    def run(self) -> StreamReport:
        source = self.world.source()
        lake = InMemoryDestination(self.world.lake, self.world.faults)
        self.world.faults.calls.clear()
        return StreamChanges(
            source, source, source, lake, clock=self, progress=self.progress
        ).run(follow=True, stop=lambda: len(self.clock.sleeps) >= self.pauses)  # fmt: skip

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.at.get(len(self.clock.sleeps), lambda: None)()

    @property
    def calls(self) -> list[str]:
        return self.world.faults.calls


def world_after_snapshot() -> tuple[World, list[int]]:
    world, oids = build(3)
    world.snapshot()
    return world, oids


def insert(world: World, oid: int, id_: int) -> None:
    with world.postgres.transaction() as tx:
        tx.insert(oid, id=id_, n=1, big="b")


def test_changes_are_loaded_as_they_come() -> None:
    world, oids = world_after_snapshot()
    work(world, oids, 2)
    run = Following(world, {2: lambda: work(world, oids, 3), 4: lambda: work(world, oids, 1)}, 6)
    report = run.run()
    world.assert_equal()
    assert report.batches == 3
    assert run.clock.sleeps == [0.5] * 6


@pytest.mark.parametrize("table", [0, 2])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_column_dropped_meanwhile_is_seen_before_the_rows_change(
    table: int, renamed: bool
) -> None:
    """What is left of the columns fits the names that are known, but is not what they meant."""
    world, oids = world_after_snapshot()
    oid, postgres = oids[table], world.postgres
    for id_ in (60, 61, 62):
        with postgres.transaction() as tx:
            tx.insert(oid, id=id_, n=id_, big=f"b{id_}")

    def change() -> None:
        postgres.drop_column(oid, "n")
        if renamed:
            postgres.rename_column(oid, "big", "n")
        text = "n" if renamed else "big"
        with postgres.transaction() as tx:
            tx.delete(oid, id=60, **({} if table == 0 else {text: "b60"}))
            tx.insert(oid, **{"id": 63, text: "new"})

    Following(world, {2: change}, 5).run()
    world.assert_equal()


def test_a_run_that_ends_reads_up_to_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """A little more would cost the server as much again, where a large transaction comes first."""
    world, oids = world_after_snapshot()
    insert(world, oids[2], 1)
    source, began = world.source(), world.postgres.lsn
    identity, read, asked = source.identity, source.read, list[Lsn]()

    def while_beginning() -> SourceIdentity:
        insert(world, oids[2], 2)
        return identity()

    def noted(after: Lsn, until: Lsn, *more: Any) -> Iterator[ChangeBatch]:
        asked.append(until)
        return read(after, until, *more)

    monkeypatch.setattr(source, "identity", while_beginning)
    monkeypatch.setattr(source, "read", noted)
    StreamChanges(source, source, source, InMemoryDestination(world.lake, world.faults)).run()
    assert asked == [began]


def test_it_does_not_wait_while_there_is_more() -> None:
    world, oids = world_after_snapshot()

    class WritingOn(RecordedProgress):
        def emit(self, event: Event) -> None:
            super().emit(event)
            loaded = sum(isinstance(event, BatchLoaded) for event in self.events)
            if isinstance(event, BatchLoaded) and loaded < 5:
                insert(world, oids[2], loaded)

    run = Following(world, {1: lambda: insert(world, oids[2], 0)}, 2, progress=WritingOn())
    assert run.run().batches == 5
    assert run.clock.sleeps == [0.5] * 2
    world.assert_equal()


def test_an_idle_position_is_made_durable_now_and_then() -> None:
    world, _ = world_after_snapshot()
    positions: dict[Lsn, float] = {}
    pauses = int(3.5 * IDLE_SECONDS / 0.5)
    run = Following(world, {}, pauses)

    def tick() -> None:
        world.postgres.write_wal(64)
        assert world.postgres.slot is not None
        positions.setdefault(world.postgres.slot, run.clock.now)

    run.at = dict.fromkeys(range(1, pauses), tick)
    run.run()
    moments = list(positions.values())[1:]
    assert len(moments) == 3
    steps = [later - sooner for sooner, later in zip([0.0, *moments], moments, strict=False)]
    assert all(IDLE_SECONDS <= step <= IDLE_SECONDS + 1.5 for step in steps)


def test_other_databases_wal_moves_the_position() -> None:
    world, _ = world_after_snapshot()
    before = world.postgres.slot
    seen = []
    run = Following(
        world,
        {
            2: lambda: world.postgres.write_wal(IDLE_BYTES - 4096),
            4: lambda: seen.append(world.postgres.slot),
            5: lambda: world.postgres.write_wal(8192),
            7: lambda: seen.append(world.postgres.slot),
        },
        8,
    )
    run.run()
    assert before is not None
    assert seen[0] == before
    assert seen[1] >= before + IDLE_BYTES


def test_following_finds_new_tables() -> None:
    world, _ = world_after_snapshot()
    pauses = int(LOOK_SECONDS / 0.5)

    def create() -> None:
        insert(world, world.postgres.create_table("late", COLUMNS), 1)

    run = Following(world, {1: create}, pauses + 3)
    run.run()
    world.assert_equal()
    assert run.calls.count("catalog.publish") == 2
    assert any("late: new table" in note for note in run.progress.notes)
    short = Following(*(world_after_snapshot()[0], {}, pauses - 1))
    short.run()
    assert short.calls.count("catalog.publish") == 1


def test_stopping_ends_after_the_batch_in_hand() -> None:
    world, oids = world_after_snapshot()
    world.batch_transactions = 1
    for number in range(5):
        insert(world, oids[2], number)
    source = world.source()
    report = StreamChanges(
        source, source, source, InMemoryDestination(world.lake, world.faults)
    ).run(follow=True, stop=lambda: "destination.load.done" in world.faults.calls[-20:])
    assert 0 <= report.batches < 5
    assert world.postgres.slot == Lsn.parse(world.lake.checkpoint["lsn"])
    world.faults.calls.clear()
    world.cdc()
    world.assert_equal()


def test_a_run_that_is_stopped_at_once_still_confirms_what_is_durable() -> None:
    world, oids = world_after_snapshot()
    work(world, oids, 2)
    report = Following(world, {}, 0).run()
    assert report.lsn == Lsn.parse(world.lake.checkpoint["lsn"]) == world.postgres.slot


def test_tables_that_wait_for_an_operator_are_named_at_the_end() -> None:
    world, oids = world_after_snapshot()
    world.postgres.rewrite(oids[0], "n", COLUMNS["big"], lambda n: f"<{n}>")
    world.faults = FaultPlan(named={"snapshot.read": OperatorNeeded("permission denied")})
    run = Following(world, {1: lambda: insert(world, oids[1], 77)}, 4)
    with pytest.raises(TablesNeedSnapshot, match=r"public\.keyed"):
        run.run()
    assert any(row["id"] == 77 for row in world.lake.rows("other"))


def test_tables_that_are_not_streamed_are_warned_of_once() -> None:
    world, oids = world_after_snapshot()
    quiet = world.postgres.create_table("quiet one", COLUMNS, identity=ReplicaIdentity.NOTHING)
    late: list[int] = []

    def another() -> None:
        nothing = ReplicaIdentity.NOTHING
        late.append(world.postgres.create_table("late", COLUMNS, identity=nothing))

    looks = int(3 * LOOK_SECONDS / 0.5) + 3
    run = Following(world, {2: lambda: insert(world, oids[1], 77), 3: another}, looks)
    run.run()
    first, second = (text for text in run.progress.warnings if "not streamed" in text)
    assert "public.quiet one it has no replica identity; run: ALTER TABLE" in first
    assert first.endswith("pgbronze snapshot --tables 'public.quiet one'")
    assert "public.late" in second
    assert "quiet" not in second
    assert quiet
    assert late
