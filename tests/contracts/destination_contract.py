"""What every `Destination` promises; a subclass says how one is opened."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdc_core.values.checkpoint import (
    Checkpoint,
    ColumnState,
    PartialReading,
    SourceIdentity,
    TableState,
    WrittenRange,
)
from cdc_core.values.errors import CdcError
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import (
    EMPTY_BATCH,
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
    UNREPRESENTABLE_SCHEMA,
    UNREPRESENTABLE_TABLE,
    ColumnRename,
    ForgetUnrepresentable,
    KeyedMerge,
    LoadBatch,
    MultisetMerge,
    Replacement,
    TableRename,
    TargetTable,
)
from cdc_core.values.relation import TableName
from cdc_core.values.row_files import RowFiles, file_schema
from tests.contracts.opened_destination import OpenedDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cdc_core.ports.destination import Destination
    from cdc_core.values.history import HistoryDifference, Moment

UTC = dt.UTC
NEGATIVE_NAN = struct.unpack("<d", bytes(6) + b"\xf8\xff")[0]
THEN = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
SOURCE = SourceIdentity("7300000000000000001", "shop", "dlt_cdc_slot")

ORDERS = TargetTable(
    "orders", pa.schema([("id", pa.int64()), ("note", pa.string()), ("doc", pa.string())])
)


def checkpoint(lsn: int, *states: TableState) -> Checkpoint:
    return Checkpoint(SOURCE, Lsn(lsn), {state.oid: state for state in states})


def keyed(
    target: TargetTable, rows: Iterable[dict[str, Any]], key: tuple[str, ...] = ("id",), **more: Any
) -> KeyedMerge:
    schema = pa.schema([*target.schema, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])
    return KeyedMerge(target, key, _rows(rows, schema), **more)


def multiset(target: TargetTable, rows: Iterable[dict[str, Any]], **more: Any) -> MultisetMerge:
    schema = pa.schema([*target.schema, *METADATA_FIELDS, *MULTISET_CONTROL_FIELDS])
    numbered = [{"_cdc_ref": number, **row} for number, row in enumerate(rows)]
    more.setdefault("content", tuple(target.schema.names))
    return MultisetMerge(target, _rows(numbered, schema), **more)


@dataclass(frozen=True)
class Content:
    """The content of a table before it is stored; the other fields are as in `Replacement`."""

    target: TargetTable
    rows: Iterable[pa.Table]
    key: tuple[str, ...] = ()
    gone: frozenset[str] | None = frozenset()
    soft_deletes: Moment | None = None
    history: HistoryDifference | None = None
    emptied: frozenset[str] = frozenset()

    def stored(self, destination: Destination, name: str = "rows") -> Replacement:
        """Store the rows; return the replacement of the table by them."""
        name = f"{name}-{zlib.crc32(self.target.name.encode())}"
        destination.write(name, self.target, iter(self.rows))
        return Replacement(
            self.target, (name,), self.key, self.gone, self.soft_deletes, self.history, self.emptied
        )

    def load(self, destination: Destination, at: int) -> None:
        """Replace the table."""
        destination.load(replacing(destination, self), checkpoint(at))


def replacing(destination: Destination, *contents: Content, **more: Any) -> LoadBatch:
    """A batch that replaces tables, whose rows are stored."""
    stored = tuple(found.stored(destination) for found in contents)
    return LoadBatch(replacements=stored, **more)


def table_of(target: TargetTable, *parts: Iterable[dict[str, Any]], **more: Any) -> Content:
    schema = pa.schema([*target.schema, *METADATA_FIELDS])
    return Content(target, [_rows(part, schema) for part in parts], **more)


def orders(*parts: Iterable[int]) -> Iterator[pa.Table]:
    """Rows of a replacement with these ids."""
    return iter(table_of(ORDERS, *([{"id": n, "_cdc_lsn": 1} for n in ids] for ids in parts)).rows)


def by_workers(
    destination: Destination, name: str, rows: Iterable[pa.Table], part: str = "rows"
) -> RowFiles:
    """Write files as Spark does: one for each table, besides others that it did not commit."""
    folder = Path(destination.shared_folder(name))
    (folder / part).mkdir(parents=True)
    names, count = [], 0
    for number, table in enumerate(rows):
        columns = file_schema(table.schema)
        filed = pa.table(
            [
                *(c.cast(t) for c, t in zip(table.columns, columns.types, strict=True)),
                pa.nulls(len(table), pa.string()),
            ],
            [*columns.names, "unfit"],
        )
        names.append(f"{part}/part-{number}.snappy.parquet")
        count += len(table)
        pq.write_table(filed, folder / names[-1])
        pq.write_table(filed, folder / part / f"part-{number}-failed.snappy.parquet")
    (folder / part / "_SUCCESS").touch()
    return RowFiles(str(folder), tuple(names), count, 1)


def being_read(*parts: tuple[str, str, int]) -> Checkpoint:
    reading = PartialReading(16385, "as it is", 740, tuple(WrittenRange(*part) for part in parts))
    return replace(checkpoint(1), reading=reading)


def _rows(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(
        [{"_cdc_op": "U", "_cdc_committed_at": THEN, **row} for row in rows], schema=schema
    )


def content(destination: Destination, table: str, *columns: str) -> list[tuple[Any, ...]]:
    rows = [
        tuple(row[name] for name in columns)
        for piece in destination.scan(table, columns)
        for row in piece.to_pylist()
    ]
    return sorted(rows, key=repr)


class DestinationContract(OpenedDestination):
    """Tests of the port. `Place` is wherever the data outlives a destination object."""

    def load(
        self, opened: Callable[[], Destination], *batches: LoadBatch | Content, at: int = 100
    ) -> Destination:
        """Load the batches in one run; the destination, closed, can be opened again."""
        with opened() as destination:
            for number, batch in enumerate(batches):
                if isinstance(batch, Content):
                    batch.load(destination, at + number)
                else:
                    destination.load(batch, checkpoint(at + number))
        return opened()

    #: What `volumes` gives of a place without data.
    volumes_at_first: ClassVar[dict[str, list[str]] | None] = None

    def test_nothing_is_there_at_first(self, opened: Callable[[], Destination]) -> None:
        with opened() as destination:
            assert destination.read_checkpoint() is None
            assert dict(destination.tables()) == {}
            assert list(destination.scan("orders", ["id"])) == []
            assert destination.volumes() == self.volumes_at_first

    def test_a_checkpoint_outlives_the_run_with_or_without_rows(
        self, opened: Callable[[], Destination]
    ) -> None:
        state = TableState(
            oid=16400,
            table=TableName("public", "orders"),
            target="orders",
            columns=(ColumnState(1, "id", "id", 20, -1, pa.int64()),),
            key=("id",),
            snapshot_lsn=Lsn(5),
        )
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(10))
            assert destination.read_checkpoint() == checkpoint(10)
            row = {"id": 1, "_cdc_lsn": 11}
            destination.load(LoadBatch(merges=(keyed(ORDERS, [row]),)), checkpoint(12, state))
        with opened() as destination:
            assert destination.read_checkpoint() == checkpoint(12, state)
            destination.load(EMPTY_BATCH, checkpoint(20, state))
            destination.load(EMPTY_BATCH, checkpoint(20, state))
        with opened() as destination:
            assert destination.read_checkpoint() == checkpoint(20, state)
            assert dict(destination.tables()) == {"orders": 1}

    def test_rows_staged_before_a_load_are_a_part_of_its_merges(
        self, opened: Callable[[], Destination]
    ) -> None:
        lines = TargetTable("lines", pa.schema([("what", pa.string())]))
        self.load(
            opened, LoadBatch(merges=(keyed(ORDERS, [{"id": 1, "note": "old", "_cdc_lsn": 5}]),))
        )
        with opened() as destination:
            early = keyed(
                ORDERS,
                [
                    {"id": 1, "_cdc_lsn": 9, "_cdc_op": "D"},
                    {"id": 2, "note": "staged", "_cdc_lsn": 9},
                ],
            ).rows
            more = multiset(
                lines, [{"what": "a", "_cdc_lsn": 9}, {"what": "b", "_cdc_lsn": 9}]
            ).rows
            staged, staged_lines = destination.stage(early), destination.stage(more)
            assert len(staged) == 2
            assert staged.read().equals(early)
            late = keyed(ORDERS, [{"id": 3, "note": "last", "_cdc_lsn": 9}], staged=(staged,))
            gone = {"what": "a", "_cdc_lsn": 9, "_cdc_op": "D", "_cdc_ref": 2}
            taken = multiset(lines, [gone], staged=(staged_lines,))
            destination.load(LoadBatch(merges=(late, taken)), checkpoint(9))
            only_staged = keyed(
                ORDERS,
                [],
                staged=(destination.stage(keyed(ORDERS, [{"id": 4, "_cdc_lsn": 12}]).rows),),
            )
            destination.load(LoadBatch(merges=(only_staged,)), checkpoint(12))
        with opened() as destination:
            assert content(destination, "orders", "id", "note") == [
                (2, "staged"),
                (3, "last"),
                (4, None),
            ]
            assert content(destination, "lines", "what") == [("b",)]

    def test_rows_are_inserted_updated_and_deleted(self, opened: Callable[[], Destination]) -> None:
        first = keyed(ORDERS, [{"id": n, "note": "a", "_cdc_lsn": 10} for n in range(4)])
        second = keyed(
            ORDERS,
            [
                {"id": 0, "note": "b", "doc": None, "_cdc_lsn": 20},
                {"id": 1, "_cdc_op": "D", "_cdc_lsn": 20},
                {"id": 9, "note": "c", "_cdc_lsn": 21},
                {"id": 77, "_cdc_op": "D", "_cdc_lsn": 22},
            ],
        )
        batches = [LoadBatch(merges=(first,)), LoadBatch(merges=(second,))]
        expected = [(0, "b", 20), (2, "a", 10), (3, "a", 10), (9, "c", 21)]
        with self.load(opened, *batches) as destination:
            assert content(destination, "orders", "id", "note", "_cdc_lsn") == expected
            assert dict(destination.tables()) == {"orders": 4}
            for again in (batches[1], batches[1]):
                destination.load(again, checkpoint(200))
            assert content(destination, "orders", "id", "note", "_cdc_lsn") == expected

    def test_an_older_change_does_not_undo_a_newer_one(
        self, opened: Callable[[], Destination]
    ) -> None:
        newer = keyed(ORDERS, [{"id": n, "note": "new", "_cdc_lsn": 20} for n in (1, 2)])
        older = keyed(
            ORDERS,
            [
                {"id": 1, "note": "old", "_cdc_lsn": 19},
                {"id": 2, "_cdc_op": "D", "_cdc_lsn": 20},
            ],
        )
        with self.load(
            opened, LoadBatch(merges=(newer,)), LoadBatch(merges=(older,))
        ) as destination:
            assert content(destination, "orders", "id", "note") == [(1, "new"), (2, "new")]

    def test_the_commit_time_and_lsn_are_those_of_the_change(
        self, opened: Callable[[], Destination]
    ) -> None:
        lsn = 2**62 + 1
        row = {"id": 1, "_cdc_lsn": lsn, "_cdc_committed_at": THEN}
        with self.load(opened, LoadBatch(merges=(keyed(ORDERS, [row]),))) as destination:
            assert content(destination, "orders", "_cdc_lsn", "_cdc_committed_at") == [(lsn, THEN)]

    def test_a_value_that_was_not_sent_is_kept(self, opened: Callable[[], Destination]) -> None:
        first = keyed(
            ORDERS, [{"id": n, "note": "a", "doc": f"big{n}", "_cdc_lsn": 10} for n in (1, 2)]
        )
        second = keyed(
            ORDERS,
            [
                {"id": 1, "note": "b", "_cdc_lsn": 20, "_cdc_unchanged": ".2."},
                {"id": 2, "note": "b", "doc": None, "_cdc_lsn": 20},
            ],
            unchanged_columns=("doc",),
        )
        with self.load(
            opened, LoadBatch(merges=(first,)), LoadBatch(merges=(second,))
        ) as destination:
            expected = [(1, "b", "big1"), (2, "b", None)]
            assert content(destination, "orders", "id", "note", "doc") == expected

    def test_a_row_whose_unsent_values_nobody_holds_is_not_written(
        self, opened: Callable[[], Destination]
    ) -> None:
        """A later change, applied before the run died, has deleted it."""
        first = keyed(ORDERS, [{"id": 1, "note": "a", "doc": "big", "_cdc_lsn": 10}])
        gone = keyed(ORDERS, [{"id": 1, "_cdc_op": "D", "_cdc_lsn": 30}])
        again = keyed(
            ORDERS,
            [
                {"id": 1, "note": "b", "_cdc_lsn": 20, "_cdc_unchanged": ".2."},
                {"id": 2, "note": "c", "_cdc_lsn": 21, "_cdc_unchanged": ".2.", "_cdc_ref": 0},
                {"id": 1, "_cdc_op": "H", "_cdc_lsn": 0, "_cdc_ref": 0},
                {"id": 3, "note": "new", "doc": "d", "_cdc_lsn": 22},
            ],
            unchanged_columns=("doc",),
            has_hops=True,
        )
        batches = [LoadBatch(merges=(merge,)) for merge in (first, gone, again)]
        with self.load(opened, *batches) as destination:
            assert content(destination, "orders", "id", "note", "doc") == [(3, "new", "d")]

    def test_columns_that_were_not_sent_differ_by_row(
        self, opened: Callable[[], Destination]
    ) -> None:
        wide = TargetTable(
            "wide", pa.schema([("id", pa.int64())] + [(f"c{n}", pa.string()) for n in range(12)])
        )
        first = keyed(wide, [{"id": 1, **{f"c{n}": f"v{n}" for n in range(12)}, "_cdc_lsn": 1}])
        second = keyed(
            wide,
            [{"id": 1, "c0": "new", "_cdc_lsn": 2, "_cdc_unchanged": ".2.11.12."}],
            unchanged_columns=("c1", "c10", "c11"),
        )
        with self.load(
            opened, LoadBatch(merges=(first,)), LoadBatch(merges=(second,))
        ) as destination:
            assert content(destination, "wide", "c0", "c1", "c2", "c10", "c11") == [
                ("new", "v1", None, "v10", "v11")
            ]

    def test_a_value_is_found_under_the_key_that_the_row_had(
        self, opened: Callable[[], Destination]
    ) -> None:
        first = keyed(ORDERS, [{"id": 1, "note": "a", "doc": "big", "_cdc_lsn": 10}])
        moved = keyed(
            ORDERS,
            [
                {"id": 1, "_cdc_op": "D", "_cdc_lsn": 20},
                {"id": 2, "_cdc_op": "D", "_cdc_lsn": 21},
                {"id": 3, "note": "b", "_cdc_lsn": 21, "_cdc_unchanged": ".2.", "_cdc_ref": 0},
                {"id": 3, "_cdc_op": "H", "_cdc_lsn": 21, "_cdc_ref": 0},
                {"id": 2, "_cdc_op": "H", "_cdc_lsn": 20, "_cdc_ref": 0},
                {"id": 1, "_cdc_op": "H", "_cdc_lsn": 0, "_cdc_ref": 0},
            ],
            unchanged_columns=("doc",),
            has_hops=True,
        )
        batches = [LoadBatch(merges=(first,)), LoadBatch(merges=(moved,))]
        with self.load(opened, *batches, batches[1]) as destination:
            assert content(destination, "orders", "id", "note", "doc") == [(3, "b", "big")]

    def test_truncation_takes_what_is_older(self, opened: Callable[[], Destination]) -> None:
        first = keyed(ORDERS, [{"id": n, "note": "a", "_cdc_lsn": 10 + n} for n in range(5)])
        second = keyed(
            ORDERS,
            [
                {"id": 1, "note": "b", "_cdc_lsn": 20},
                {"id": 2, "_cdc_op": "D", "_cdc_lsn": 20},
                {"id": 8, "note": "b", "_cdc_lsn": 15},
            ],
            truncated_at=Lsn(13),
        )
        nothing_else = keyed(ORDERS, [], truncated_at=Lsn(14))
        with self.load(
            opened, LoadBatch(merges=(first,)), LoadBatch(merges=(second,))
        ) as destination:
            expected = [(1, "b"), (3, "a"), (4, "a"), (8, "b")]
            assert content(destination, "orders", "id", "note") == expected
            destination.load(LoadBatch(merges=(nothing_else,)), checkpoint(300))
            expected.remove((3, "a"))
            assert content(destination, "orders", "id", "note") == expected

    def test_keys_of_several_columns(self, opened: Callable[[], Destination]) -> None:
        target = TargetTable(
            "lines",
            pa.schema(
                [("day", pa.date32()), ("no", pa.int16()), ("b", pa.binary()), ("v", pa.string())]
            ),
        )
        day = dt.date(2024, 2, 29)
        key = ("day", "no", "b")
        rows = [
            {"day": day, "no": n, "b": b"\x00" + bytes([n]), "v": "a", "_cdc_lsn": 1}
            for n in range(3)
        ]
        changed = [
            {**rows[0], "v": "b", "_cdc_lsn": 2},
            {**rows[1], "_cdc_op": "D", "_cdc_lsn": 2},
            {**rows[0], "no": 9, "_cdc_lsn": 2},
        ]
        with self.load(
            opened,
            LoadBatch(merges=(keyed(target, rows, key),)),
            LoadBatch(merges=(keyed(target, changed, key),)),
        ) as destination:
            assert content(destination, "lines", "no", "v") == [(0, "b"), (2, "a"), (9, "a")]

    def test_rows_without_key_are_counted(self, opened: Callable[[], Destination]) -> None:
        log = TargetTable("log", pa.schema([("what", pa.string()), ("n", pa.int32())]))
        a, b, c = ({"what": "a", "n": 1}, {"what": None, "n": None}, {"what": "c", "n": None})
        first = multiset(log, [{**r, "_cdc_lsn": 10} for r in (a, a, a, b, b)])
        second = multiset(
            log,
            [
                {**a, "_cdc_op": "D", "_cdc_lsn": 20},
                {**b, "_cdc_op": "D", "_cdc_lsn": 20},
                {**b, "_cdc_op": "D", "_cdc_lsn": 20},
                {**b, "_cdc_op": "D", "_cdc_lsn": 20},
                {**b, "_cdc_lsn": 21},
                {**c, "_cdc_op": "D", "_cdc_lsn": 21},
                {**c, "_cdc_lsn": 22},
                {**c, "_cdc_lsn": 22},
            ],
        )
        batches = [LoadBatch(merges=(first,)), LoadBatch(merges=(second,))]
        expected = Counter({("a", 1, 20): 2, (None, None, 21): 1, ("c", None, 22): 2})
        with self.load(opened, *batches) as destination:
            assert Counter(content(destination, "log", "what", "n", "_cdc_lsn")) == expected
            for again in reversed(batches):
                destination.load(again, checkpoint(300))
            assert Counter(content(destination, "log", "what", "n", "_cdc_lsn")) == expected

    @pytest.mark.parametrize("first", [0.0, -0.0])
    @pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
    def test_rows_without_key_may_differ_in_the_sign_of_zero(
        self, opened: Callable[[], Destination], kind: pa.DataType, first: float
    ) -> None:
        log = TargetTable("log", pa.schema([("f", kind)]))
        values = (first, -first, math.nan, NEGATIVE_NAN, None, 0.1)
        whole = table_of(log, [{"f": f, "_cdc_lsn": 10} for f in values])
        deleted = (-first, NEGATIVE_NAN, None, 0.1)
        deletes = multiset(log, [{"f": f, "_cdc_op": "D", "_cdc_lsn": 20} for f in deleted])
        inserts = multiset(log, [{"f": -first, "_cdc_lsn": 30}] * 2)
        with self.load(opened, whole, LoadBatch(merges=(deletes,))) as destination:
            assert [repr(f) for (f,) in content(destination, "log", "f")] == [repr(first), "nan"]
            destination.load(LoadBatch(merges=(inserts,)), checkpoint(300))
            found = [repr(f) for (f,) in content(destination, "log", "f")]
            assert found == sorted(map(repr, (first, -first, -first, math.nan)))

    def test_reals_without_key_in_a_column_of_doubles(
        self, opened: Callable[[], Destination]
    ) -> None:
        wide = TargetTable("log", pa.schema([("f", pa.float64())]))
        narrow = TargetTable("log", pa.schema([("f", pa.float32())]))
        first = multiset(wide, [{"f": _float32(0.1), "_cdc_lsn": 10}] * 2)
        second = multiset(narrow, [{"f": _float32(0.1), "_cdc_op": "D", "_cdc_lsn": 20}])
        with self.load(
            opened, LoadBatch(merges=(first,)), LoadBatch(merges=(second,))
        ) as destination:
            assert content(destination, "log", "f") == [(_float32(0.1),)]

    def test_keys_are_compared_as_a_unique_index_compares(
        self, opened: Callable[[], Destination]
    ) -> None:
        target = TargetTable("measured", pa.schema([("f", pa.float64()), ("v", pa.string())]))
        first = [{"f": f, "v": "a", "_cdc_lsn": 10} for f in (NEGATIVE_NAN, -0.0, 0.5)]
        second = [{"f": f, "v": "b", "_cdc_lsn": 20} for f in (math.nan, 0.0)]
        with self.load(
            opened,
            LoadBatch(merges=(keyed(target, first, ("f",)),)),
            LoadBatch(merges=(keyed(target, second, ("f",)),)),
        ) as destination:
            found = [(repr(f), v) for f, v in content(destination, "measured", "f", "v")]
            assert found == [("0.0", "b"), ("0.5", "a"), ("nan", "b")]

    def test_copies_keep_what_the_source_has_dropped(
        self, opened: Callable[[], Destination]
    ) -> None:
        log = TargetTable("log", pa.schema([("what", pa.string()), ("gone", pa.int32())]))
        first = multiset(log, [{"what": "a", "gone": 7, "_cdc_lsn": 10}])
        second = multiset(log, [{"what": "a", "_cdc_lsn": 20}] * 2, content=("what",))
        third = multiset(log, [{"what": "a", "_cdc_op": "D", "_cdc_lsn": 30}], content=("what",))
        with self.load(
            opened, *(LoadBatch(merges=(merge,)) for merge in (first, second, third))
        ) as destination:
            expected = [("a", 7, 30), ("a", None, 30)]
            assert content(destination, "log", "what", "gone", "_cdc_lsn") == expected

    def test_truncation_of_rows_without_key(self, opened: Callable[[], Destination]) -> None:
        log = TargetTable("log", pa.schema([("what", pa.string())]))
        rows = [{"what": what, "_cdc_lsn": 10} for what in "aabbc"]
        first = multiset(log, rows)
        second = multiset(log, [{"what": "a", "_cdc_lsn": 20}], truncated_at=Lsn(20))
        batches = [LoadBatch(merges=(first,)), LoadBatch(merges=(second,))]
        with self.load(opened, *batches, batches[1]) as destination:
            assert content(destination, "log", "what") == [("a",)]

    def test_tables_without_columns(self, opened: Callable[[], Destination]) -> None:
        bare = TargetTable("bare", pa.schema([]))
        whole = table_of(bare, [{"_cdc_lsn": 5}] * 3)
        events = multiset(
            bare,
            [{"_cdc_lsn": 10}, {"_cdc_op": "D", "_cdc_lsn": 10}]
            + [{"_cdc_op": "D", "_cdc_lsn": 11}] * 2,
        )
        with self.load(opened, whole, LoadBatch(merges=(events,))) as destination:
            assert content(destination, "bare", "_cdc_lsn") == [(11,)]
            assert sum(len(piece) for piece in destination.scan("bare", ())) == 1

    def test_a_replacement_is_the_whole_content(self, opened: Callable[[], Destination]) -> None:
        first = table_of(
            ORDERS,
            [{"id": n, "note": "a", "_cdc_lsn": 5} for n in range(3)],
            [],
            [{"id": 3, "note": None, "_cdc_lsn": 5}],
        )
        second = table_of(ORDERS, [{"id": 7, "note": "b", "_cdc_lsn": 9}])
        with self.load(opened, first) as destination:
            expected = [(0, "a"), (1, "a"), (2, "a"), (3, None)]
            assert content(destination, "orders", "id", "note") == expected
            second.load(destination, 9)
            assert content(destination, "orders", "id", "note") == [(7, "b")]
            table_of(ORDERS).load(destination, 9)
            assert dict(destination.tables()) == {"orders": 0}
            merge = keyed(ORDERS, [{"id": 1, "note": "c", "_cdc_lsn": 20}])
            destination.load(LoadBatch(merges=(merge,)), checkpoint(20))
            assert content(destination, "orders", "id", "note") == [(1, "c")]

    def test_an_empty_table_is_there_with_its_columns(
        self, opened: Callable[[], Destination]
    ) -> None:
        with self.load(opened, table_of(ORDERS)) as destination:
            assert dict(destination.tables()) == {"orders": 0}
            pieces = list(destination.scan("orders", ["id", "note", "doc", "_cdc_lsn"]))
            assert sum(len(piece) for piece in pieces) == 0

    def test_a_replacement_in_many_chunks(self, opened: Callable[[], Destination]) -> None:
        schema = pa.schema([*ORDERS.schema, *METADATA_FIELDS])
        piece = pa.table(
            [
                pa.array(range(70_000)),
                pa.array(["x"] * 70_000),
                pa.nulls(70_000, pa.string()),
                pa.array([5] * 70_000, pa.int64()),
                pa.array([THEN] * 70_000, METADATA_FIELDS[1].type),
            ],
            schema=schema,
        )
        pieces = 3 if self.scans_at_once else 20
        whole = Content(ORDERS, (piece for _ in range(pieces)))
        with self.load(opened, whole) as destination:
            assert dict(destination.tables()) == {"orders": pieces * 70_000}
            sizes = [len(rows) for rows in destination.scan("orders", ["id"])]
            assert sum(sizes) == pieces * 70_000
            if not self.scans_at_once:
                assert max(sizes) <= 200_000

    #: Whether `scan` gives a whole table in one piece.
    scans_at_once = False

    @pytest.mark.parametrize(
        "error", [CdcError("the source is gone"), KeyboardInterrupt()], ids=["error", "stopped"]
    )
    def test_a_replacement_that_its_rows_end_leaves_the_table(
        self, opened: Callable[[], Destination], error: BaseException
    ) -> None:
        whole = table_of(ORDERS, [{"id": 1, "_cdc_lsn": 1}])

        def broken() -> Iterator[pa.Table]:
            yield from table_of(ORDERS, [{"id": 2, "_cdc_lsn": 2}]).rows
            raise error

        with opened() as destination:
            whole.load(destination, 1)
            with pytest.raises(type(error)) as raised:
                destination.write("2", ORDERS, broken())
            assert raised.value is error
        with opened() as destination:
            assert content(destination, "orders", "id") == [(1,)]
            assert destination.read_checkpoint() == checkpoint(1)

    def test_stored_rows_outlive_the_run_if_the_checkpoint_names_them(
        self, opened: Callable[[], Destination]
    ) -> None:
        """They are in no table before the load that names them."""
        with opened() as destination:
            table_of(ORDERS, [{"id": 7, "_cdc_lsn": 1}]).load(destination, 1)
            assert destination.written() == frozenset()
            assert destination.write("1-A-0", ORDERS, orders(range(3), range(3, 5))) == 5
            assert destination.write("1-A-1", ORDERS, orders([])) == 0
            reading = being_read(("0-4", "1-A-0", 5), ("4-8", "1-A-1", 0))
            destination.load(EMPTY_BATCH, reading)
            assert dict(destination.tables()) == {"orders": 1}
        with opened() as destination:
            assert destination.read_checkpoint() == reading
            assert destination.written() == {"1-A-0", "1-A-1"}
            destination.write("1-B-2", ORDERS, orders(range(5, 8)))
            destination.write("1-B-3", ORDERS, orders(range(8, 10)))
            assert destination.written() == {"1-A-0", "1-A-1", "1-B-2", "1-B-3"}
            last = Replacement(ORDERS, ("1-A-0", "1-A-1", "1-B-2", "1-B-3"))
            destination.load(LoadBatch(replacements=(last,)), reading)
            assert content(destination, "orders", "id") == [(n,) for n in range(10)]
            assert destination.written() == {"1-A-0", "1-A-1"}
            one = Replacement(ORDERS, ("1-A-0",))
            destination.load(LoadBatch(replacements=(one,)), reading)
            assert content(destination, "orders", "id") == [(n,) for n in range(5)]
            assert destination.written() == {"1-A-0", "1-A-1"}
            destination.load(EMPTY_BATCH, checkpoint(2))
            assert destination.written() == frozenset()
            assert content(destination, "orders", "id") == [(n,) for n in range(5)]

    def test_stored_rows_that_no_checkpoint_names_do_not_outlive_the_run(
        self, opened: Callable[[], Destination]
    ) -> None:
        with opened() as destination:
            destination.write("1-A-0", ORDERS, orders(range(3)))
            assert destination.written() == {"1-A-0"}
        with opened() as destination:
            assert destination.read_checkpoint() is None
            assert destination.written() == frozenset()
            destination.write("1-B-0", ORDERS, orders(range(5)))
            destination.load(EMPTY_BATCH, being_read(("0-4", "1-B-0", 5)))
            assert destination.written() == {"1-B-0"}
            only = Replacement(ORDERS, ("1-B-0",))
            destination.load(LoadBatch(replacements=(only,)), checkpoint(1))
            assert content(destination, "orders", "id") == [(n,) for n in range(5)]
            assert destination.written() == frozenset()

    def test_a_load_removes_stored_rows_that_it_does_not_name(
        self, opened: Callable[[], Destination]
    ) -> None:
        with opened() as destination:
            destination.write("1-A-0", ORDERS, orders(range(3)))
            table_of(ORDERS, [{"id": 7, "_cdc_lsn": 1}]).load(destination, 1)
            assert destination.written() == frozenset()
            assert dict(destination.tables()) == {"orders": 1}

    def test_rows_stored_again_replace_the_first(self, opened: Callable[[], Destination]) -> None:
        with opened() as destination:
            destination.write("1-A-0", ORDERS, orders(range(3)))
            destination.write("1-A-0", ORDERS, orders(range(5, 7)))
            whole = Replacement(ORDERS, ("1-A-0",))
            destination.load(LoadBatch(replacements=(whole,)), checkpoint(1))
            assert content(destination, "orders", "id") == [(5,), (6,)]

    def test_rows_that_end_too_early_are_not_stored(
        self, opened: Callable[[], Destination]
    ) -> None:
        def broken() -> Iterator[pa.Table]:
            yield from orders(range(3))
            raise CdcError("the source is gone")

        with opened() as destination:
            destination.write("1-A-0", ORDERS, orders([1]))
            with pytest.raises(CdcError, match="the source is gone"):
                destination.write("1-A-1", ORDERS, broken())
            assert destination.written() == {"1-A-0"}
            whole = Replacement(ORDERS, ("1-A-0",))
            destination.load(LoadBatch(replacements=(whole,)), checkpoint(1))
            assert content(destination, "orders", "id") == [(1,)]

    def test_stored_rows_may_have_columns_of_any_type(
        self, opened: Callable[[], Destination]
    ) -> None:
        """And a replacement of several parts leaves dropped columns, as any does."""
        now = TargetTable("orders", pa.schema([("id", pa.string()), ("note", pa.int32())]))
        before = table_of(ORDERS, [{"id": 1, "note": "5", "doc": "d", "_cdc_lsn": 5}])
        with opened() as destination:
            before.load(destination, 1)
            parts = [
                table_of(now, [{"id": name, "note": 5, "_cdc_lsn": 9}]).stored(destination, name)
                for name in ("one", "two")
            ]
            after = Replacement(now, tuple(name for part in parts for name in part.written))
            destination.load(LoadBatch(replacements=(after,)), checkpoint(2))
            expected = [("one", 5, None), ("two", 5, None)]
            assert content(destination, "orders", "id", "note", "doc") == expected

    def test_files_of_workers_are_stored_like_rows(self, opened: Callable[[], Destination]) -> None:
        """Whatever else is in their folder; they outlive the run if the checkpoint names them."""
        with opened() as destination:
            files = by_workers(destination, "1-A-0", orders(range(3), range(3, 5)))
            destination.store_files("1-A-0", ORDERS, files)
            none = by_workers(destination, "1-A-1", [])
            destination.store_files("1-A-1", ORDERS, none)
            destination.write("1-A-2", ORDERS, orders(range(5, 6)))
            assert destination.written() == {"1-A-0", "1-A-1", "1-A-2"}
            reading = being_read(("0-4", "1-A-0", 5), ("4-8", "1-A-1", 0), ("8-9", "1-A-2", 1))
            destination.load(EMPTY_BATCH, reading)
            assert dict(destination.tables()) == {}
        with opened() as destination:
            assert destination.read_checkpoint() == reading
            assert destination.written() == {"1-A-0", "1-A-1", "1-A-2"}
            files = by_workers(destination, "1-B-3", orders(range(6, 8)))
            destination.store_files("1-B-3", ORDERS, files)
            last = Replacement(ORDERS, ("1-A-0", "1-A-1", "1-A-2", "1-B-3"))
            destination.load(LoadBatch(replacements=(last,)), reading)
            assert content(destination, "orders", "id") == [(n,) for n in range(8)]
            assert destination.written() == {"1-A-0", "1-A-1", "1-A-2"}
            destination.load(
                LoadBatch(replacements=(Replacement(ORDERS, ("1-A-0", "1-A-1", "1-A-2")),)),
                checkpoint(2),
            )
            assert content(destination, "orders", "id") == [(n,) for n in range(6)]
            assert destination.written() == frozenset()
            volumes = destination.volumes() or {}
            assert [file for files in volumes.values() for file in files] == []

    def test_files_of_workers_and_rows_replace_each_other(
        self, opened: Callable[[], Destination]
    ) -> None:
        with opened() as destination:
            for number in (0, 1):
                first = by_workers(destination, f"1-A-{number}", orders([1]))
                destination.store_files(f"1-A-{number}", ORDERS, first)
            destination.write("1-A-0", ORDERS, orders([2]))
            files = by_workers(destination, "1-A-1", orders([3]))
            destination.store_files("1-A-1", ORDERS, files)
            destination.write("1-A-2", ORDERS, orders([4]))
            files = by_workers(destination, "1-A-2", orders([5]))
            destination.store_files("1-A-2", ORDERS, files)
            whole = Replacement(ORDERS, ("1-A-0", "1-A-1", "1-A-2"))
            destination.load(LoadBatch(replacements=(whole,)), checkpoint(1))
            assert content(destination, "orders", "id") == [(2,), (3,), (5,)]

    def test_files_of_workers_that_no_checkpoint_names_do_not_outlive_the_run(
        self, opened: Callable[[], Destination]
    ) -> None:
        with opened() as destination:
            files = by_workers(destination, "1-A-0", orders(range(3)))
            destination.store_files("1-A-0", ORDERS, files)
            by_workers(destination, "1-A-1", orders(range(3)))
        with opened() as destination:
            assert destination.written() == frozenset()
            destination.load(EMPTY_BATCH, checkpoint(1))
            volumes = destination.volumes() or {}
            assert [file for files in volumes.values() for file in files] == []

    def test_files_of_workers_have_values_of_every_type(
        self, opened: Callable[[], Destination]
    ) -> None:
        values = {
            "a b;{}": (pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
            "naive": (pa.timestamp("us"), [THEN.replace(tzinfo=None), None]),
            "zoned": (pa.timestamp("us", "UTC"), [THEN, dt.datetime(1, 1, 1, tzinfo=UTC)]),
            "amount": (pa.decimal128(38, 5), [Decimal("-1.00001"), Decimal(9) * 10**32]),
            "data": (pa.binary(), [b"\x00\xff", b""]),
            "small": (pa.int16(), [-32768, 32767]),
            "real": (pa.float32(), [1.5, float("inf")]),
            "flag": (pa.bool_(), [True, False]),
        }
        fields = [("id", pa.int64()), *((name, kind) for name, (kind, _) in values.items())]
        target = TargetTable("typed", pa.schema(fields))
        rows = [
            {"id": n, "_cdc_lsn": 1, **{name: held[n] for name, (_, held) in values.items()}}
            for n in (0, 1)
        ]
        rows.append({"id": 2, "_cdc_lsn": 1})
        with opened() as destination:
            files = by_workers(destination, "one", table_of(target, rows[:2]).rows)
            destination.store_files("one", target, files)
            destination.write("two", target, table_of(target, rows[2:]).rows)
            whole = Replacement(target, ("one", "two"), ("id",))
            destination.load(LoadBatch(replacements=(whole,)), checkpoint(1))
            names = [name for name, _ in fields]
            expected = [tuple(row.get(name) for name in names) for row in rows]
            assert content(destination, "typed", *names) == expected

    def test_unrepresentable_values_in_files_of_workers(
        self, opened: Callable[[], Destination]
    ) -> None:
        names = UNREPRESENTABLE_SCHEMA.names
        cells = [
            dict(zip(names, ("orders", "doc", "{}", text, 10, THEN), strict=True))
            for text in ("first", "second", "third")
        ]
        tables = [pa.Table.from_pylist([cell], schema=UNREPRESENTABLE_SCHEMA) for cell in cells]
        with opened() as destination:
            whole = table_of(ORDERS, [{"id": 1, "_cdc_lsn": 1}]).stored(destination)
            files = by_workers(destination, "rows", tables[:2], "unfit")
            staged = destination.stage_files(files)
            assert sum(map(len, staged)) == 2
            values = (*staged, tables[2])
            batch = LoadBatch(replacements=(whole,), unrepresentable=values)
            destination.load(batch, checkpoint(10))
            expected = [tuple(cell.values()) for cell in cells]
            assert content(destination, UNREPRESENTABLE_TABLE, *names) == expected

    def test_drop_leaves_no_stored_rows(self, opened: Callable[[], Destination]) -> None:
        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            destination.write("1-A-0", ORDERS, orders(range(3)))
            destination.load(EMPTY_BATCH, being_read(("0-4", "1-A-0", 3)))
            destination.drop()
        with opened() as destination:
            assert destination.written() == frozenset()

    def test_a_replacement_keeps_dropped_columns_and_takes_new_types(
        self, opened: Callable[[], Destination]
    ) -> None:
        before = table_of(ORDERS, [{"id": 1, "note": "5", "doc": "d", "_cdc_lsn": 5}])
        now = TargetTable("orders", pa.schema([("id", pa.string()), ("note", pa.int32())]))
        after = table_of(now, [{"id": "one", "note": 5, "_cdc_lsn": 9}])
        with self.load(opened, before, after) as destination:
            assert content(destination, "orders", "id", "note", "doc") == [("one", 5, None)]
            merge = keyed(now, [{"id": "two", "note": 6, "_cdc_lsn": 20}])
            destination.load(LoadBatch(merges=(merge,)), checkpoint(20))
            expected = [("one", 5, None), ("two", 6, None)]
            assert content(destination, "orders", "id", "note", "doc") == expected

    def test_new_columns_are_added(self, opened: Callable[[], Destination]) -> None:
        first = keyed(ORDERS, [{"id": 1, "note": "a", "_cdc_lsn": 10}])
        wider = TargetTable("orders", pa.schema([*ORDERS.schema, ("price", pa.decimal128(9, 2))]))
        empty = keyed(wider, [])
        second = keyed(wider, [{"id": 2, "price": Decimal("1.50"), "_cdc_lsn": 20}])
        with self.load(
            opened, LoadBatch(merges=(first,)), LoadBatch(merges=(empty,))
        ) as destination:
            assert content(destination, "orders", "id", "price") == [(1, None)]
            destination.load(LoadBatch(merges=(second,)), checkpoint(20))
            expected = [(1, None), (2, Decimal("1.50"))]
            assert content(destination, "orders", "id", "price") == expected

    def test_columns_that_a_batch_lacks_stay(self, opened: Callable[[], Destination]) -> None:
        first = keyed(ORDERS, [{"id": n, "note": "a", "doc": "d", "_cdc_lsn": 10} for n in (1, 2)])
        narrower = TargetTable("orders", pa.schema([("id", pa.int64()), ("note", pa.string())]))
        second = keyed(narrower, [{"id": n, "note": "b", "_cdc_lsn": 20} for n in (2, 3)])
        with self.load(
            opened, LoadBatch(merges=(first,)), LoadBatch(merges=(second,))
        ) as destination:
            rows = content(destination, "orders", "id", "note", "doc")
            assert [row[:2] for row in rows] == [(1, "a"), (2, "b"), (3, "b")]
            assert rows[0][2] == "d"
            assert rows[2][2] is None

    def test_an_exact_replacement_keeps_no_other_columns(
        self, opened: Callable[[], Destination]
    ) -> None:
        first = table_of(ORDERS, [{"id": 1, "note": "a", "doc": "d", "_cdc_lsn": 10}])
        only_key = TargetTable("orders", pa.schema([("id", pa.int64())]))
        second = table_of(only_key, [{"id": 2, "_cdc_lsn": 20}])
        third = table_of(only_key, [{"id": 3, "_cdc_lsn": 30}])
        with self.load(opened, first, second) as destination:
            assert content(destination, "orders", "id", "doc") == [(2, None)]
            replace(third, gone=None).load(destination, 30)
            assert content(destination, "orders", "id") == [(3,)]
            with pytest.raises((CdcError, KeyError)):
                content(destination, "orders", "id", "doc")

    def test_types_widen(self, opened: Callable[[], Destination]) -> None:
        def table(small: pa.DataType, real: pa.DataType, price: pa.DataType) -> TargetTable:
            fields = [("id", pa.int64()), ("small", small), ("real", real), ("price", price)]
            return TargetTable("t", pa.schema(fields))

        narrow = table(pa.int16(), pa.float32(), pa.decimal128(4, 2))
        middle = table(pa.int32(), pa.float32(), pa.decimal128(4, 2))
        wide = table(pa.int64(), pa.float64(), pa.decimal128(38, 2))
        row = {"small": -7, "real": 0.5, "price": Decimal("12.34")}
        huge = {"small": 2**60, "real": 0.1, "price": Decimal("9" * 36 + ".99")}
        batches = [
            LoadBatch(merges=(keyed(target, [{"id": n, **values, "_cdc_lsn": 10 + n}]),))
            for n, (target, values) in enumerate([(narrow, row), (middle, row), (wide, huge)])
        ]
        with self.load(opened, *batches) as destination:
            assert content(destination, "t", "id", "small", "real", "price") == [
                (n, *values.values()) for n, values in enumerate([row, row, huge])
            ]

    def test_names_move(self, opened: Callable[[], Destination]) -> None:
        first = keyed(ORDERS, [{"id": 1, "note": "a", "doc": "d", "_cdc_lsn": 10}])
        renamed = TargetTable(
            "sales", pa.schema([("id", pa.int64()), ("remark", pa.string()), ("doc", pa.string())])
        )
        steps = (TableRename("orders", "sales"), ColumnRename("sales", "note", "remark"))
        second = keyed(renamed, [{"id": 2, "remark": "b", "_cdc_lsn": 20}])
        batches = [LoadBatch(merges=(first,)), LoadBatch(merges=(second,), steps=steps)]
        with self.load(opened, *batches, batches[1]) as destination:
            assert dict(destination.tables()) == {"sales": 2}
            assert content(destination, "sales", "id", "remark", "doc") == [
                (1, "a", "d"),
                (2, "b", None),
            ]

    def test_renaming_what_is_not_there_does_nothing(
        self, opened: Callable[[], Destination]
    ) -> None:
        steps = (TableRename("a", "b"), ColumnRename("b", "x", "y"))
        with self.load(opened, LoadBatch(steps=steps)) as destination:
            assert dict(destination.tables()) == {}

    def test_several_merges_of_a_table_are_applied_in_order(
        self, opened: Callable[[], Destination]
    ) -> None:
        merges = [keyed(ORDERS, [{"id": 1, "note": f"n{n}", "_cdc_lsn": n}]) for n in (10, 11, 12)]
        whole = table_of(ORDERS, [{"id": 5, "note": "s", "_cdc_lsn": 5}])
        with opened() as destination:
            batch = replacing(destination, whole, merges=tuple(merges))
            destination.load(batch, checkpoint(100))
        with opened() as destination:
            assert content(destination, "orders", "id", "note") == [(1, "n12"), (5, "s")]

    def test_columns_returns_the_columns_of_tables(self, opened: Callable[[], Destination]) -> None:
        with opened() as destination:
            assert not destination.columns(["orders", "t0"])
            row = keyed(ORDERS, [{"id": 1, "_cdc_lsn": 10}])
            destination.load(LoadBatch(merges=(row,)), checkpoint(10))
            (names,) = destination.columns(["orders", "t0"]).values()
            assert {*names} >= {*ORDERS.schema.names}
            assert not destination.columns([])
            step = ColumnRename("orders", "note", "Remark")
            destination.load(LoadBatch(steps=(step,)), checkpoint(11))
            (names,) = destination.columns(["orders"]).values()
            assert "Remark" in names
            assert "note" not in names

    def test_many_tables_in_one_batch(self, opened: Callable[[], Destination]) -> None:
        targets = [TargetTable(f"t{n}", ORDERS.schema) for n in range(12)]
        merges = tuple(keyed(t, [{"id": n, "_cdc_lsn": 10}]) for n, t in enumerate(targets))
        with self.load(opened, LoadBatch(merges=merges)) as destination:
            assert dict(destination.tables()) == {target.name: 1 for target in targets}

    def test_unrepresentable_values_are_stored_once(
        self, opened: Callable[[], Destination]
    ) -> None:
        cells = [
            {
                "table_name": "orders",
                "column_name": "price",
                "key": '{"id": "1"}',
                "value_text": text,
                "_cdc_lsn": 10,
                "_cdc_committed_at": THEN,
            }
            for text in ("NaN", "Infinity")
        ]
        table = pa.Table.from_pylist(cells, schema=UNREPRESENTABLE_SCHEMA)
        batch = LoadBatch(unrepresentable=(table,))
        with self.load(opened, batch, batch) as destination:
            assert dict(destination.tables()) == {UNREPRESENTABLE_TABLE: 2}
            names = UNREPRESENTABLE_SCHEMA.names
            expected = sorted([tuple(cell[n] for n in names) for cell in cells], key=repr)
            assert content(destination, UNREPRESENTABLE_TABLE, *names) == expected

    def test_unrepresentable_values_may_be_staged_while_rows_are_stored(
        self, opened: Callable[[], Destination]
    ) -> None:
        def cells(text: str) -> pa.Table:
            row = ("orders", "doc", "{}", text, 10, THEN)
            names = UNREPRESENTABLE_SCHEMA.names
            rows = [dict(zip(names, row, strict=True))]
            return pa.Table.from_pylist(rows, schema=UNREPRESENTABLE_SCHEMA)

        with opened() as destination:
            staged = [destination.stage(cells("first"))]

            def rows() -> Iterator[pa.Table]:
                yield from orders([1])
                staged.append(destination.stage(cells("second")))
                yield from orders([2])

            whole = Content(ORDERS, rows()).stored(destination)
            values = (*staged, cells("held"))
            batch = LoadBatch(replacements=(whole,), unrepresentable=values)
            destination.load(batch, checkpoint(10))
        with opened() as destination:
            texts = [("first",), ("held",), ("second",)]
            assert content(destination, UNREPRESENTABLE_TABLE, "value_text") == texts
            assert content(destination, "orders", "id") == [(1,), (2,)]

    def test_unrepresentable_values_follow_renames(self, opened: Callable[[], Destination]) -> None:
        names, odd = UNREPRESENTABLE_SCHEMA.names, 'it\'s \\ "so"'
        odd_table = 'it\'s "so"'  # no table's name has a backslash: `naming` maps it

        def cell(table: str, column: str, **key: str) -> tuple[Any, ...]:
            return table, column, json.dumps(key), "NaN", 10, THEN

        held = [
            cell("orders", "doc", id="1", note='"id": '),
            cell("orders", "note", id="note", note="id"),
            cell("more", "doc", id="1", note="orders"),
        ]
        rows = [dict(zip(names, values, strict=True)) for values in held]
        tables = [TargetTable(name, ORDERS.schema) for name in ("orders", "more")]
        first = LoadBatch(
            merges=tuple(keyed(table, [{"id": 1, "_cdc_lsn": 10}]) for table in tables),
            unrepresentable=(pa.Table.from_pylist(rows, schema=UNREPRESENTABLE_SCHEMA),),
        )
        # Chains, which would go on if they were done once more.
        steps = (
            TableRename("more", odd_table),
            TableRename("orders", "more"),
            ColumnRename("more", "note", odd),
            ColumnRename("more", "id", "note"),
        )
        with self.load(opened, first, LoadBatch(steps=steps), LoadBatch(steps=steps)) as loaded:
            found = content(loaded, UNREPRESENTABLE_TABLE, *names)
        wanted = [
            cell("more", "doc", **{"note": "1", odd: '"id": '}),
            cell("more", odd, **{"note": "note", odd: "id"}),
            cell(odd_table, "doc", id="1", note="orders"),
        ]
        assert found == sorted(wanted, key=repr)

    def test_unrepresentable_values_of_a_table_are_forgotten(
        self, opened: Callable[[], Destination]
    ) -> None:
        names, odd_table = UNREPRESENTABLE_SCHEMA.names, 'it\'s "so"'
        held = [(table, "note", "{}", "NaN", 10, THEN) for table in ("orders", odd_table)]
        rows = [dict(zip(names, values, strict=True)) for values in held]
        first = LoadBatch(
            merges=(keyed(ORDERS, [{"id": 1, "_cdc_lsn": 10}]),),
            unrepresentable=(pa.Table.from_pylist(rows, schema=UNREPRESENTABLE_SCHEMA),),
        )
        forget = LoadBatch(steps=(ForgetUnrepresentable(odd_table),))
        with self.load(opened, LoadBatch(steps=forget.steps), first, forget, forget) as loaded:
            assert content(loaded, UNREPRESENTABLE_TABLE, *names) == held[:1]

    #: Names that break code which quotes carelessly.
    odd_names: ClassVar = [
        "CamelCase", "größe", "a b", 'say "hi"', "it's", "$price", "t", "s", "f", "n", "select",
        "a;b", "x.y", "new\nline", "%s", "🐘", " lead", "back`tick", "back\\slash", "a-b",
        "removal", "load_id", "{x}",
    ]  # fmt: skip

    def test_names_are_kept_exactly(self, opened: Callable[[], Destination]) -> None:
        target = TargetTable(
            "Odd Näme$ 🐘 '\"`;-%s",
            pa.schema([("id", pa.int64())] + [(n, pa.string()) for n in self.odd_names]),
        )
        row = {name: f"v{n}" for n, name in enumerate(self.odd_names)}
        whole = table_of(target, [{"id": 1, **row, "_cdc_lsn": 1}])
        moved = keyed(
            target,
            [
                {"id": 1, "_cdc_op": "D", "_cdc_lsn": 2},
                {"id": 2, **row, "_cdc_lsn": 2, "_cdc_unchanged": ".2.", "_cdc_ref": 0},
                {"id": 1, "_cdc_op": "H", "_cdc_lsn": 0, "_cdc_ref": 0},
            ],
            unchanged_columns=(self.odd_names[1],),
            has_hops=True,
        )
        bag = TargetTable("Odd bag", target.schema)
        bags = [
            multiset(bag, [{"id": 1, **row, "_cdc_lsn": 2}] * 2),
            multiset(bag, [{"id": 1, **row, "_cdc_op": "D", "_cdc_lsn": 3}]),
        ]
        with self.load(
            opened,
            whole,
            LoadBatch(merges=(moved, bags[0])),
            LoadBatch(merges=(bags[1],)),
        ) as destination:
            for name, key in ((target.name, 2), (bag.name, 1)):
                assert content(destination, name, "id", *self.odd_names) == [(key, *row.values())]
            assert len(destination.tables()) == 2
            held = destination.columns([target.name, bag.name, "odd"])
            assert held.keys() == {target.name, bag.name}

    def test_trying_to_write_leaves_nothing_behind(self, opened: Callable[[], Destination]) -> None:
        merge = keyed(ORDERS, [{"id": 1, "note": "a", "_cdc_lsn": 10}])
        with opened() as destination:
            destination.try_writing()
            assert dict(destination.tables()) == {}
            assert destination.volumes() == self.volumes_at_first
            destination.load(LoadBatch(merges=(merge,)), checkpoint(10))
            volumes = destination.volumes()
            destination.try_writing()
            assert dict(destination.tables()) == {"orders": 1}
            assert destination.volumes() == volumes
            assert destination.read_checkpoint() == checkpoint(10)
            assert content(destination, "orders", "id", "note") == [(1, "a")]

    def test_drop_leaves_nothing(self, opened: Callable[[], Destination]) -> None:
        merge = keyed(ORDERS, [{"id": 1, "_cdc_lsn": 1}])
        with self.load(opened, LoadBatch(merges=(merge,))) as destination:
            assert destination.drop()
        with opened() as destination:
            assert destination.read_checkpoint() is None
            assert dict(destination.tables()) == {}
            destination.load(LoadBatch(merges=(merge,)), checkpoint(1))
            assert dict(destination.tables()) == {"orders": 1}

    @pytest.mark.parametrize("way", ["replacement", "merge", "soft delete"])
    def test_every_value_is_the_same_value(
        self, opened: Callable[[], Destination], way: str
    ) -> None:
        target = TargetTable(
            "typed", pa.schema([("id", pa.int64())] + [(n, t) for n, (t, _) in VALUES.items()])
        )
        count = max(len(values) for _, values in VALUES.values())
        rows = [
            {
                "id": n,
                "_cdc_lsn": 1,
                **{
                    name: (values[n] if n < len(values) else None)
                    for name, (_, values) in VALUES.items()
                },
            }
            for n in range(count)
        ]
        batch = (
            table_of(target, rows)
            if way == "replacement"
            else LoadBatch(merges=(keyed(target, rows),))
            if way == "merge"
            else LoadBatch(
                merges=(
                    keyed(target, [{**row, "_cdc_op": "S"} for row in rows], soft_deletes=True),
                )
            )
        )
        again = EMPTY_BATCH if way == "replacement" else batch
        with self.load(opened, batch, again) as destination:
            found = pa.concat_tables(destination.scan("typed", ["id", *VALUES])).sort_by("id")
            assert found.schema.types == target.schema.types
            for name, (_, values) in VALUES.items():
                got = found.column(name).to_pylist()
                wanted = [*values, *[None] * (count - len(values))]
                assert [_bits(v) for v in got] == [_bits(v) for v in wanted], name


def _bits(value: Any) -> Any:
    """A value that is equal only to itself: a float by its bits."""
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return (
        struct.pack("<d", value)
        if isinstance(value, float) and not math.isnan(value)
        else repr(value)
    )


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


NINES = Decimal("9" * 38)
LAST_INSTANT = dt.datetime(9999, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001

VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "bool": (pa.bool_(), [True, False]),
    "int16": (pa.int16(), [-(2**15), 2**15 - 1, 0]),
    "int32": (pa.int32(), [-(2**31), 2**31 - 1]),
    "int64": (pa.int64(), [-(2**63), 2**63 - 1]),
    "float32": (
        pa.float32(),
        [math.nan, math.inf, -math.inf, -0.0, *map(_float32, (0.1, 3.4028235e38, 1e-45))],
    ),
    "float64": (
        pa.float64(),
        [math.nan, math.inf, -math.inf, -0.0, 0.1, 1.7976931348623157e308, 5e-324],
    ),
    "decimal_38_0": (pa.decimal128(38, 0), [NINES, NINES.copy_negate(), Decimal(0)]),
    "decimal_38_38": (pa.decimal128(38, 38), [Decimal("0." + "9" * 38)]),
    "decimal_12_2": (pa.decimal128(12, 2), [Decimal("0.01"), Decimal("-9999999999.99")]),
    "decimal_4_1": (pa.decimal128(4, 1), [Decimal("999.9")]),
    "decimal_18_0": (pa.decimal128(18, 0), [Decimal("9" * 18)]),
    "text": (
        pa.string(),
        ["", " ", "\U0001f418\U0010ffff", "a'b\"c\\d;e\nf\tg\r\n", "x" * 100_000, "NULL", "%s {}"],
    ),
    "bytes": (pa.binary(), [b"", b"\x00\xff\x00", bytes(range(256))]),
    "date": (pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1582, 10, 10)]),
    "naive": (
        pa.timestamp("us"),
        [
            dt.datetime(1, 1, 1),  # noqa: DTZ001
            LAST_INSTANT,
            dt.datetime(1900, 1, 1, 0, 0, 0, 1),  # noqa: DTZ001
            dt.datetime(2024, 3, 31, 2, 30),  # noqa: DTZ001 - skipped by many clocks
        ],
    ),
    "zoned": (
        pa.timestamp("us", tz="UTC"),
        [
            dt.datetime(1, 1, 1, tzinfo=UTC),
            LAST_INSTANT.replace(tzinfo=UTC),
            dt.datetime(1900, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        ],
    ),
}
