"""Followed tables: what is loaded besides rows, how often tables are read, what is frozen."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from adapters.fakes import FaultPlan, InMemoryDestination
from cdc_core.tables.fold_batch import BatchFolding
from cdc_core.tables.followed_tables import FollowedTables
from cdc_core.use_cases.stream_changes import LOOK_SECONDS, StreamChanges
from cdc_core.values.changes import Op, Unrepresentable
from cdc_core.values.checkpoint import Checkpoint, TableStatus
from cdc_core.values.errors import (
    DestinationRefused,
    OperatorNeeded,
    SettingsError,
    TablesNeedSnapshot,
)
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import ReplicaIdentity
from tests.support.fake_world import COLUMNS, World, build
from tests.unit.cdc_core.use_cases.test_follow import Following, insert


def loads(world: World) -> int:
    return world.faults.calls.count("destination.load")


def status(world: World, table: str) -> tuple[TableStatus, str]:
    assert world.lake.checkpoint is not None
    states = Checkpoint.from_state(world.lake.checkpoint).tables.values()
    return next((s.status, s.reason) for s in states if s.target == table)


def loaded(seed: int = 1) -> tuple[World, list[int]]:
    world, oids = build(seed)
    world.snapshot()
    world.faults.calls.clear()
    return world, oids


def test_a_run_without_changes_loads_the_position_alone() -> None:
    world, _ = loaded()
    world.cdc()
    assert loads(world) == 0
    world.postgres.write_wal()
    world.cdc()
    assert loads(world) == 1


def test_changes_of_a_batch_are_one_load_with_its_position() -> None:
    world, oids = loaded()
    for oid in oids:
        insert(world, oid, 50)
    world.cdc()
    assert loads(world) <= 2  # the rows, and what WAL follows them
    assert world.faults.calls.count("destination.merge") == 3


def test_a_definition_is_loaded_once_even_without_rows() -> None:
    world, oids = loaded()
    world.postgres.add_column(oids[0], "extra", pa.string())
    world.cdc()
    assert "extra" in world.lake.tables["keyed"].columns
    world.faults.calls.clear()
    world.cdc()
    assert "destination.merge" not in world.faults.calls
    assert loads(world) <= 1


@pytest.mark.parametrize("identity", [ReplicaIdentity.NOTHING, ReplicaIdentity.DEFAULT])
def test_a_table_that_cannot_be_streamed_any_more_is_said_so_until_it_can(
    identity: ReplicaIdentity,
) -> None:
    world, oids = loaded()
    heap = oids[2]
    # What was told while it was published is not lost.
    insert(world, heap, 59)
    world.postgres.set_identity(heap, identity)
    world.cdc()
    world.assert_equal()
    before = world.lake.rows("heap")
    assert status(world, "heap")[0] is TableStatus.NOT_STREAMED
    assert "REPLICA IDENTITY FULL" in status(world, "heap")[1]
    insert(world, heap, 60)
    insert(world, oids[0], 60)
    world.faults.calls.clear()
    world.cdc()
    assert "snapshot.begin" not in world.faults.calls
    assert world.lake.rows("heap") == before
    assert any(row["id"] == 60 for row in world.lake.rows("keyed"))
    world.faults.calls.clear()
    world.cdc()
    assert loads(world) == 0

    world.postgres.set_identity(heap, ReplicaIdentity.FULL)
    world.cdc()
    assert status(world, "heap") == (TableStatus.STREAMING, "")
    world.assert_equal()
    world.faults.calls.clear()
    world.cdc()
    assert "snapshot.begin" not in world.faults.calls


def test_new_tables_are_no_change_of_schema_to_refuse() -> None:
    world, _ = loaded()
    insert(world, world.postgres.create_table("late", COLUMNS), 1)
    source = world.source()
    destination = InMemoryDestination(world.lake)
    report = StreamChanges(source, source, source, destination, freeze_schema=True).run()
    assert report.tables_read == 1
    world.assert_equal()


@pytest.mark.parametrize("change", ["renamed", "column dropped", "rewritten"])
def test_a_frozen_schema_refuses_every_change_of_a_known_table(change: str) -> None:
    world, oids = loaded()
    match change:
        case "renamed":
            world.postgres.rename_table(oids[1], "another")
        case "column dropped":
            world.postgres.drop_column(oids[1], "n")
        case "rewritten":
            world.postgres.rewrite(oids[1], "n", pa.string(), str)
    held = world.lake.rows("other")
    source = world.source()
    frozen = StreamChanges(
        source, source, source, InMemoryDestination(world.lake), freeze_schema=True
    )
    with pytest.raises(TablesNeedSnapshot, match=r"freeze.*public\.other"):
        frozen.run()
    assert world.lake.rows("other") == held
    world.cdc()
    world.assert_equal()


def test_a_refused_read_is_tried_once_per_run() -> None:
    world, oids = loaded()
    world.postgres.rewrite(oids[0], "n", pa.string(), str)
    world.faults = FaultPlan(named={"snapshot.read": OperatorNeeded("permission denied")})
    looks = int(2 * LOOK_SECONDS / 0.5) + 3
    with pytest.raises(TablesNeedSnapshot):
        Following(world, {}, looks).run()
    assert world.faults.calls.count("catalog.publish") == 3
    assert world.faults.calls.count("snapshot.begin") == 1
    assert status(world, "keyed")[0] is TableStatus.NEEDS_SNAPSHOT
    world.faults = FaultPlan()
    world.cdc()
    world.assert_equal()


def test_a_dropped_table_is_noted_once() -> None:
    world, oids = loaded()
    world.postgres.drop_table(oids[1])
    run = Following(world, {}, int(2 * LOOK_SECONDS / 0.5) + 3)
    run.run()
    assert [note for note in run.progress.notes if "dropped" in note] == [
        "public.other: dropped; its data stays"
    ]
    assert status(world, "other")[0] is TableStatus.DROPPED
    world.faults.calls.clear()
    world.cdc()
    assert loads(world) == 0


def test_unrepresentable_values_belong_to_the_rows_that_bring_them() -> None:
    world, oids = loaded()
    keyed = oids[0]
    with world.postgres.transaction() as tx:
        tx.insert(keyed, id=70, n=1, big="x")
        tx.update(keyed, {"id": 70}, id=71)
        tx.delete(keyed, id=71)
    with world.postgres.transaction() as tx:
        tx.insert(keyed, id=72, n=1, big="y")
    with world.source() as source:
        state = Checkpoint.from_state(world.lake.checkpoint or {})
        batches = list(source.read(state.lsn, source.current_lsn(), {keyed}))
    (batch,) = [batch for batch in batches if batch.changes]
    (changes,) = batch.tables
    assert [Op(op).name for op in changes.op] == ["INSERT", "DELETE", "UPDATE", "DELETE", "INSERT"]
    odd = tuple(Unrepresentable("big", row, f"infinity {row}") for row in range(len(changes)))
    told = replace(batch, tables=[replace(changes, unrepresentable=odd)])

    def apply(snapshot_lsn: int) -> tuple[list[str], int]:
        tables = {
            oid: replace(s, snapshot_lsn=Lsn(snapshot_lsn)) for oid, s in state.tables.items()
        }
        source = world.source()
        followed = FollowedTables(
            replace(state, tables=tables),
            "public",
            source,
            lambda: world.postgres.lsn,
            InMemoryDestination(world.lake).columns,
        )
        followed.compare(world.source().tables())
        load = BatchFolding(followed, InMemoryDestination(world.lake, world.faults).stage).apply(
            told
        )
        assert load is not None
        cells = [text for c in load.unrepresentable for text in c.column("value_text").to_pylist()]
        return cells, sum(map(len, load.unrepresentable))

    first, last = int(changes.commit_lsn[0]), int(changes.commit_lsn[-1])
    # What a DELETE carries brings nothing; what the snapshot holds was told by its reading.
    assert apply(first) == (["infinity 0", "infinity 2", "infinity 4"], 3)
    assert apply(first + 1) == (["infinity 4"], 1)
    assert apply(last) == (["infinity 4"], 1)
    assert apply(last + 1) == ([], 0)


@pytest.mark.parametrize("change", ["table", "column"])
def test_unrepresentable_values_follow_a_rename_of_their_table(
    change: str,
) -> None:
    world, (keyed, *_) = loaded()
    insert(world, keyed, 70)
    with world.source() as source:
        state = Checkpoint.from_state(world.lake.checkpoint or {})
        batches = list(source.read(state.lsn, source.current_lsn(), {keyed}))
    (batch,) = [batch for batch in batches if batch.changes]
    (changes,) = batch.tables
    odd = (Unrepresentable("big", 0, "infinity"),)
    part = replace(batch, tables=[replace(changes, unrepresentable=odd)], complete=False)
    followed = FollowedTables(
        state,
        "public",
        source,
        lambda: world.postgres.lsn,
        InMemoryDestination(world.lake).columns,
    )
    followed.compare(world.source().tables())
    folding = BatchFolding(followed, InMemoryDestination(world.lake, world.faults).stage)
    assert folding.apply(part) is None
    if change == "table":
        world.postgres.rename_table(keyed, "renamed")
    else:
        world.postgres.rename_column(keyed, "big", "huge")
    followed.compare(world.source().tables())
    load = folding.apply(replace(batch, tables=[]))
    assert load is not None
    assert not load.unrepresentable
    assert keyed in followed.to_read


def test_a_key_that_the_stream_has_no_longer_is_read_again() -> None:
    """The key that changes name is not the one that the destination's rows are held by."""
    world, oids = loaded()
    insert(world, oids[0], 80)
    table = world.postgres.tables[oids[0]]
    table.relation = replace(table.relation, key=("n",))
    table.definition += 1
    for number, row in enumerate(table.rows):
        row["n"] = number
    insert_with_n(world, oids[0], 81, 99)
    world.faults.calls.clear()
    world.cdc()
    assert "snapshot.begin" in world.faults.calls
    world.assert_equal()
    insert_with_n(world, oids[0], 81, 100)
    world.cdc()
    world.assert_equal()


