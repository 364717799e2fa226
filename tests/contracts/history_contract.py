"""What every `Destination` promises of history tables."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from cdc_core.values.history import (
    LOG_CONTROL_FIELDS,
    LOG_FIELDS,
    TRUNCATE_NUMBERS,
    VERSION_FIELDS,
    HistoryDifference,
    LogAppend,
    LogTruncate,
    Moment,
    VersionMerge,
)
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import (
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    ColumnRename,
    TableRename,
    TargetTable,
)
from tests.contracts.destination_contract import (
    ORDERS,
    Content,
    checkpoint,
    content,
    keyed,
    replacing,
    table_of,
)
from tests.contracts.opened_destination import OpenedDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cdc_core.ports.destination import Destination
    from cdc_core.values.history import HistoryStep

UTC = dt.UTC
EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
LOG, VERSIONS = "orders_history", "orders_scd2"
LINES = TargetTable("lines", pa.schema([("what", pa.string()), ("x", pa.float64())]))
#: Columns of a log in the order in which tests write images.
IMAGE = ("_sort_by", "_pg_change_type", "id", "note", "doc")
VERSION = ("id", "note", "doc", "_cdc_lsn", "_cdc_end_lsn")


def at(lsn: int) -> Moment:
    """A moment whose time follows from its LSN."""
    return Moment(Lsn(lsn), lsn * 1_000_000)


def time(lsn: int) -> dt.datetime:
    return EPOCH + dt.timedelta(seconds=lsn)


def image(
    number: int,
    kind: str,
    values: Sequence[Any],
    lsn: int = 20,
    unchanged: str | None = None,
    base: int | None = None,
) -> dict[str, Any]:
    """A row of a `LogAppend` for `ORDERS`."""
    return {
        **dict(zip(ORDERS.schema.names, values, strict=True)),
        "_pg_change_type": kind,
        "_pg_lsn": lsn,
        "_pg_xid": 700 + lsn,
        "_timestamp": time(lsn),
        "_sort_by": number,
        "_cdc_unchanged": unchanged,
        "_cdc_base": base,
    }


def images(rows: Iterable[dict[str, Any]], target: TargetTable = ORDERS) -> pa.Table:
    schema = pa.schema([*target.schema, *LOG_FIELDS, *LOG_CONTROL_FIELDS])
    return pa.Table.from_pylist(list(rows), schema=schema)


def append(*rows: dict[str, Any], batch_first: int | None = None) -> LogAppend:
    first = rows[0]["_sort_by"]
    batch_first = first if batch_first is None else batch_first
    wanted = [r["_cdc_unchanged"] or "" for r in rows]
    columns = tuple(
        name for n, name in enumerate(ORDERS.schema.names) if any(f".{n}." in w for w in wanted)
    )
    return LogAppend(LOG, ORDERS, ("id",), images(rows), first, batch_first, columns)


def versions(
    *rows: tuple[str, int, Sequence[Any]], truncated: Moment | None = None, **more: Any
) -> VersionMerge:
    """A `VersionMerge` of `ORDERS`; each row is its operation, LSN and values."""
    schema = pa.schema([*ORDERS.schema, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])
    found = [
        {
            **dict(zip([*ORDERS.schema.names, "_cdc_unchanged", "_cdc_ref"], values, strict=False)),
            "_cdc_op": op,
            "_cdc_lsn": lsn,
            "_cdc_committed_at": time(lsn),
        }
        for op, lsn, values in rows
    ]
    table = pa.Table.from_pylist(found, schema=schema)
    return VersionMerge(VERSIONS, ORDERS, ("id",), table, truncated, **more)


def whole(*rows: Sequence[Any], lsn: int = 10, **more: Any) -> Content:
    """The whole content of `ORDERS`."""
    found = [
        {
            **dict(zip(ORDERS.schema.names, values, strict=True)),
            "_cdc_lsn": lsn,
            "_cdc_committed_at": time(lsn),
        }
        for values in rows
    ]
    return table_of(ORDERS, found, key=("id",), **more)


def numbered(destination: Destination, log: str, *columns: str) -> list[tuple[Any, ...]]:
    """The images of a log in order."""
    found = content(destination, log, "_sort_by", *columns)
    return [image[1:] for image in sorted(found, key=lambda image: int(image[0]))]


class HistoryContract(OpenedDestination):
    """Tests of the port; see `DestinationContract`."""

    def load(
        self,
        destination: Destination,
        *steps: HistoryStep,
        replacements: Iterable[Content] = (),
        **batch: Any,
    ) -> None:
        loaded = replacing(destination, *replacements, history=steps, **batch)
        destination.load(loaded, checkpoint(1))

    # The log.

    def test_images_are_written_once(self, destination: Destination) -> None:
        rows = [
            image(5, "insert", (1, "a", "x")),
            image(6, "update_preimage", (1, "a", "x"), 21),
            image(7, "update_postimage", (1, "b", None), 21),
        ]
        self.load(destination, append(*rows[:2]))
        self.load(destination, append(*rows), append(image(8, "delete", (1, "b", None), 22)))
        names = [*IMAGE, "_pg_lsn", "_pg_xid", "_timestamp"]
        assert content(destination, LOG, *names) == [
            (5, "insert", 1, "a", "x", 20, 720, time(20)),
            (6, "update_preimage", 1, "a", "x", 21, 721, time(21)),
            (7, "update_postimage", 1, "b", None, 21, 721, time(21)),
            (8, "delete", 1, "b", None, 22, 722, time(22)),
        ]
        (columns,) = destination.columns([LOG]).values()
        own = [name for name in columns if not name.startswith("_dlt")]
        assert own == [*ORDERS.schema.names, *(f.name for f in LOG_FIELDS)]
        assert dict(destination.last_numbers([LOG, "no_such_log"])) == {LOG: 8}

    def test_numbers_are_asked_for_before_anything_is_there(
        self, opened: Callable[[], Destination]
    ) -> None:
        with opened() as destination:
            assert dict(destination.last_numbers([LOG])) == {}
            assert dict(destination.last_numbers([])) == {}
            first = whole((1, "a", "x"), history=_difference(10, 1))
            self.load(destination, replacements=(first,))
        with opened() as destination:
            assert content(destination, "orders", "id") == [(1,)]
            assert content(destination, LOG, "id") == [(1,)]

    def test_values_that_were_not_sent_are_those_of_the_table(
        self, destination: Destination
    ) -> None:
        table = keyed(ORDERS, [{"id": 1, "note": "a", "doc": "big", "_cdc_lsn": 10}])
        self.load(destination, merges=(table,))
        log = append(
            image(3, "update_preimage", (1, None, None), 20, ".1.2.", 3),
            image(4, "update_postimage", (1, "b", None), 20, ".2.", 3),
            image(5, "update_preimage", (1, "b", None), 21, ".2.", 3),
            image(6, "update_postimage", (2, "b", None), 21, ".2.", 3),
            image(7, "delete", (9, None, None), 22, ".1.2.", 7),
        )
        merge = keyed(
            ORDERS,
            [
                {"id": 1, "_cdc_op": "D", "_cdc_lsn": 21},
                {"id": 2, "note": "b", "_cdc_lsn": 21, "_cdc_unchanged": ".2.", "_cdc_ref": 0},
                {"id": 1, "_cdc_op": "H", "_cdc_lsn": 0, "_cdc_ref": 0},
                {"id": 9, "_cdc_op": "D", "_cdc_lsn": 22},
            ],
            unchanged_columns=("doc",),
            has_hops=True,
        )
        wanted = [
            (3, "update_preimage", 1, "a", "big"),
            (4, "update_postimage", 1, "b", "big"),
            (5, "update_preimage", 1, "b", "big"),
            (6, "update_postimage", 2, "b", "big"),
            (7, "delete", 9, None, None),
        ]
        # The second time the table is past these events.
        for _ in range(2):
            self.load(destination, log, merges=(merge,))
            assert content(destination, LOG, *IMAGE) == wanted
            assert content(destination, "orders", "id", "doc") == [(2, "big")]

    def test_values_are_found_in_images_that_a_killed_run_left(
        self, destination: Destination
    ) -> None:
        first = [
            image(3, "update_preimage", (1, None, None), 20, ".1.2.", 3),
            image(4, "update_postimage", (2, "b", None), 20, ".2.", 3),
        ]
        table = keyed(ORDERS, [{"id": 1, "note": "a", "doc": "big", "_cdc_lsn": 10}])
        self.load(destination, merges=(table,))
        self.load(destination, append(*first))
        # Its merge took the row from the key under which the next batch asks for it.
        gone = keyed(ORDERS, [{"id": 1, "_cdc_op": "D", "_cdc_lsn": 20}])
        self.load(destination, merges=(gone,))
        last = image(5, "update_preimage", (2, "b", None), 21, ".2.", 3)
        self.load(destination, append(*first, last))
        assert content(destination, LOG, *IMAGE)[2:] == [(5, "update_preimage", 2, "b", "big")]

    def test_values_are_found_in_earlier_parts_of_the_batch(self, destination: Destination) -> None:
        older = image(1, "insert", (1, "older", "older"), 5)
        table = keyed(ORDERS, [{"id": 1, "note": "a", "doc": "old", "_cdc_lsn": 10}])
        self.load(destination, append(older), merges=(table,))
        parts = [
            append(
                image(3, "update_preimage", (1, None, None), 20, ".1.2.", 3),
                image(4, "update_postimage", (1, "b", "new"), 20),
            ),
            append(
                image(5, "update_preimage", (1, None, None), 20, ".1.2.", 5),
                image(6, "update_postimage", (1, "c", None), 20, ".2.", 5),
                batch_first=3,
            ),
        ]
        for _ in range(2):
            self.load(destination, *parts)
            assert content(destination, LOG, *IMAGE)[1:] == [
                (3, "update_preimage", 1, "a", "old"),
                (4, "update_postimage", 1, "b", "new"),
                (5, "update_preimage", 1, "b", "new"),
                (6, "update_postimage", 1, "c", "new"),
            ]

    def test_staged_images_are_a_part_of_the_append(self, destination: Destination) -> None:
        early = images([image(1, "insert", (1, "a", "x")), image(2, "insert", (2, "a", "y"))])
        late = [image(3, "update_preimage", (2, None, None), 20, ".1.2.", 3)]
        for _ in range(2):
            staged = destination.stage(early)
            log = LogAppend(LOG, ORDERS, ("id",), images(late), 1, 1, ("note", "doc"), (staged,))
            self.load(destination, log)
            found = content(destination, LOG, "_sort_by", "id")
            assert found == [(1, 1), (2, 2), (3, 2)]
        for number in (4, 5):
            staged = destination.stage(images([image(number, "insert", (number, "b", None))]))
            log = LogAppend(LOG, ORDERS, ("id",), images([]), number, 1, (), (staged,))
            self.load(destination, log)
        assert len(content(destination, LOG, "_sort_by")) == 5

    def test_truncation_deletes_what_is_live_before_it(self, destination: Destination) -> None:
        before = append(
            image(1, "insert", (1, "a", "x")),
            image(2, "insert", (2, "a", "y")),
            image(3, "update_preimage", (1, "a", "x")),
            image(4, "update_postimage", (3, "b", "x")),
            image(5, "insert", (4, "a", None)),
            image(6, "delete", (4, "a", None)),
        )
        truncate = LogTruncate(LOG, ORDERS, ("id",), 7, at(30), 730)
        after = 7 + TRUNCATE_NUMBERS
        more = append(image(after, "insert", (2, "c", None), 30), batch_first=1)
        wanted = [("delete", 2, "a", "y"), ("delete", 3, "b", "x"), ("insert", 2, "c", None)]
        for _ in range(2):
            self.load(destination, before, truncate, more)
            found = numbered(destination, LOG, *IMAGE)
            assert sorted(row[1:] for row in found[6:]) == wanted
        numbers = [row[0] for row in found[6:8]]
        assert len({*numbers}) == 2
        assert all(7 <= number < after for number in numbers)
        stamps = numbered(destination, LOG, "_pg_lsn", "_pg_xid", "_timestamp")
        assert stamps[6:8] == [(30, 730, time(30))] * 2
        self.load(destination, LogTruncate("none_history", ORDERS, ("id",), 1, at(30), 730))
        assert content(destination, "none_history", "_sort_by") == []

    def test_truncation_without_key_counts_contents(self, destination: Destination) -> None:
        rows = [
            (1, "insert", "a", 0.0),
            (2, "insert", "a", 0.0),
            (3, "insert", "a", -0.0),
            (4, "insert", None, float("nan")),
            (5, "delete", "a", 0.0),
            (6, "update_preimage", "a", -0.0),
            (7, "update_postimage", "b", None),
        ]
        names = ("_sort_by", "_pg_change_type", *LINES.schema.names)
        found = [{**dict(zip(names, row, strict=True)), "_pg_lsn": 9} for row in rows]
        log = LogAppend("lines_history", LINES, (), images(found, LINES), 1, 1)
        truncate = LogTruncate("lines_history", LINES, (), 8, at(30), 730)
        for _ in range(2):
            self.load(destination, log, truncate)
            images_ = content(destination, "lines_history", *names)
            deleted = sorted(repr(row[2:]) for row in images_ if row[0] >= 8)
            assert deleted == ["('a', 0.0)", "('b', None)", "(None, nan)"]

    @pytest.mark.parametrize("again", [False, True])
    def test_a_full_load_logs_the_difference(
        self, destination: Destination, *, again: bool
    ) -> None:
        first = whole((1, "a", "x"), (2, "a", None), (3, "a", "z"), history=_difference(10, 100))
        self.load(destination, replacements=(first,))
        found = content(destination, LOG, "_pg_change_type", "id", "note", "doc")
        inserted = [("insert", 1, "a", "x"), ("insert", 2, "a", None), ("insert", 3, "a", "z")]
        assert found == inserted
        # Somebody's change of the table is not a change of the source.
        spoiled = keyed(ORDERS, [{"id": 3, "note": "not so", "_cdc_lsn": 10}])
        self.load(destination, merges=(spoiled,))
        rows = ((2, "a", ""), (3, "a", "z"), (4, "b", None))
        number = 1000
        for _ in range(1 + again):
            self.load(destination, replacements=(whole(*rows, history=_difference(40, number)),))
            number += 1000
        names = (*IMAGE, "_pg_lsn", "_pg_xid", "_timestamp")
        found = numbered(destination, LOG, *names)[3:]
        assert sorted(row[1:5] for row in found) == [
            ("delete", 1, "a", "x"),
            ("insert", 4, "b", None),
            ("update_postimage", 2, "a", ""),
            ("update_preimage", 2, "a", None),
        ]
        assert {row[5:] for row in found} == {(40, None, time(40))}
        numbers = {row[1]: row[0] for row in found}
        assert numbers["update_postimage"] == numbers["update_preimage"] + 1
        assert len({*numbers.values()}) == 4
        assert min(numbers.values()) >= 1000
        assert content(destination, "orders", "id", "note", "doc") == sorted(rows)

    def test_a_full_load_without_key_logs_the_difference_of_contents(
        self, destination: Destination
    ) -> None:
        names = ("what", "x")

        def lines(*rows: tuple[str, float | None]) -> Content:
            found = [{**dict(zip(names, row, strict=True)), "_cdc_lsn": 1} for row in rows]
            number = 1 + max(destination.last_numbers(["lines_history"]).values(), default=0)
            history = HistoryDifference(at(40), "lines_history", number)
            return table_of(LINES, found, history=history)

        self.load(destination, replacements=(lines(("a", 0.0), ("a", 0.0), ("b", None)),))
        for _ in range(2):
            after = lines(("a", 0.0), ("b", None), ("b", None), ("a", -0.0))
            self.load(destination, replacements=(after,))
        found = numbered(destination, "lines_history", "_sort_by", "_pg_change_type", *names)
        assert len({row[0] for row in found}) == 6
        assert sorted(repr(row[1:]) for row in found[3:]) == [
            "('delete', 'a', 0.0)",
            "('insert', 'a', -0.0)",
            "('insert', 'b', None)",
        ]

    def test_repaired_rows_log_the_difference_of_their_keys(self, destination: Destination) -> None:
        first = whole((1, "a", "x"), (2, "a", "y"), (3, "a", "z"), history=_difference(10, 1))
        self.load(destination, replacements=(first,))
        number = 100
        for _ in range(2):
            merge = keyed(
                ORDERS,
                [
                    {"id": 1, "note": "b", "doc": "x", "_cdc_lsn": 40},
                    {"id": 2, "_cdc_op": "D", "_cdc_lsn": 40},
                    {"id": 3, "note": "a", "doc": "z", "_cdc_lsn": 40},
                    {"id": 5, "_cdc_op": "D", "_cdc_lsn": 40},
                ],
                history=_difference(40, number),
            )
            self.load(destination, merges=(merge,))
            number += 100
        found = content(destination, LOG, "_pg_lsn", "_pg_change_type", "id", "note", "doc")
        assert [row[1:] for row in found if row[0] == 40] == [
            ("delete", 2, "a", "y"),
            ("update_postimage", 1, "b", "x"),
            ("update_preimage", 1, "a", "x"),
        ]
        assert content(destination, VERSIONS, *VERSION) == [
            (1, "a", "x", 10, 40),
            (1, "b", "x", 40, None),
            (2, "a", "y", 10, 40),
            (3, "a", "z", 10, None),
        ]

    # Versions.

    def test_versions_begin_and_end(self, destination: Destination) -> None:
        batches = [
            versions(
                ("U", 10, (1, "a", "x")),
                ("U", 10, (2, "a", "y")),
                ("U", 12, (1, "b", "x")),
                ("D", 14, (2, None, None)),
                ("D", 14, (7, None, None)),
            ),
            versions(("U", 20, (2, "c", None)), ("D", 21, (1, None, None))),
        ]
        wanted = [
            (1, "a", "x", 10, 12),
            (1, "b", "x", 12, 21),
            (2, "a", "y", 10, 14),
            (2, "c", None, 20, None),
        ]
        self.load(destination, *batches)
        for again in (batches[:1], batches[1:], batches):
            assert content(destination, VERSIONS, *VERSION) == wanted
            self.load(destination, *again)
        assert content(destination, VERSIONS, *VERSION) == wanted
        ends = content(destination, VERSIONS, "_cdc_lsn", "__START_AT", "_cdc_end_lsn", "__END_AT")
        assert ends == sorted(
            (start, time(start), end, end and time(end)) for *_, start, end in wanted
        )
        (columns,) = destination.columns([VERSIONS]).values()
        own = [name for name in columns if not name.startswith("_dlt")]
        assert own == [*ORDERS.schema.names, *(f.name for f in VERSION_FIELDS)]

    def test_a_batch_with_other_borders_continues_what_a_killed_run_left(
        self, destination: Destination
    ) -> None:
        rows = [("U", lsn, (1, f"n{lsn}", None)) for lsn in range(10, 15)]
        self.load(destination, versions(*rows[:4]))
        for part in (rows[:2], rows[2:3], rows[3:]):
            self.load(destination, versions(*part))
        assert content(destination, VERSIONS, *VERSION) == [
            (1, f"n{lsn}", None, lsn, lsn + 1 if lsn < 14 else None) for lsn in range(10, 15)
        ]

    def test_values_of_versions_that_were_not_sent(self, destination: Destination) -> None:
        self.load(destination, versions(("U", 10, (1, "a", "old")), ("U", 11, (1, "b", "big"))))
        rows = [
            ("U", 20, (1, "c", None, ".2.", 7)),
            ("D", 21, (1, None, None)),
            ("U", 21, (2, "d", None, ".2.", 7)),
            ("B", 20, (1, None, None, None, 7)),
            ("U", 21, (3, "new", None, ".2.", 8)),
            ("B", 21, (9, None, None, None, 8)),
        ]
        merge = versions(*rows, unchanged_columns=("doc",))
        # The second time the versions are past the batch.
        for _ in range(2):
            self.load(destination, merge)
            assert content(destination, VERSIONS, *VERSION) == [
                (1, "a", "old", 10, 11),
                (1, "b", "big", 11, 20),
                (1, "c", "big", 20, 21),
                (2, "d", "big", 21, None),
                (3, "new", None, 21, None),
            ]

    def test_truncation_ends_older_versions(self, destination: Destination) -> None:
        first = versions(*[("U", 10 + n, (n, "a", None)) for n in range(3)])
        ended = versions(("U", 20, (1, "b", None)), truncated=at(20))
        nothing_else = versions(truncated=at(21))
        for _ in range(2):
            self.load(destination, first, ended)
            assert content(destination, VERSIONS, *VERSION) == [
                (0, "a", None, 10, 20),
                (1, "a", None, 11, 20),
                (1, "b", None, 20, None),
                (2, "a", None, 12, 20),
            ]
        self.load(destination, nothing_else)
        ends = content(destination, VERSIONS, "_cdc_lsn", "_cdc_end_lsn", "__END_AT")
        assert ends[-1] == (20, 21, time(21))

    def test_staged_rows_are_a_part_of_the_versions(self, destination: Destination) -> None:
        early = versions(("U", 10, (1, "a", None)), ("U", 10, (2, "a", None))).rows
        for _ in range(2):
            staged = destination.stage(early)
            late = versions(("D", 11, (2, None, None)), staged=(staged,))
            self.load(destination, late)
            assert content(destination, VERSIONS, *VERSION) == [
                (1, "a", None, 10, None),
                (2, "a", None, 10, 11),
            ]

    def test_a_full_load_keeps_the_versions_of_unchanged_rows(
        self, destination: Destination
    ) -> None:
        first = whole((1, "a", "x"), (2, "a", None), (3, "a", "z"), history=_difference(10, 100))
        self.load(destination, replacements=(first,))
        for number in (1000, 2000):
            rows = ((2, "a", ""), (3, "a", "z"), (4, "b", None))
            history = _difference(40, number)
            self.load(destination, replacements=(whole(*rows, history=history),))
            assert content(destination, VERSIONS, *VERSION) == [
                (1, "a", "x", 10, 40),
                (2, "a", "", 40, None),
                (2, "a", None, 10, 40),
                (3, "a", "z", 10, None),
                (4, "b", None, 40, None),
            ]

    # Both.

    def test_history_follows_definitions(self, destination: Destination) -> None:
        first = append(image(1, "insert", (1, "a", "x")))
        self.load(destination, first, versions(("U", 10, (1, "a", "x"))))
        wide = TargetTable("orders", pa.schema([*ORDERS.schema, ("more", pa.int64())]))
        row = {**image(2, "insert", (2, "b", None)), "more": 5}
        log = LogAppend(LOG, wide, ("id",), images([row], wide), 2, 2)
        self.load(destination, log)
        names = ("_sort_by", "note", "more")
        assert content(destination, LOG, *names) == [(1, "a", None), (2, "b", 5)]
        steps = (
            ColumnRename(LOG, "note", "remark"),
            ColumnRename(VERSIONS, "note", "remark"),
            TableRename(LOG, "sales_history"),
        )
        for _ in range(2):
            self.load(destination, steps=steps)
        assert content(destination, "sales_history", "_sort_by", "remark") == [(1, "a"), (2, "b")]
        assert content(destination, VERSIONS, "remark") == [("a",)]


def _difference(lsn: int, first: int) -> HistoryDifference:
    return HistoryDifference(at(lsn), LOG, first, VERSIONS)
