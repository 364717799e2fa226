"""Rows of queries: every binary value against Python's own, at any place of any row."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.pgoutput.wire.query_rows import COPY, RECORD, PackedRows, ReadRows, decode_rows
from adapters.pgoutput.wire.type_rules import arrow_type, reads_binary
from adapters.pgoutput.wire.types import TypeMap
from cdc_core.values.errors import DecodeError
from cdc_core.values.relation import Column
from tests.unit.adapters.pgoutput.wire.records import packed

TYPES = TypeMap()
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def columns(*types: tuple[int, int]) -> list[Column]:
    return [
        Column(f"c{n}", arrow_type(TYPES[oid], typmod), oid, typmod)
        for n, (oid, typmod) in enumerate(types)
    ]


def decode(types: list[tuple[int, int]], rows: list[list[Any]], packing: Any = COPY) -> ReadRows:
    found = decode_rows(packed([oid for oid, _ in types], rows, packing), columns(*types), TYPES)
    found.rows.validate(full=True)
    return found


def decimal(precision: int, scale: int) -> int:
    return (precision << 16 | scale) + 4


def scaled(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda n: Decimal(n).scaleb(-scale))


VALUES: dict[tuple[int, int], st.SearchStrategy[Any]] = {
    (16, -1): st.booleans(),
    (21, -1): st.integers(-(2**15), 2**15 - 1),
    (23, -1): st.integers(-(2**31), 2**31 - 1),
    (20, -1): st.integers(-(2**63), 2**63 - 1),
    (700, -1): st.floats(width=32, allow_nan=False),
    (701, -1): st.floats(allow_nan=False),
    (25, -1): st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    (3802, -1): st.sampled_from(['{"a": 1}', "[]", '"ü"']),
    (114, -1): st.sampled_from(['{"a" :  1}', "null"]),
    (17, -1): st.binary(max_size=9),
    (1082, -1): st.dates(),
    (1114, -1): st.datetimes(),
    (1184, -1): st.datetimes(timezones=st.just(UTC)),
    (1700, decimal(12, 2)): scaled(12, 2),
    (1700, decimal(15, 0)): scaled(15, 0),
    (1700, decimal(15, 15)): scaled(15, 15),
    (1700, decimal(7, 5)): scaled(7, 5),
    (1700, decimal(1, 1)): scaled(1, 1),
}


@settings(max_examples=150)
@given(data=st.data(), packing=st.sampled_from([COPY, RECORD]))
def test_rows_of_any_types_with_nulls_anywhere(data: st.DataObject, packing: Any) -> None:
    types = data.draw(st.lists(st.sampled_from(list(VALUES)), max_size=8))
    cells = [
        st.none() | VALUES[kind] if data.draw(st.booleans()) else VALUES[kind] for kind in types
    ]
    rows = [list(row) for row in data.draw(st.lists(st.tuples(*cells), max_size=6))]
    found = decode(types, rows, packing)
    assert found.unrepresentable == ()
    assert [list(row.values()) for row in found.rows.to_pylist()] == rows
    assert found.rows.schema.types == [column.arrow_type for column in columns(*types)]


def test_many_columns_of_one_width() -> None:
    types = [(20, -1), (16, -1)] * 200
    rows = [[n, n % 2 == 0] * 200 for n in range(5)]
    rows[3][350] = None
    assert [list(row.values()) for row in decode(types, rows, RECORD).rows.to_pylist()] == rows


def test_floats_keep_their_bits() -> None:
    quiet = struct.unpack(">d", bytes.fromhex("7ff8000000001234"))[0]
    found = decode([(701, -1)], [[quiet], [-0.0], [math.inf], [-math.inf], [5e-324]])
    bits = np.asarray(found.rows.column(0)).view(np.int64)
    assert [hex(int(n) & (1 << 64) - 1) for n in bits] == [
        "0x7ff8000000001234", "0x8000000000000000", "0x7ff0000000000000", "0xfff0000000000000",
        "0x1",
    ]  # fmt: skip


#: Of days since 2000-01-01, as PostgreSQL prints them.
ODD_DATES = {
    2**31 - 1: "infinity",
    -(2**31): "-infinity",
    (date(9999, 12, 31) - date(2000, 1, 1)).days + 1: "10000-01-01",
    (date(1, 1, 1) - date(2000, 1, 1)).days - 1: "0001-12-31 BC",
    (date(1, 1, 1) - date(2000, 1, 1)).days - 366: "0001-01-01 BC",
    -2451545: "4714-11-24 BC",
    2145031948: "5874897-12-31",
}


def test_dates_out_of_range_keep_postgresqls_text() -> None:
    found = decode([(1082, -1)], [[day] for day in (0, *ODD_DATES, None)])
    assert found.rows.column(0).to_pylist() == [date(2000, 1, 1)] + [None] * (len(ODD_DATES) + 1)
    assert [odd.text for odd in found.unrepresentable] == list(ODD_DATES.values())
    assert [odd.row for odd in found.unrepresentable] == list(range(1, len(ODD_DATES) + 1))


@pytest.mark.parametrize(("oid", "zone"), [(1114, ""), (1184, "+00")])
def test_timestamps_out_of_range_keep_postgresqls_text(oid: int, zone: str) -> None:
    day = 86_400_000_000
    first_after = ((datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)) + 1
    odd = {
        2**63 - 1: "infinity",
        -(2**63): "-infinity",
        first_after: f"10000-01-01 00:00:00{zone}",
        first_after + 3_723_000_100: f"10000-01-01 01:02:03.0001{zone}",
        -730119 * day - 1: f"0001-12-31 23:59:59.999999{zone} BC",
        -2451545 * day: f"4714-11-24 00:00:00{zone} BC",
        106_751_983 * day: _far_off(106_751_983, zone),
    }
    found = decode([(oid, -1)], [[instant] for instant in (0, *odd, None)])
    assert found.rows.column(0).null_count == len(odd) + 1
    assert [cell.text for cell in found.unrepresentable] == list(odd.values())


def _far_off(day: int, zone: str) -> str:
    """Python's calendar repeats every 400 years."""
    cycles, rest = divmod(day, 146_097)
    there = date(2000, 1, 1) + timedelta(days=rest)
    return f"{there.year + 400 * cycles}-{there:%m-%d} 00:00:00{zone}"


