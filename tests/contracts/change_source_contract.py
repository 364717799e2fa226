"""What every `ChangeSource` promises; a subclass says which, and over which database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from cdc_core.values.changes import Op
from cdc_core.values.errors import ContinuityLost, OperatorNeeded, WriterBusy
from cdc_core.values.lsn import ZERO_LSN, Lsn
from cdc_core.values.relation import ReplicaIdentity
from cdc_core.values.table_rules import ColumnRule
from tests.contracts.sources import LONG, roll_back
from tests.support.changes import stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.values.changes import ChangeBatch, TableChanges
    from tests.contracts.sources import SourceUnderTest


def told(batches: Iterable[ChangeBatch]) -> list[tuple[str, Any, Any]]:
    """Every change as (operation, id, note), in order."""
    return [
        (Op(op).name, row["id"], row["note"])
        for table in tables(batches)
        for op, row in zip(table.op.tolist(), table.rows.to_pylist(), strict=True)
    ]


def tables(batches: Iterable[ChangeBatch]) -> list[TableChanges]:
    return [table for batch in batches for table in batch.tables]


def confirmed(source: ChangeSource) -> Lsn:
    slot = source.slot()
    assert slot is not None
    assert slot.confirmed_flush_lsn is not None
    return slot.confirmed_flush_lsn


class ChangeSourceContract:
    @pytest.fixture
    def db(self) -> SourceUnderTest:
        raise NotImplementedError

    @pytest.fixture
    def orders(self, db: SourceUnderTest) -> int:
        """A published table with key."""
        oid = db.create_table("orders")
        db.catalog().publish()
        return oid

    def test_is_opened_before_use(self, db: SourceUnderTest) -> None:
        source = db.change_source()
        with pytest.raises(RuntimeError, match="outside of its `with` block"):
            source.current_lsn()
        with source:
            assert source.current_lsn() > ZERO_LSN
        with pytest.raises(RuntimeError, match="outside of its `with` block"):
            source.slot()

    def test_opening_takes_the_writer_lock_and_closing_gives_it_up(
        self, db: SourceUnderTest
    ) -> None:
        with db.change_source():
            with pytest.raises(WriterBusy, match=str(os.getpid())), db.change_source():
                pytest.fail("two writers")
            with pytest.raises(WriterBusy), db.change_source():
                pytest.fail("a refused run gave the other's lock up")
        with db.change_source() as again:
            assert again.slot() is None

    def test_identity_is_of_cluster_database_and_slot(self, db: SourceUnderTest) -> None:
        with db.change_source() as source:
            identity = source.identity()
        assert identity.slot_name == db.slot_name
        assert identity.system_id
        assert identity.database
        with db.change_source() as again:
            again.create_slot()
            assert again.identity() == identity
            slot = again.slot()
            assert slot is not None
            assert slot.database == identity.database

    def test_a_timeline_that_never_was_is_not_behind(self, db: SourceUnderTest) -> None:
        with db.change_source() as source, db.monitor() as monitor:
            now = source.identity().timeline
            assert now > 0
            assert source.left_timeline(now) is None
            assert monitor.left_timeline(now + 1) is None

    def test_a_slot_is_created_shown_and_dropped(self, db: SourceUnderTest) -> None:
        with db.change_source() as source:
            before = source.current_lsn()
            assert source.slot() is None
            point = source.create_slot()
            slot = source.slot()
            assert slot is not None
            assert (slot.name, slot.plugin) == (db.slot_name, "pgoutput")
            assert slot.confirmed_flush_lsn == point >= before
            assert not slot.lost
            assert slot.retained_bytes >= 0
            assert slot.active_pid is None
            with pytest.raises(OperatorNeeded, match=f"{db.slot_name}.*exists"):
                source.create_slot()
            assert source.drop_slot() is True
            assert source.slot() is None
            assert source.drop_slot() is False

    def test_reading_past_a_noted_position_releases_wal(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.change_source() as source:
            position = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 1, "a" * 100_000)
            slot = source.slot()
            assert slot is not None
            before = slot.retained_bytes
            source.note_transactions()
            *_, last = source.read(position, source.current_lsn(), {orders})
            source.confirm(last.end_lsn)
            slot = source.slot()
            assert slot is not None
            assert slot.retained_bytes < before

    def test_a_slot_outlives_the_run(self, db: SourceUnderTest) -> None:
        with db.change_source() as source:
            point = source.create_slot()
        with db.change_source() as source:
            assert confirmed(source) == point

    def test_a_slot_that_another_process_reads_is_left_alone(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 1, "a")
            until = source.current_lsn()
            with db.read_elsewhere() as reader:
                slot = source.slot()
                assert slot is not None
                assert slot.active_pid is not None
                with pytest.raises(WriterBusy, match=reader):
                    source.drop_slot()
                with pytest.raises(WriterBusy):
                    list(source.read(point, until, {orders}))
                with pytest.raises(WriterBusy):
                    source.confirm(until)
            assert confirmed(source) == point

    def test_the_slot_gives_what_commits_after_its_consistent_point(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.transaction() as tx:
            tx.insert(orders, 1, "before")
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 2, "after")
            batches = list(source.read(point, source.current_lsn(), {orders}))
        assert told(batches) == [("INSERT", 2, "after")]
        assert all(lsn > point for table in tables(batches) for lsn in table.commit_lsn.tolist())

    def test_the_position_is_at_or_past_every_commit(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.change_source() as source:
            point = source.create_slot()
            before = source.current_lsn()
            for number in range(5):
                with db.transaction() as tx:
                    tx.insert(orders, number, None)
                now = source.current_lsn()
                assert now > before
                before = now
                batches = list(source.read(point, now, {orders}))
                assert len(told(batches)) == number + 1
                assert batches[-1].end_lsn >= now

    def test_expecting_a_read_changes_nothing(self, db: SourceUnderTest, orders: int) -> None:
        with db.change_source() as source:
            source.expect_read()  # there is no slot yet
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 1, "a")
        with db.change_source() as source:
            source.expect_read()
            assert confirmed(source) == point
            assert told(source.read(point, source.current_lsn(), {orders})) == [("INSERT", 1, "a")]
        with db.change_source() as source:
            source.expect_read()  # and none comes
        with db.change_source() as source:
            source.expect_read()
            assert source.drop_slot()

    def test_operations_come_as_columns_in_commit_order(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.monitor() as monitor, db.change_source() as source:
            point, began = source.create_slot(), monitor.now()
            with db.transaction() as tx:
                tx.insert(orders, 1, "a", LONG)
                tx.insert(orders, 2, None, "short")
            with db.transaction() as tx:
                tx.set_note(orders, 1, "b")
                tx.set_id(orders, 1, 5)
            with db.transaction() as tx:
                tx.delete(orders, 2)
            with db.transaction() as tx:
                tx.truncate(orders)
                tx.insert(orders, 7, "last")
            until, ended = source.current_lsn(), monitor.now()
            batches = list(source.read(point, until, {orders}))
        assert told(batches) == [
            ("INSERT", 1, "a"),
            ("INSERT", 2, None),
            ("UPDATE", 1, "b"),
            ("DELETE", 1, None),
            ("UPDATE", 5, "b"),
            ("DELETE", 2, None),
            ("TRUNCATE", None, None),
            ("INSERT", 7, "last"),
        ]
        found = tables(batches)
        lsns = [lsn for table in found for lsn in table.commit_lsn.tolist()]
        times = [time for table in found for time in table.committed_at.tolist()]
        assert lsns == sorted(lsns)
        assert len(set(lsns)) == 4
        assert times == sorted(times)
        assert began <= times[0] <= times[-1] <= ended
        assert sum(batch.transactions for batch in batches) == 4
        assert sum(batch.changes for batch in batches) == 8
        for table in found:
            assert table.rows.column_names == list(table.relation.column_names)
            assert table.rows.schema.types == [c.arrow_type for c in table.relation.columns]
            assert len(table.rows) == len(table.op) == len(table.moved_from) == len(table.xid)
        xids = [xid for table in found for xid in table.xid.tolist()]
        assert len({*zip(xids, lsns, strict=True)}) == len({*xids}) == 4

    def test_unchanged_values_and_moved_keys_are_marked(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 1, "a", LONG)
                tx.set_note(orders, 1, "b")
                tx.set_id(orders, 1, 2)
            (table,) = tables(source.read(point, source.current_lsn(), {orders}))
        assert [Op(op).name for op in table.op] == ["INSERT", "UPDATE", "DELETE", "UPDATE"]
        assert table.moved_from.tolist() == [-1, -1, -1, 2]
        assert {name: mask.tolist() for name, mask in table.unchanged.items()} == {
            "doc": [False, True, False, True]
        }
        assert [row["doc"] for row in table.rows.to_pylist()] == [LONG, None, None, None]

    def test_an_update_without_key_is_a_delete_and_an_insert(self, db: SourceUnderTest) -> None:
        heap = db.create_table("heap", key=False)
        db.catalog().publish()
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(heap, 1, "a", LONG)
                tx.set_note(heap, 1, "b")
                tx.delete(heap, 1)
            (table,) = tables(source.read(point, source.current_lsn(), {heap}))
        rows = [tuple(row.values()) for row in table.rows.to_pylist()]
        assert [(Op(op).name, row) for op, row in zip(table.op, rows, strict=True)] == [
            ("INSERT", (1, "a", LONG)),
            ("DELETE", (1, "a", LONG)),
            ("INSERT", (1, "b", LONG)),
            ("DELETE", (1, "b", LONG)),
        ]
        assert table.relation.identity is ReplicaIdentity.FULL
        assert table.relation.key == ()
        assert not any(mask.any() for mask in table.unchanged.values())
        assert table.moved_from.tolist() == [-1, -1, 1, -1]

    def test_rolled_back_changes_never_arrive(self, db: SourceUnderTest, orders: int) -> None:
        with db.change_source() as source:
            point = source.create_slot()
            roll_back(db, lambda tx: tx.insert(orders, 1, "a"))
            with db.transaction() as tx:
                tx.insert(orders, 1, "b")
            assert told(source.read(point, source.current_lsn(), {orders})) == [("INSERT", 1, "b")]

    def test_changes_of_other_tables_are_left_out(self, db: SourceUnderTest, orders: int) -> None:
        other = db.create_table("other")
        db.catalog().publish()
        unpublished = db.create_table("unpublished")
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(other, 1, "o")
                tx.insert(orders, 1, "a")
                tx.insert(unpublished, 1, "u")
            until = source.current_lsn()
            assert told(source.read(point, until, {orders})) == [("INSERT", 1, "a")]
            assert told(source.read(point, until, {other})) == [("INSERT", 1, "o")]
            assert told(source.read(point, until, {unpublished})) == []
            assert len(told(source.read(point, until, {orders, other, unpublished}))) == 2
            nothing = list(source.read(point, until, ()))
            assert told(nothing) == []
            assert nothing[-1].end_lsn >= until

    def test_batches_are_whole_transactions(self, db: SourceUnderTest, orders: int) -> None:
        other = db.create_table("other")
        db.catalog().publish()
        with db.change_source(small_batches=True) as source:
            point = source.create_slot()
            for number in range(6):
                with db.transaction() as tx:
                    for row in range(3):
                        tx.insert(orders, number * 10 + row, None)
                        tx.insert(other, number * 10 + row, None)
            until = source.current_lsn()
            batches = list(source.read(point, until, {orders, other}))
        full = [batch for batch in batches if batch.changes]
        assert len(full) > 1
        seen: set[int] = set()
        reached = point
        for batch in full:
            lsns = [lsn for table in batch.tables for lsn in table.commit_lsn.tolist()]
            assert all(lsns.count(lsn) == 6 for lsn in lsns)
            assert batch.transactions == len(set(lsns))
            assert not seen & set(lsns)
            assert reached <= min(lsns)
            assert max(lsns) == batch.last_commit_lsn < batch.end_lsn
            times = [time for table in batch.tables for time in table.committed_at.tolist()]
            assert batch.last_committed_at == max(times)
            reached = batch.end_lsn
            seen.update(lsns)
        assert len(seen) == 6
        assert batches[-1].end_lsn >= until

    def test_reading_moves_nothing_and_can_be_done_again(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.change_source(small_batches=True) as source:
            point = source.create_slot()
            for number in range(5):
                with db.transaction() as tx:
                    tx.insert(orders, number, "n")
            until = source.current_lsn()
            first = list(source.read(point, until, {orders}))
            assert confirmed(source) == point
            assert stream(source.read(point, until, {orders})) == stream(first)
            stopped = list(source.read(point, until, {orders}, stop=lambda: True))
            assert len(told(stopped)) < 5
            left = next(iter(source.read(point, until, {orders})))
            assert len(told([left])) < 5
            assert stream(source.read(point, until, {orders})) == stream(first)
        with db.change_source() as source:
            assert confirmed(source) == point
            assert stream(source.read(point, until, {orders})) == stream(first)

    def test_a_read_may_begin_at_the_end_of_any_batch(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.change_source(small_batches=True) as source:
            point = source.create_slot()
            for number in range(4):
                with db.transaction() as tx:
                    tx.insert(orders, number, "n")
            until = source.current_lsn()
            batches = list(source.read(point, until, {orders}))
            for number, batch in enumerate(batches):
                rest = batches[number + 1 :]
                assert told(source.read(batch.end_lsn, until, {orders})) == told(rest)

    def test_confirming_moves_the_slot_there_and_never_back(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.change_source(small_batches=True) as source:
            point = source.create_slot()
            for number in range(4):
                with db.transaction() as tx:
                    tx.insert(orders, number, "n")
            until = source.current_lsn()
            batches = [b for b in source.read(point, until, {orders}) if b.changes]
            middle = batches[1].end_lsn
            source.confirm(middle)
            assert confirmed(source) == middle
            source.confirm(point)
            assert confirmed(source) == middle
            assert told(source.read(middle, until, {orders})) == told(batches[2:])
        with db.change_source() as source:
            assert confirmed(source) == middle
            # What the slot has passed does not come, wherever the reading begins.
            assert told(source.read(middle, until, {orders})) == told(batches[2:])
            source.confirm(until)
            assert confirmed(source) == until
            assert told(source.read(until, source.current_lsn(), {orders})) == []

    def test_confirming_between_the_batches_of_a_read(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        with db.change_source(small_batches=True) as source:
            point = source.create_slot()
            for number in range(4):
                with db.transaction() as tx:
                    tx.insert(orders, number, "n")
            seen = []
            for batch in source.read(point, source.current_lsn(), {orders}):
                seen.append(batch)
                source.confirm(batch.end_lsn)
                assert confirmed(source) == batch.end_lsn
            assert [id_ for _, id_, _ in told(seen)] == [0, 1, 2, 3]

    def test_a_slot_that_is_gone_is_history_lost(self, db: SourceUnderTest, orders: int) -> None:
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 1, "a")
            until = source.current_lsn()
            assert source.drop_slot()
            with pytest.raises(ContinuityLost, match=db.slot_name):
                list(source.read(point, until, {orders}))
            with pytest.raises(ContinuityLost, match=db.slot_name):
                source.confirm(until)

    def test_every_shape_of_a_table_can_be_split(self, db: SourceUnderTest, orders: int) -> None:
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 1, "a")
            db.add_column(orders, "more")
            with db.transaction() as tx:
                tx.insert(orders, 2, "b")
            found = tables(source.read(point, source.current_lsn(), {orders}))
        shapes = [table.relation.column_names for table in found]
        assert shapes == [("id", "note", "doc"), ("id", "note", "doc", "more")]
        assert {table.relation.oid for table in found} == {orders}
        assert [c.attnum for c in found[-1].relation.columns] == [1, 2, 3, 4]
        assert all(table.relation.key == ("id",) for table in found)

    def test_columns_have_the_numbers_that_their_names_have_now(
        self, db: SourceUnderTest, orders: int
    ) -> None:
        gone = db.create_table("gone")
        db.catalog().publish()
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 1, "a")
                tx.insert(gone, 1, "a")
            db.rename_column(orders, "note", "remark")
            db.drop_column(orders, "doc")
            db.add_column(orders, "note")
            db.drop_table(gone)
            found = tables(source.read(point, source.current_lsn(), {orders, gone}))
        numbers = {
            table.relation.oid: [(c.name, c.attnum) for c in table.relation.columns]
            for table in found
        }
        assert numbers[orders] == [("id", 1), ("note", 4), ("doc", 0)]
        assert numbers[gone] == [("id", 0), ("note", 0), ("doc", 0)]

    @pytest.mark.parametrize("small_batches", [False, True])
    def test_columns_are_read_as_their_rules_say(
        self,
        db: SourceUnderTest,
        orders: int,
        small_batches: bool,
    ) -> None:
        rules = {orders: {"id": ColumnRule.HASH, "note": ColumnRule.EXCLUDE}}
        with db.change_source(small_batches=small_batches) as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders, 1, "marker", LONG)
                tx.set_note(orders, 1, "another")
                tx.set_id(orders, 1, -2)
                tx.delete(orders, -2)
            found = tables(source.read(point, source.current_lsn(), {orders}, lambda: False, rules))
        for table in found:
            assert table.rows.column_names == ["id", "doc"]
            assert table.rows.schema.field("id").type == pa.string()
            kept = [column.rule for column in table.relation.columns]
            assert kept == [ColumnRule.HASH, ColumnRule.EXCLUDE, ColumnRule.KEEP]
            assert table.relation.key == ("id",)
        ids = [text for table in found for text in table.rows.column("id").to_pylist()]
        assert ids == ["1", "1", "1", "-2", "-2"]
        assert "marker" not in str([table.rows.to_pydict() for table in found])
