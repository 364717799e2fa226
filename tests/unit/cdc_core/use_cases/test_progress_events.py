"""The events of a run hold the figures that receipts and metrics need."""

from __future__ import annotations

from adapters.fakes import InMemoryDestination, RecordedProgress
from cdc_core.ports.progress import BatchLoaded, ChunkRead, TableFinished, TableStarted
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.values.changes import Operations
from tests.support.fake_world import COLUMNS, World


def world_with_a_table() -> tuple[World, int]:
    world = World()
    oid = world.postgres.create_table("keyed", COLUMNS)
    world.postgres.published.add(oid)
    return world, oid


def write(world: World, oid: int) -> None:
    """One change of each kind, and one of a key."""
    with world.postgres.transaction() as tx:
        for number in range(3):
            tx.insert(oid, id=number, n=0, big=None)
    table = world.postgres.tables[oid]
    with world.postgres.transaction() as tx:
        tx.update(oid, dict(table.rows[0]), n=5)
        tx.update(oid, dict(table.rows[1]), id=7)
        tx.delete(oid, **table.rows[2])


def test_a_full_load_names_tables_and_counts_rows() -> None:
    world, oid = world_with_a_table()
    write(world, oid)
    name = str(world.postgres.tables[oid].relation.table)
    source, progress = world.source(), RecordedProgress()
    lake = InMemoryDestination(world.lake)
    TakeSnapshot(source, source, source, lake, progress=progress).run()
    events = [e for e in progress.events if isinstance(e, TableStarted | ChunkRead | TableFinished)]
    assert isinstance(events[0], TableStarted)
    assert events[-1] == TableFinished(name)
    assert sum(e.rows for e in events if isinstance(e, ChunkRead)) == 2


def test_a_batch_counts_changes_by_table_and_kind_over_its_parts() -> None:
    for part_events in (None, 1):
        world, oid = world_with_a_table()
        world.snapshot()
        world.part_events = part_events
        write(world, oid)
        name = str(world.postgres.tables[oid].relation.table)
        source, progress = world.source(), RecordedProgress()
        lake = InMemoryDestination(world.lake)
        report = StreamChanges(source, source, source, lake, progress=progress).run()
        (loaded,) = [e for e in progress.events if isinstance(e, BatchLoaded)]
        assert loaded.tables == {name: Operations(inserts=3, updates=2, deletes=1)}
        assert (loaded.changes, loaded.transactions) == (report.changes, report.transactions)
        assert loaded.lsn is not None
        assert loaded.lsn <= report.lsn
        assert loaded.committed_at is not None
        assert loaded.seconds >= 0
