"""Soft deletes against a model that applies one change at a time: equal in every column, marks
included, wherever batches and their parts are cut, and whatever is sent twice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.settings import PipelineSettings
from adapters.fakes import InMemoryDestination, InMemoryMonitor
from cdc_core.fold import multi_part_batch
from cdc_core.use_cases.show_status import ShowStatus
from cdc_core.values.merges import LoadBatch
from cdc_core.values.relation import ReplicaIdentity
from cdc_core.values.table_rules import Rule
from tests.support.fake_world import COLUMNS, RuledWorld, work
from tests.support.soft_delete_model import METADATA, SoftDeletes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from adapters.fakes.postgres import Row
    from cdc_core.ports.destination import Destination
    from cdc_core.values.checkpoint import Checkpoint

SOFT = Rule(("*",), deletes="soft")
TABLES = ("keyed", "other", "whole")


def test_status_counts_live_rows_and_marked_ones() -> None:
    world = RuledWorld(rules=(Rule(("public.soft",), deletes="soft"),))
    for name in ("soft", "hard"):
        oid = world.postgres.create_table(name, COLUMNS)
        with world.postgres.transaction() as tx:
            for key in (1, 2, 3):
                tx.insert(oid, id=key, n=1, big="x")
            tx.delete(oid, id=2)
    world.snapshot()
    for table in world.postgres.tables.values():
        with world.postgres.transaction() as tx:
            tx.delete(table.relation.oid, id=3)
    world.cdc()
    parts = world.parts()
    monitor = InMemoryMonitor(world.postgres)
    report = ShowStatus(monitor, parts["catalog"], parts["destination"]).run()
    counts = {line.table: (line.rows, line.deleted_rows) for line in report.tables}
    assert counts == {"public.hard": (1, None), "public.soft": (1, 1)}


@dataclass
class SentTwice:
    """A destination to which merges are sent again after a load: these, or earlier ones."""

    inner: Any
    random: random.Random
    sent: list[LoadBatch] = field(default_factory=list)

    def __enter__(self) -> SentTwice:
        self.inner.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.inner.__exit__(*exc)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        merges = [
            replace(
                merge,
                rows=pa.concat_tables([merge.rows, *(part.read() for part in merge.staged)]),
                staged=(),
            )
            for merge in batch.merges
        ]
        self.sent.append(LoadBatch(merges=tuple(merges)))
        self.inner.load(batch, checkpoint)
        again = self.random.choice(self.sent[-3:])
        if again.merges:
            self.inner.load(again, checkpoint)


@dataclass
class SoftWorld(RuledWorld):
    rules: tuple[Rule, ...] = (SOFT,)
    opened: Callable[[], Destination] | None = None
    models: dict[int, SoftDeletes] = field(default_factory=dict)
    #: Transactions of the WAL that the models have.
    applied: int = 0

    def destination(self) -> Destination:
        inner = self.opened() if self.opened else InMemoryDestination(self.lake, self.faults)
        return SentTwice(inner, self.random)  # type: ignore[return-value]

    def begin(self) -> None:
        self.snapshot()
        (lsn,) = self.postgres.seen
        for oid, rows in self.postgres.seen[lsn].items():
            key = self.postgres.tables[oid].relation.key
            self.models[oid] = SoftDeletes(key, rows, int(lsn), self.postgres.now)
        self.applied = len(self.postgres.wal)

    @property
    def only_streamed(self) -> bool:
        """Whether no table was read again: then it is marked as of that moment."""
        return len(self.postgres.seen) == 1

    def held(self, name: str) -> list[Row]:
        names = [*COLUMNS, *METADATA]
        with self.destination() as destination:
            return [row for part in destination.scan(name, names) for row in part.to_pylist()]

    def assert_exact(self) -> None:
        for transaction in self.postgres.wal[self.applied :]:
            for oid, model in self.models.items():
                model.apply(transaction, oid)
        self.applied = len(self.postgres.wal)
        for oid, model in self.models.items():
            name = self.postgres.tables[oid].relation.table.name
            assert rows_of(self.held(name)) == rows_of(model.rows.values()), name


def rows_of(rows: Any) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row[name] for name in (*COLUMNS, *METADATA)) for row in rows)


def build(
    seed: int, opened: Callable[[], Destination] | None = None, *, toasted: bool = True
) -> tuple[SoftWorld, list[int]]:
    unsent = ("big",) if toasted else ()
    world = SoftWorld(random=random.Random(seed), opened=opened)
    oids = [
        world.postgres.create_table("keyed", COLUMNS, toasted=unsent),
        world.postgres.create_table("other", COLUMNS, key=("id", "n"), toasted=unsent),
        world.postgres.create_table("whole", COLUMNS, identity=ReplicaIdentity.FULL),
    ]
    world.postgres.published.update(oids)
    work(world, oids, 4)
    world.begin()
    return world, oids


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), toasted=st.booleans(), data=st.data())
def test_marked_rows_do_not_depend_on_the_cuts(
    seed: int, toasted: bool, data: st.DataObject
) -> None:
    world, oids = build(seed, toasted=toasted)
    for _ in range(data.draw(st.integers(1, 3))):
        work(world, oids, data.draw(st.integers(1, 12)))
        world.batch_transactions = data.draw(st.integers(1, 12))
        world.cdc()
    world.assert_exact()


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), toasted=st.booleans(), data=st.data())
def test_marked_rows_do_not_depend_on_the_parts(
    seed: int, toasted: bool, data: st.DataObject
) -> None:
    world, oids = build(seed, toasted=toasted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_part_batch, "HELD_BYTES", data.draw(st.sampled_from([0, 400, 1 << 20])))
        patch.setattr(multi_part_batch, "REGROUP_ROWS", data.draw(st.sampled_from([1, 3, 1 << 20])))
        for _ in range(2):
            work(world, oids, data.draw(st.integers(1, 12)))
            world.batch_transactions = data.draw(st.integers(1, 12))
            world.part_events = data.draw(st.integers(1, 12))
            world.cdc()
    if world.only_streamed:
        world.assert_exact()
    else:
        assert toasted  # keys changed all over a batch


def test_marked_rows_do_not_depend_on_the_cuts_in_duckdb(tmp_path: Path) -> None:
    """Its merges have more tests, without a run around them, in
    `tests/unit/adapters/dlt_destination/duckdb`."""
    where = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
    world, oids = build(5, lambda: duckdb_destination(where, str(tmp_path / "lake.duckdb")))
    work(world, oids, 12)
    world.batch_transactions = 7
    world.cdc()
    world.assert_exact()


@pytest.mark.parametrize("seed", range(20))
def test_a_stale_checkpoint_marks_the_same_rows(seed: int) -> None:
    world, oids = build(seed)
    slot, checkpoint = world.postgres.slot, world.lake.checkpoint
    world.batch_transactions = 1 + seed % 4
    work(world, oids, 8)
    world.cdc()
    world.assert_exact()
    work(world, oids, 3)
    world.postgres.slot, world.lake.checkpoint = slot, checkpoint
    world.batch_transactions = 3
    world.cdc()
    world.assert_exact()


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_at_any_port_call_marks_the_same_rows(seed: int) -> None:
    call, reached = 0, True
    while reached:
        world, oids = build(seed)
        world.batch_transactions, world.part_events = 2, [None, 2, 5][seed]
        work(world, oids, 6)
        reached = world.crashing(call, "cdc")
        work(world, oids, 3)
        world.batch_transactions = 3
        world.cdc()
        if world.only_streamed:
            world.assert_exact()
        call += 1
    assert call > 15
