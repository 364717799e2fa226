"""Rows of a partition by its bounds, and whether two partitions can have the same row."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from adapters.pgoutput.catalog.partition_bounds import partition_bounds
from cdc_core.values.partition_bounds import Bound, comparable, disjoint, rows_within

TYPES = {1: pa.int64(), 2: pa.timestamp("us", tz="UTC"), 3: pa.string(), 4: pa.decimal128(6, 2)}


def range_(low: str | None, high: str | None, attnum: int = 1) -> Bound:
    return Bound(attnum, None, low, high)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("1 FOR VALUES FROM (0) TO (10)", (range_("0", "10"),)),
        ("1 FOR VALUES FROM ('-5') TO (MAXVALUE)", (range_("-5", None),)),
        ("1 FOR VALUES FROM (MINVALUE) TO ('2024-01-01')", (range_(None, "2024-01-01"),)),
        ("2 FOR VALUES IN ('a', 'b, ''c', '3')", (Bound(2, ("a", "b, 'c", "3")),)),
        ("1 FOR VALUES IN (1, 2)", (Bound(1, ("1", "2")),)),
        ("1 FOR VALUES IN (1, NULL)", ()),
        ("1 FOR VALUES FROM (0, 1) TO (10, 1)", ()),
        ("1 FOR VALUES IN (E'a\\\\b')", ()),
        ("1 DEFAULT", ()),
        (None, ()),
    ],
)
def test_text(text: str | None, bounds: tuple[Bound, ...]) -> None:
    assert partition_bounds([text]) == bounds
    assert partition_bounds(["1 FOR VALUES IN (1)", text]) == (
        (Bound(1, ("1",)), *bounds) if bounds else ()
    )


@pytest.mark.parametrize(
    ("bound", "known"),
    [
        (range_("0", "10"), True),
        (range_("2024-01-01 00:00:00+00", None, 2), True),
        (range_("infinity", None, 2), False),
        (range_("a", "b", 3), False),
        (Bound(3, ("a",)), False),
        (range_("1.5", "2.25", 4), True),
        (range_("1.505", None, 4), False),
        (range_("0", "10", 9), False),
    ],
)
def test_what_can_be_compared(bound: Bound, known: bool) -> None:
    assert comparable((bound,), TYPES) is known
    assert not comparable((), TYPES)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([range_("0", "10")], [range_("10", "20")], True),
        ([range_("0", "10")], [range_("9", "20")], False),
        ([range_(None, "10")], [range_("10", None)], True),
        ([range_(None, "10")], [range_(None, "-100")], False),
        ([Bound(1, ("1", "2"))], [Bound(1, ("3",))], True),
        ([Bound(1, ("1", "2"))], [Bound(1, ("2",))], False),
        ([Bound(1, ("1", "10"))], [range_("2", "10")], True),
        ([range_("2", "11")], [Bound(1, ("1", "10"))], False),
        # Of two levels it is enough that one differs; of other columns nothing is known.
        ([range_("0", "9"), range_("1", "2", 4)], [range_("0", "9"), range_("2", "3", 4)], True),
        ([range_("0", "10")], [range_("10", "20", 4)], False),
    ],
)
def test_whether_two_have_no_row_in_common(
    one: list[Bound], other: list[Bound], apart: bool
) -> None:
    assert disjoint(one, other, TYPES) is apart
    assert disjoint(other, one, TYPES) is apart


@pytest.mark.parametrize(
    ("type_", "values", "bound", "within"),
    [
        (pa.int32(), [-6, -5, 9, 10], range_("-5", "10"), [1, 2]),
        (pa.int64(), [1, 2, 3], Bound(1, ("1", "3")), [0, 2]),
        (pa.date32(), [date(2023, 12, 31), date(2024, 1, 1)], range_("2024-01-01", None), [1]),
        (pa.decimal128(6, 2), [Decimal("1.49"), Decimal("1.50")], range_(None, "1.5"), [0]),
        (
            pa.timestamp("us", tz="UTC"),
            [datetime(2024, 1, 31, 23, 59, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)],
            range_("2024-01-01 00:00:00+00", "2024-02-01 00:00:00+00"),
            [0],
        ),
    ],
)
def test_rows(type_: pa.DataType, values: list[Any], bound: Bound, within: list[int]) -> None:
    rows = pa.table({"at": pa.array(values, type_)})
    assert rows_within(rows, [bound], {1: "at"}).nonzero()[0].tolist() == within