def insert_with_n(world: World, oid: int, id_: int, n: int) -> None:
    with world.postgres.transaction() as tx:
        tx.insert(oid, id=id_, n=n, big="b")


def test_rows_that_were_only_copied_to_other_files_are_not_read_again() -> None:
    world, oids = loaded()
    insert(world, oids[0], 80)
    world.postgres.vacuum_full(oids[0])
    insert(world, oids[0], 81)
    world.cdc()
    assert "snapshot.begin" not in world.faults.calls
    world.assert_equal()
    world.faults.calls.clear()
    world.cdc()
    assert "catalog.settled" not in world.faults.calls


def test_what_was_done_while_a_table_was_unlogged_is_read() -> None:
    world, oids = loaded()
    world.postgres.unlogged(oids[0], {"id": 90, "n": 1, "big": "not in the WAL"})
    world.postgres.vacuum_full(oids[0])
    world.cdc()
    assert "snapshot.begin" in world.faults.calls
    world.assert_equal()


def test_a_checkpoint_without_a_horizon_knows_nothing_of_rows() -> None:
    world, oids = loaded()
    world.postgres.vacuum_full(oids[0])
    assert world.lake.checkpoint is not None
    world.lake.checkpoint.pop("horizon")
    world.cdc()
    assert "snapshot.begin" in world.faults.calls
    world.assert_equal()