def test_numbers_that_are_none() -> None:
    kind = (1700, decimal(12, 2))
    odd = [Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity")]
    found = decode([kind], [[Decimal("1.50")], *([value] for value in odd), [None]])
    assert found.rows.column(0).to_pylist() == [Decimal("1.50"), None, None, None, None]
    assert [(cell.row, cell.text) for cell in found.unrepresentable] == [
        (1, "NaN"), (2, "Infinity"), (3, "-Infinity"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("oid", "typmod", "value"),
    [
        (23, -1, b"\0\0\1"),
        (20, -1, b""),
        (16, -1, b"\0\0"),
        (3802, -1, b"\2{}"),
        (3802, -1, b""),
        (25, -1, b"\xff"),
        (1700, decimal(4, 2), Decimal("100.00")),
        (1700, decimal(4, 2), Decimal("1.001")),
        (1700, decimal(4, 2), Decimal("1E+20")),
        (1700, decimal(4, 2), b"\0\1\0\0\0\0\0\0"),
        (1700, decimal(4, 2), b"\0\0\0\0\x12\x34\0\0"),
        (1700, decimal(4, 2), b"\0"),
    ],
)
def test_a_value_not_of_its_type_is_an_error(oid: int, typmod: int, value: Any) -> None:
    with pytest.raises(DecodeError, match="a value of column 'c1' of type"):
        decode([(25, -1), (oid, typmod)], [["a", None], ["b", value]])


@settings(max_examples=60)
@given(data=st.data())
def test_garbage_is_an_error_or_reads(data: st.DataObject) -> None:
    types = [(20, -1), (25, -1), (1700, decimal(12, 2)), (23, -1)]
    rows = packed([oid for oid, _ in types], [[1, "ab", Decimal("1.5"), 3]] * 3)
    spoilt = rows.buffer.copy()
    at = data.draw(st.integers(6, len(spoilt) - 257))
    spoilt[at] = data.draw(st.integers(0, 255))
    try:
        found = decode_rows(replace(rows, buffer=spoilt), columns(*types), TYPES)
    except DecodeError:
        return
    found.rows.validate(full=True)
    assert len(found.rows) == 3


def test_rows_of_another_shape_are_an_error() -> None:
    rows = packed([23, 23], [[1, 2]])
    with pytest.raises(DecodeError, match="other than 1 columns"):
        decode_rows(rows, columns((23, -1)), TYPES, "t")
    with pytest.raises(DecodeError, match="cut off"):
        decode_rows(replace(rows, ends=rows.ends - 1), columns((23, -1), (23, -1)), TYPES, "t")


def test_records_of_an_arrow_array_and_of_a_slice_of_one() -> None:
    rows = packed([23, 25], [[n, f"text {n}"] for n in range(9)], RECORD)
    values = [rows.buffer[a:b].tobytes() for a, b in zip(rows.starts, rows.ends, strict=True)]
    array = pa.array([b"other", *values]).slice(3)
    found = decode_rows(PackedRows.of_records(array), columns((23, -1), (25, -1)), TYPES)
    assert found.rows.column(0).to_pylist() == list(range(2, 9))
    empty = decode_rows(PackedRows.of_records(array.slice(0, 0)), columns((23, -1)), TYPES)
    assert len(empty.rows) == 0


def test_what_reads_binary() -> None:
    types = TypeMap()
    assert reads_binary(types[1700], decimal(15, 2))
    assert not reads_binary(types[1700], decimal(16, 2))
    assert not reads_binary(types[1700], -1)
    assert not any(reads_binary(types[oid], -1) for oid in (1700, 1083, 1186, 2950, 1007, 90001))
