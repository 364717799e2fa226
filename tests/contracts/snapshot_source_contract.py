"""What every `SnapshotSource` promises; a subclass says which, and over which database."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import CdcError, OperatorNeeded
from cdc_core.values.table_rules import ColumnRule
from tests.contracts.change_source_contract import confirmed, told
from tests.contracts.sources import LONG, LONG_ENOUGH, PART_ROWS, roll_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.relation import Relation
    from tests.contracts.sources import SourceUnderTest, Writer


def rows(snapshot: Snapshot, relation: Relation, part: str = WHOLE) -> list[tuple[Any, ...]]:
    found = [
        tuple(row.values())
        for piece in snapshot.read(relation, part)
        for row in piece.rows.to_pylist()
    ]
    return sorted(found, key=repr)


def ids(snapshot: Snapshot, relation: Relation, part: str) -> list[int]:
    return sorted(row[0] for row in rows(snapshot, relation, part))


class SnapshotSourceContract:
    @pytest.fixture
    def db(self) -> SourceUnderTest:
        raise NotImplementedError

    @pytest.fixture
    def orders(self, db: SourceUnderTest) -> Relation:
        """A published table of five rows."""
        oid = db.create_table("orders")
        with db.transaction() as tx:
            for number in range(5):
                tx.insert(oid, number, f"n{number}", LONG if number == 3 else None)
        (table,) = db.catalog().publish()
        return table.relation

    @pytest.fixture
    def relation_of(self, db: SourceUnderTest) -> Callable[[int], Relation]:
        catalog = db.catalog()
        return lambda oid: next(t.relation for t in catalog.tables() if t.relation.oid == oid)

    def test_it_fits_the_stream_of_the_slot_that_it_creates(
        self, db: SourceUnderTest, orders: Relation
    ) -> None:
        with db.change_source() as source:
            with db.monitor() as monitor:
                began = monitor.now()
                with db.snapshot_source().begin(create_slot=True) as snapshot:
                    assert confirmed(source) == snapshot.lsn
                    with db.transaction() as tx:
                        tx.set_note(orders.oid, 0, "later")
                        tx.insert(orders.oid, 9, "later")
                    found = rows(snapshot, orders)
                    assert began <= snapshot.taken_at <= monitor.now()
                    lsn = snapshot.lsn
            assert [row[:2] for row in found] == [(n, f"n{n}") for n in range(5)]
            assert [row[2] for row in found] == [None, None, None, LONG, None]
            # The slot outlives the snapshot, and goes on where that ended.
            assert confirmed(source) == lsn
            later = list(source.read(lsn, source.current_lsn(), {orders.oid}))
            assert told(later) == [("UPDATE", 0, "later"), ("INSERT", 9, "later")]
            refused = pytest.raises(OperatorNeeded, match=f"{db.slot_name}.*exists")
            with refused, db.snapshot_source().begin(create_slot=True):
                pytest.fail("a slot that exists")
            assert confirmed(source) == lsn

    def test_it_fits_the_stream_of_a_slot_that_exists(
        self, db: SourceUnderTest, orders: Relation
    ) -> None:
        with db.change_source() as source:
            point = source.create_slot()
            with db.transaction() as tx:
                tx.insert(orders.oid, 8, "within")
            with db.snapshot_source().begin(create_slot=False) as snapshot:
                with db.transaction() as tx:
                    tx.insert(orders.oid, 9, "later")
                assert [row[0] for row in rows(snapshot, orders)] == [0, 1, 2, 3, 4, 8]
                lsn = snapshot.lsn
            assert lsn > point
            assert confirmed(source) == point
            until = source.current_lsn()
            assert told(source.read(lsn, until, {orders.oid})) == [("INSERT", 9, "later")]
            assert len(told(source.read(point, until, {orders.oid}))) == 2

    def test_it_leaves_no_slot_where_none_was_asked_for(
        self, db: SourceUnderTest, orders: Relation
    ) -> None:
        with db.change_source() as source:
            with db.snapshot_source().begin(create_slot=False) as snapshot:
                assert source.slot() is None
                assert len(rows(snapshot, orders)) == 5
            assert source.slot() is None
            facts = db.inspector().facts()
            assert facts.slot is None

    def test_tables_may_be_read_in_any_order_and_again(
        self, db: SourceUnderTest, orders: Relation, relation_of: Callable[[int], Relation]
    ) -> None:
        heap = relation_of(db.create_table("heap", key=False))
        empty = relation_of(db.create_table("empty"))
        with db.transaction() as tx:
            tx.insert(heap.oid, 1, "twin")
            tx.insert(heap.oid, 1, "twin")
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            first = rows(snapshot, heap)
            with db.transaction() as tx:
                tx.delete(orders.oid, 1)
                tx.delete(heap.oid, 1)
            assert len(rows(snapshot, orders)) == 5
            assert rows(snapshot, empty) == []
            assert rows(snapshot, heap) == first == [(1, "twin", None)] * 2

    def test_chunks_have_the_columns_and_types_of_the_relation(
        self, db: SourceUnderTest, orders: Relation
    ) -> None:
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            pieces = list(snapshot.read(orders))
        assert sum(len(piece.rows) for piece in pieces) == 5
        for piece in pieces:
            assert piece.rows.column_names == list(orders.column_names)
            assert piece.rows.schema.types == [c.arrow_type for c in orders.columns]
            assert piece.unrepresentable == ()

    def test_what_was_rolled_back_is_not_seen(self, db: SourceUnderTest, orders: Relation) -> None:
        def write(tx: Writer) -> None:
            tx.insert(orders.oid, 9, "never")
            tx.delete(orders.oid, 1)

        roll_back(db, write)
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            assert [row[0] for row in rows(snapshot, orders)] == [0, 1, 2, 3, 4]

    def test_a_read_may_be_abandoned_at_the_end(
        self, db: SourceUnderTest, orders: Relation
    ) -> None:
        for create in (True, False):
            with db.snapshot_source().begin(create_slot=create) as snapshot:
                for piece in snapshot.read(orders):
                    assert len(piece.rows)
                    break
        with db.change_source() as source:
            assert source.slot() is not None

    def test_a_run_that_fails_while_reading_keeps_the_slot(
        self, db: SourceUnderTest, orders: Relation
    ) -> None:
        with (
            suppress(ZeroDivisionError),
            db.snapshot_source().begin(create_slot=True) as snapshot,
        ):
            lsn = snapshot.lsn
            next(iter(snapshot.read(orders)))
            raise ZeroDivisionError
        with db.change_source() as source:
            assert confirmed(source) == lsn

    def test_a_table_that_is_gone_is_an_error_of_ours(
        self, db: SourceUnderTest, orders: Relation
    ) -> None:
        db.drop_table(orders.oid)
        gone = pytest.raises(CdcError, match=r"public\.orders")
        with db.snapshot_source().begin(create_slot=False) as snapshot, gone:
            list(snapshot.read(orders))

    # Parts of a table.

    @pytest.fixture
    def large(self, db: SourceUnderTest) -> Relation:
        """A published table of several parts."""
        oid = db.create_table("large")
        with db.transaction() as tx:
            for number in range(4 * PART_ROWS):
                tx.insert(oid, number, LONG_ENOUGH)
        (table,) = db.catalog().publish()
        return table.relation

    def test_a_small_table_has_one_part(self, db: SourceUnderTest, orders: Relation) -> None:
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            assert list(snapshot.page_ranges(orders)) == [WHOLE]

    def test_parts_have_each_row_once(self, db: SourceUnderTest, large: Relation) -> None:
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            parts = snapshot.page_ranges(large)
            assert len(parts) > 2
            snapshot.expect([(large, part) for part in parts])
            found = [row for part in parts for row in ids(snapshot, large, part)]
            assert sorted(found) == [*range(4 * PART_ROWS)]
            assert ids(snapshot, large, parts[1]) == ids(snapshot, large, parts[1]) != []

    def test_what_was_read_is_not_among_the_parts(
        self, db: SourceUnderTest, large: Relation
    ) -> None:
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            parts = list(snapshot.page_ranges(large))
        with db.transaction() as tx:
            for number in range(PART_ROWS):
                tx.insert(large.oid, 1000 + number, LONG_ENOUGH)
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            for read in ([parts[1]], parts[:2], parts[-1:], parts):
                others = snapshot.page_ranges(large, read)
                assert not {*others} & {*read}
                found = [row for part in [*read, *others] for row in ids(snapshot, large, part)]
                assert sorted(found) == [*range(4 * PART_ROWS), *range(1000, 1000 + PART_ROWS)]

    @pytest.mark.parametrize("change", ["nothing", "update", "delete", "insert", "rolled back"])
    def test_a_part_is_unchanged_if_it_has_the_same_rows(
        self, db: SourceUnderTest, large: Relation, change: str
    ) -> None:
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            horizon, parts = snapshot.horizon, snapshot.page_ranges(large)
            counts = {part: len(rows(snapshot, large, part)) for part in parts}
            numbers = ids(snapshot, large, parts[1])

        def write(tx: Writer) -> None:
            match change:
                case "update" | "rolled back":
                    tx.set_note(large.oid, numbers[1], "changed")
                case "delete":
                    tx.delete(large.oid, numbers[1])
                case "insert":
                    tx.insert(large.oid, 5000, "new")

        if change == "rolled back":
            roll_back(db, write)
        else:
            with db.transaction() as tx:
                write(tx)
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            same = {
                part for part in parts if snapshot.unchanged(large, part, counts[part], horizon)
            }
            assert snapshot.horizon >= horizon
        touched = {"update": {parts[1]}, "delete": {parts[1]}, "insert": {parts[-1]}}
        expected = {*parts} - touched.get(change, set())
        assert same <= expected
        # A new row, or a new version of one, goes where there is room; others may move up.
        assert same >= ({parts[0]} if change == "delete" else expected - {parts[-1]})

    def test_a_count_that_is_another_is_a_change(
        self, db: SourceUnderTest, large: Relation
    ) -> None:
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            first, horizon = snapshot.page_ranges(large)[0], snapshot.horizon
            count = len(rows(snapshot, large, first))
        with db.snapshot_source().begin(create_slot=False) as snapshot:
            assert snapshot.unchanged(large, first, count, horizon)
            assert not snapshot.unchanged(large, first, count - 1, horizon)

    def test_columns_are_read_as_their_rules_say(
        self, db: SourceUnderTest, orders: Relation
    ) -> None:
        rules = {"id": ColumnRule.LAST4, "note": ColumnRule.NULL}
        with (
            db.change_source(),
            db.snapshot_source().begin(create_slot=True) as snapshot,
        ):
            pieces = list(snapshot.read(orders.under(rules)))
        assert {tuple(piece.rows.column_names) for piece in pieces} == {("id", "doc")}
        found = [text for piece in pieces for text in piece.rows.column("id").to_pylist()]
        assert sorted(found) == ["0", "1", "2", "3", "4"]
