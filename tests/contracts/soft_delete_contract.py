"""What every `Destination` promises of tables with soft deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import METADATA_FIELDS, KeyedMerge, TargetTable
from tests.contracts.destination_contract import (
    ORDERS,
    THEN,
    checkpoint,
    content,
    keyed,
    multiset,
    replacing,
    table_of,
)
from tests.contracts.history_contract import LINES, at, time, whole
from tests.contracts.opened_destination import OpenedDestination

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.ports.destination import Destination

#: Columns in which a deleted row is compared.
ROW = ("id", "note", "doc", "_cdc_lsn", "_cdc_committed_at", "_cdc_deleted_at")


def rows(*rows: tuple[str, int, Sequence[Any]], **more: Any) -> KeyedMerge:
    """A merge into `ORDERS`; each row is its operation, LSN, values, `_cdc_unchanged` and
    `_cdc_ref`."""
    names = [*ORDERS.schema.names, "_cdc_unchanged", "_cdc_ref"]
    found = [
        {
            **dict(zip(names, values, strict=False)),
            "_cdc_op": op,
            "_cdc_lsn": lsn,
            "_cdc_committed_at": time(lsn),
        }
        for op, lsn, values in rows
    ]
    return keyed(ORDERS, found, soft_deletes=True, **more)


def live(lsn: int, *values: Any) -> tuple[Any, ...]:
    """A row as it is in the table, without an end."""
    return *values, lsn, time(lsn), None


def gone(lsn: int, *values: Any) -> tuple[Any, ...]:
    return *values, lsn, time(lsn), time(lsn)


class SoftDeleteContract(OpenedDestination):
    """Tests of the port; see `DestinationContract`."""

    def load(self, destination: Destination, *merges: KeyedMerge, **batch: Any) -> None:
        replacements = batch.pop("replacements", ())
        if merges:
            batch["merges"] = merges
        loaded = replacing(destination, *replacements, **batch)
        destination.load(loaded, checkpoint(1))

    def test_marked_rows_are_counted(self, destination: Destination) -> None:
        assert dict(destination.marked_rows([ORDERS.name])) == {}
        held = [("U", 10, (n, "a", "d")) for n in range(5)]
        self.load(destination, rows(*held))
        assert dict(destination.marked_rows([ORDERS.name, "no_such_table"])) == {ORDERS.name: 0}
        self.load(destination, rows(("D", 15, (2,)), ("D", 16, (4,))))
        assert dict(destination.marked_rows([ORDERS.name])) == {ORDERS.name: 2}
        assert dict(destination.tables()) == {ORDERS.name: 5}

    def test_a_deleted_row_has_its_last_values(self, destination: Destination) -> None:
        held = [("U", 10 + n, (n, "a", f"d{n}")) for n in range(5)]
        self.load(destination, rows(*held))
        self.load(destination, rows(("D", 15, (2,)), ("D", 16, (4,))))
        batch = rows(
            ("S", 20, (1, "b", None, ".2.")),
            ("S", 21, (2, "c", "whole")),
            ("S", 12, (3, "too old", None)),
            ("S", 22, (7, "new", "e")),
            ("S", 23, (8, "nobody holds the rest", None, ".2.")),
            ("S", 24, (9, None, None)),
            unchanged_columns=("doc",),
        )
        expected = [
            live(10, 0, "a", "d0"),
            gone(20, 1, "b", "d1"),
            gone(21, 2, "c", "whole"),
            live(13, 3, "a", "d3"),
            gone(16, 4, "a", "d4"),
            gone(22, 7, "new", "e"),
            gone(24, 9, None, None),
        ]
        for _ in range(2):
            self.load(destination, batch)
            assert content(destination, "orders", *ROW) == expected
        back = rows(("U", 30, (1, "back", "f")), ("U", 31, (7, "back", "g")))
        for merge in (back, batch, back):
            self.load(destination, merge)
            found = {row[0]: row for row in content(destination, "orders", *ROW)}
            assert found[1] == live(30, 1, "back", "f")
            assert found[7] == live(31, 7, "back", "g")

    def test_a_deleted_row_may_be_the_first_of_its_table(self, destination: Destination) -> None:
        for _ in range(2):
            self.load(destination, rows(("S", 20, (1, "a", "x")), ("U", 20, (2, "b", "y"))))
            expected = [gone(20, 1, "a", "x"), live(20, 2, "b", "y")]
            assert content(destination, "orders", *ROW) == expected

    def test_a_deleted_row_has_the_values_of_the_key_before(self, destination: Destination) -> None:
        self.load(destination, rows(("U", 10, (1, "a", "big"))))
        batch = rows(
            ("D", 20, (1,)),
            ("S", 30, (2, "b", None, ".2.", 0)),
            ("H", 20, (2, None, None, None, 0)),
            ("H", 0, (1, None, None, None, 0)),
            unchanged_columns=("doc",),
            has_hops=True,
        )
        for _ in range(2):
            self.load(destination, batch)
            expected = [gone(20, 1, "a", "big"), gone(30, 2, "b", "big")]
            assert content(destination, "orders", *ROW) == expected

    def test_rows_between_truncations_are_deleted_by_the_next(
        self, destination: Destination
    ) -> None:
        held = [("U", 10 + n, (n, "a", f"d{n}")) for n in range(5)]
        self.load(destination, rows(*held))
        batch = rows(
            ("S", 20, (1, "changed before", None, ".2.")),
            ("D", 18, (2,)),
            ("S", 25, (3, "between", "x")),
            ("S", 25, (7, "between", "y")),
            ("U", 30, (4, "after", "z")),
            truncated_at=Lsn(20),
            truncated_time=20_000_000,
            unchanged_columns=("doc",),
        )
        for _ in range(2):
            self.load(destination, batch)
            assert content(destination, "orders", *ROW) == [
                gone(20, 0, "a", "d0"),
                gone(20, 1, "changed before", "d1"),
                gone(18, 2, "a", "d2"),
                gone(25, 3, "between", "x"),
                live(30, 4, "after", "z"),
                gone(25, 7, "between", "y"),
            ]

    def test_a_full_load_compares_a_key_with_another_type(self, destination: Destination) -> None:
        held = whole((1, "a", "x"), (2, "b", "y"), (3, "c", "z"), soft_deletes=at(10))
        self.load(destination, replacements=(held,))
        self.load(destination, rows(("D", 15, (3,))))
        fields = [("id", pa.string()), ("note", pa.string()), ("doc", pa.string())]
        texts = TargetTable("orders", pa.schema(fields))
        new = {"id": "1", "note": "d", "doc": "x", "_cdc_lsn": 20, "_cdc_committed_at": time(20)}
        for _ in range(2):
            after = table_of(texts, [new], key=("id",), soft_deletes=at(20))
            self.load(destination, replacements=(after,))
            assert content(destination, "orders", *ROW) == [
                live(20, "1", "d", "x"),
                gone(20, "2", "b", "y"),
                gone(15, "3", "c", "z"),
            ]

    def test_a_soft_delete_marks_the_row(self, destination: Destination) -> None:
        held = [{"id": n, "note": "a", "doc": f"d{n}", "_cdc_lsn": 10 + n} for n in range(4)]
        self.load(destination, keyed(ORDERS, held, soft_deletes=True))
        deleted = [
            {"id": n, "_cdc_op": "D", "_cdc_lsn": 20, "_cdc_committed_at": time(20)}
            for n in (0, 1, 8)
        ]
        batches = [
            keyed(ORDERS, deleted, soft_deletes=True),
            keyed(
                ORDERS,
                [
                    {"id": 1, "note": "b", "_cdc_lsn": 21, "_cdc_committed_at": THEN},
                    {"id": 2, "_cdc_op": "D", "_cdc_lsn": 9, "_cdc_committed_at": time(9)},
                    {"id": 0, "_cdc_op": "D", "_cdc_lsn": 22, "_cdc_committed_at": time(22)},
                ],
                soft_deletes=True,
            ),
        ]
        names = ("id", "note", "doc", "_cdc_lsn", "_cdc_deleted_at")
        self.load(destination, batches[0])
        assert content(destination, "orders", *names) == [
            (0, "a", "d0", 20, time(20)),
            (1, "a", "d1", 20, time(20)),
            (2, "a", "d2", 12, None),
            (3, "a", "d3", 13, None),
        ]
        for batch in (batches[1], *batches):
            self.load(destination, batch)
            assert content(destination, "orders", *names) == [
                (0, "a", "d0", 22, time(22)),
                (1, "b", None, 21, None),
                (2, "a", "d2", 12, None),
                (3, "a", "d3", 13, None),
            ]
        (columns,) = destination.columns(["orders"]).values()
        own = [name for name in columns if not name.startswith("_dlt")]
        metadata = [*(f.name for f in METADATA_FIELDS), "_cdc_deleted_at"]
        assert own == [*ORDERS.schema.names, *metadata]

    def test_a_moved_row_keeps_its_values_with_soft_deletes(self, destination: Destination) -> None:
        first = keyed(
            ORDERS,
            [{"id": 1, "note": "a", "doc": "big", "_cdc_lsn": 10}],
            soft_deletes=True,
        )
        moved = keyed(
            ORDERS,
            [
                {"id": 1, "_cdc_op": "D", "_cdc_lsn": 20, "_cdc_committed_at": time(20)},
                {"id": 2, "note": "b", "_cdc_lsn": 20, "_cdc_unchanged": ".2.", "_cdc_ref": 0},
                {"id": 2, "_cdc_op": "H", "_cdc_lsn": 20, "_cdc_ref": 0},
                {"id": 1, "_cdc_op": "H", "_cdc_lsn": 0, "_cdc_ref": 0},
            ],
            unchanged_columns=("doc",),
            has_hops=True,
            soft_deletes=True,
        )
        for merge in (first, moved, moved):
            self.load(destination, merge)
        assert content(destination, "orders", "id", "note", "doc", "_cdc_deleted_at") == [
            (1, "a", "big", time(20)),
            (2, "b", "big", None),
        ]

    def test_truncation_marks_live_rows(self, destination: Destination) -> None:
        held = [{"id": n, "note": "a", "_cdc_lsn": 10 + n} for n in range(4)]
        deleted = {"id": 0, "_cdc_op": "D", "_cdc_lsn": 12, "_cdc_committed_at": time(12)}
        self.load(destination, keyed(ORDERS, held, soft_deletes=True))
        self.load(destination, keyed(ORDERS, [deleted], soft_deletes=True))
        truncated = keyed(
            ORDERS,
            [{"id": 1, "note": "b", "_cdc_lsn": 13}],
            truncated_at=Lsn(13),
            truncated_time=13_000_000,
            soft_deletes=True,
        )
        for _ in range(2):
            self.load(destination, truncated)
            names = ("id", "note", "_cdc_lsn", "_cdc_committed_at", "_cdc_deleted_at")
            assert content(destination, "orders", *names) == [
                (0, "a", 12, time(12), time(12)),
                (1, "b", 13, THEN, None),
                (2, "a", 13, time(13), time(13)),
                (3, "a", 13, THEN, None),
            ]

    def test_a_full_load_marks_what_is_gone_and_keeps_what_was_marked(
        self, destination: Destination
    ) -> None:
        # A table that had hard deletes until now.
        self.load(destination, replacements=(whole((0, "a", "x"), (1, "a", "x"), (2, "a", "x")),))
        self.load(destination, replacements=(whole((0, "a", "x"), (1, "b", "x"), lsn=20,
                                                   soft_deletes=at(20)),))  # fmt: skip
        names = ("id", "note", "_cdc_lsn", "_cdc_committed_at", "_cdc_deleted_at")
        for _ in range(2):
            after = whole((0, "c", None), (5, "a", None), lsn=30, soft_deletes=at(30))
            self.load(destination, replacements=(after,))
            assert content(destination, "orders", *names) == [
                (0, "c", 30, time(30), None),
                (1, "b", 30, time(30), time(30)),
                (2, "a", 20, time(20), time(20)),
                (5, "a", 30, time(30), None),
            ]
        back = whole((2, "d", None), lsn=40, soft_deletes=at(40))
        self.load(destination, replacements=(back,))
        assert content(destination, "orders", "id", "_cdc_deleted_at") == [
            (0, time(40)), (1, time(30)), (2, None), (5, time(40)),
        ]  # fmt: skip

    def test_a_full_load_keeps_no_rows_of_a_table_with_another_key(
        self, destination: Destination
    ) -> None:
        first = whole((1, "a", "x"), (2, "b", None), soft_deletes=at(10))
        self.load(destination, replacements=(first,))
        other = TargetTable("orders", pa.schema([("code", pa.string()), ("note", pa.string())]))
        held = [{"code": "c", "note": "a", "_cdc_lsn": 20, "_cdc_committed_at": time(20)}]
        gone = frozenset({"id", "doc"})
        for _ in range(2):
            content_ = table_of(other, held, key=("code",), gone=gone, soft_deletes=at(20))
            self.load(destination, replacements=(content_,))
            assert content(destination, "orders", "code", "note") == [("c", "a")]
        # A key that was a column before finds its rows.
        other = TargetTable("orders", pa.schema([("code", pa.string()), ("note", pa.string())]))
        held = [{"code": "d", "note": "n", "_cdc_lsn": 30, "_cdc_committed_at": time(30)}]
        content_ = table_of(other, held, key=("note",), soft_deletes=at(30))
        self.load(destination, replacements=(content_,))
        assert content(destination, "orders", "code", "note", "_cdc_deleted_at") == [
            ("c", "a", time(30)),
            ("d", "n", None),
        ]

    def test_rows_that_stay_lose_the_values_of_emptied_columns(
        self, destination: Destination
    ) -> None:
        old = whole((0, "a", "x"), (1, "b", "y"), (2, "c", "z"), soft_deletes=at(10))
        self.load(destination, replacements=(old,))
        emptied = frozenset(["note"])
        new = whole((0, "d", "x"), lsn=20, soft_deletes=at(20), emptied=emptied)
        self.load(destination, replacements=(new,))
        assert content(destination, "orders", "id", "note", "doc", "_cdc_deleted_at") == [
            (0, "d", "x", None),
            (1, None, "y", time(20)),
            (2, None, "z", time(20)),
        ]
        new = whole((0, "d", "x"), lsn=30, soft_deletes=at(30), emptied=frozenset(["id"]))
        self.load(destination, replacements=(new,))
        assert content(destination, "orders", "id", "note", "_cdc_deleted_at") == [(0, "d", None)]

    def test_rows_without_key_have_no_soft_deletes(self, destination: Destination) -> None:
        self.load(destination, multiset(LINES, [{"what": "a", "_cdc_lsn": 1}]))
        (columns,) = destination.columns(["lines"]).values()
        assert "_cdc_deleted_at" not in columns