def test_a_schema_that_is_renamed_ends_the_run_until_the_setting_is() -> None:
    world, oids = loaded()
    for oid in oids:
        relation = world.postgres.tables[oid].relation
        named = replace(relation, table=replace(relation.table, schema="a"))
        world.postgres.tables[oid].relation = named
    world.postgres.schemas = {"a", "a__b"}
    with pytest.raises(SettingsError, match="'public', which was renamed to 'a'") as told:
        world.cdc()
    assert '["a", "a__b"]' in told.value.cure
    assert status(world, "keyed")[0] is TableStatus.STREAMING


def test_a_table_that_is_elsewhere_is_said_to_be_there() -> None:
    world, oids = loaded()
    relation = world.postgres.tables[oids[1]].relation
    named = replace(relation, table=replace(relation.table, schema="archive"))
    world.postgres.tables[oids[1]].relation = named
    run = Following(world, {}, 1)
    run.run()
    assert (
        "public.other: it is archive.other now, which schemas, include and exclude leave out; "
        "its data stays"
    ) in run.progress.notes


def test_a_table_to_be_read_stays_marked_when_the_destination_refuses_another() -> None:
    """Its changes are left out of the next load; a run that dies after that load must not lose
    them."""
    world, oids = loaded()
    assert world.lake.checkpoint is not None
    checkpoint = Checkpoint.from_state(world.lake.checkpoint)
    with world.source() as source:
        columns = InMemoryDestination(world.lake).columns
        tables = FollowedTables(checkpoint, "public", source, source.current_lsn, columns)
        tables.refresh()
        tables.read_again(oids[0], "keys changed all over a large transaction")
        assert tables.set_aside_refused(DestinationRefused({"other": "a constraint"}))
    statuses = {oid: state.status for oid, state in tables.checkpoint.tables.items()}
    assert statuses[oids[0]] is TableStatus.NEEDS_SNAPSHOT
    assert statuses[oids[1]] is TableStatus.NEEDS_SNAPSHOT
    assert statuses[oids[2]] is TableStatus.STREAMING
    assert tables.to_read == {oids[0]: "keys changed all over a large transaction"}


def test_a_column_that_the_destination_has_already_is_read() -> None:
    """The values there are somebody else's."""
    world, oids = loaded()
    held = world.lake.tables["keyed"]
    held.columns["extra"] = pa.string()
    for row in held.rows:
        row["extra"] = "theirs"
    world.postgres.add_column(oids[0], "extra", pa.string())
    world.cdc()
    assert "snapshot.begin" in world.faults.calls
    world.assert_equal()


def test_columns_that_this_run_has_added_are_not_somebody_elses() -> None:
    """They are there before the checkpoint when the destination refuses another table."""
    world, oids = loaded()
    assert world.lake.checkpoint is not None
    checkpoint = Checkpoint.from_state(world.lake.checkpoint)
    world.postgres.add_column(oids[0], "extra", pa.string())
    with world.source() as source:
        columns = InMemoryDestination(world.lake).columns
        tables = FollowedTables(checkpoint, "public", source, source.current_lsn, columns)
        tables.refresh()
        world.lake.tables["keyed"].columns["extra"] = pa.string()
        assert tables.set_aside_refused(DestinationRefused({"other": "a constraint"}))
    assert oids[0] not in tables.to_read
