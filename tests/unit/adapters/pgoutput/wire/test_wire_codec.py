"""Odd values of every type, cell by cell, and random ones against Python's own reading."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.pgoutput.wire import text as text_module
from adapters.pgoutput.wire.codec import DecodedColumn, TextColumn, decode_column
from adapters.pgoutput.wire.type_rules import arrow_type
from adapters.pgoutput.wire.types import TypeMap
from cdc_core.values.errors import DecodeError
from tests.unit.adapters.pgoutput.wire.columns import text_column

TYPES = TypeMap().with_user_types(
    [
        (90001, "mood", "e", "E", 0, -1, 0, ","),
        (90002, "mood[]", "b", "A", 0, -1, 90001, ","),
        (90003, "price", "d", "N", 1700, (6 << 16 | 2) + 4, 0, ","),
        (90004, "price[]", "b", "A", 0, -1, 90003, ","),
        (90005, "ids", "d", "A", 1007, -1, 0, ","),
        (90006, "ids[]", "b", "A", 0, -1, 90005, ","),
        (90007, "pair", "c", "C", 0, -1, 0, ","),
    ]
)


def numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale & 0x7FF) + 4


def decode(oid: int, values: list[Any], typmod: int = -1) -> DecodedColumn:
    decoded = decode_column(text_column(values), TYPES[oid], typmod, "c")
    decoded.values.validate(full=True)
    assert decoded.values.type == arrow_type(TYPES[oid], typmod)
    assert len(decoded.values) == len(values)
    return decoded


EXACT: list[tuple[int, int, dict[str, Any]]] = [
    (16, -1, {"t": True, "f": False}),
    (21, -1, {"0": 0, "-32768": -32768, "32767": 32767}),
    (23, -1, {"-2147483648": -(2**31), "2147483647": 2**31 - 1}),
    (20, -1, {"-9223372036854775808": -(2**63), "9223372036854775807": 2**63 - 1}),
    (1700, numeric(12, 2), {"0.00": Decimal("0.00"), "-9999999999.99": Decimal("-9999999999.99")}),
    (1700, numeric(38, 0), {"9" * 38: Decimal("9" * 38), "-" + "9" * 38: Decimal("-" + "9" * 38)}),
    (1700, numeric(38, 38), {"0." + "9" * 38: Decimal("0." + "9" * 38)}),
    (1700, numeric(2, 2), {"0.50": Decimal("0.50"), "-0.01": Decimal("-0.01")}),
    (1700, -1, {"NaN": "NaN", "1.10": "1.10", "1" * 200: "1" * 200, "-Infinity": "-Infinity"}),
    (1700, numeric(39, 2), {"1.10": "1.10"}),
    (1700, numeric(5, -2), {"12300": "12300"}),
    (1700, numeric(3, 5), {"0.00123": "0.00123"}),
    (90003, -1, {"12.50": Decimal("12.50")}),
    (17, -1, {"\\x": b"", "\\x00ff5c": b"\x00\xff\\", "\\xDEAD": b"\xde\xad"}),
    (25, -1, {"": "", "\\N": "\\N", "é€😀\t\n": "é€😀\t\n", "NULL": "NULL"}),
    (1042, 9, {"a    ": "a    "}),
    (90001, -1, {"sad": "sad"}),
    (90007, -1, {'(1,"a b")': '(1,"a b")'}),
    (77777, -1, {"whatever": "whatever"}),
    (114, -1, {'{"a" :  1}': '{"a" :  1}'}),
    (22, -1, {"1 2 3": "1 2 3"}),
    (1083, -1, {"24:00:00": "24:00:00"}),
    (1186, -1, {"1 year -00:00:01": "1 year -00:00:01"}),
    (790, -1, {"$1,000.00": "$1,000.00"}),
    (
        1082,
        -1,
        {
            "2024-02-29": date(2024, 2, 29),
            "0001-01-01": date(1, 1, 1),
            "9999-12-31": date(9999, 12, 31),
        },
    ),
    (
        1114,
        -1,
        {
            "0001-01-01 00:00:00": datetime(1, 1, 1),  # noqa: DTZ001
            "1969-12-31 23:59:59.5": datetime(1969, 12, 31, 23, 59, 59, 500000),  # noqa: DTZ001
            "9999-12-31 23:59:59.999999": datetime.max,  # noqa: DTZ901
        },
    ),
    (
        1184,
        -1,
        {
            "2024-01-01 00:00:00+00": datetime(2024, 1, 1, tzinfo=UTC),
            "2024-01-01 00:00:00.000001+00": datetime(2024, 1, 1, 0, 0, 0, 1, UTC),
            "2024-01-01 00:00:00+05:30": datetime(2023, 12, 31, 18, 30, tzinfo=UTC),
            "2024-01-01 00:00:00-03": datetime(2024, 1, 1, 3, tzinfo=UTC),
            "1800-01-01 00:00:00-00:01:15": datetime(1800, 1, 1, 0, 1, 15, tzinfo=UTC),
            "1800-01-01 00:00:00.25+12:19:12": datetime(1799, 12, 31, 11, 40, 48, 250000, UTC),
        },
    ),
]


@pytest.mark.parametrize(("oid", "typmod", "cases"), EXACT)
def test_values_are_exact(oid: int, typmod: int, cases: dict[str, Any]) -> None:
    decoded = decode(oid, [None, *cases, None], typmod)
    assert decoded.values.to_pylist() == [None, *cases.values(), None]
    assert decoded.unrepresentable == []
    for text, value in cases.items():
        assert decode(oid, [text], typmod).values.to_pylist() == [value]


@pytest.mark.parametrize("oid", [16, 17, 20, 21, 23, 25, 700, 701, 1082, 1114, 1184, 1007, 1009])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_nothing_but_nulls(oid: int, count: int) -> None:
    assert decode(oid, [None] * count).values.null_count == count


UNREPRESENTABLE = [
    (1700, numeric(6, 2), ["NaN", "Infinity", "-Infinity"], "12.50"),
    (90003, -1, ["NaN"], "12.50"),
    (1082, -1, ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "5874897-12-31"], None),
    (
        1114,
        -1,
        ["infinity", "-infinity", "0044-03-15 12:00:00 BC", "294276-12-31 23:59:59.999999"],
        "2024-01-01 00:00:00",
    ),
    (
        1184,
        -1,
        [
            "infinity",
            "4714-11-24 00:00:00+00 BC",
            "10000-01-01 00:00:00+00",
            "0001-01-01 00:00:00+01",
            "9999-12-31 23:59:59.5-00:01",
            "0001-01-01 00:00:00+00:01:15",
        ],
        "2024-01-01 00:00:00+00",
    ),
]


@pytest.mark.parametrize(("oid", "typmod", "odd", "good"), UNREPRESENTABLE)
def test_unrepresentable_values_are_null_and_reported(
    oid: int, typmod: int, odd: list[str], good: str | None
) -> None:
    decoded = decode(oid, [good, *odd, None, good], typmod)
    assert decoded.unrepresentable == [(row, text) for row, text in enumerate(odd, 1)]
    assert decoded.values.slice(1, len(odd) + 1).null_count == len(odd) + 1
    assert decoded.values[0].is_valid == (good is not None)
    for text in odd:
        assert decode(oid, [text], typmod).unrepresentable == [(0, text)]


MALFORMED: list[tuple[int, int, list[str | bytes]]] = [
    (16, -1, ["", "true", "1"]),
    (23, -1, ["", "x", "0x10", "+1", " 1", "1.0", "2147483648", "-"]),
    (21, -1, ["32768"]),
    (20, -1, ["9223372036854775808"]),
    (700, -1, ["", "x", "1 ", b"\xff"]),
    (701, -1, ["", "x", "0x10"]),
    (1700, numeric(4, 2), ["", ".", "-", "123.45", "1.234", "1e1", "x", "nan", "1..2", "12345"]),
    (1700, numeric(38, 0), ["9" * 39, "1" + "0" * 60]),
    (1700, numeric(38, 2), ["9" * 39, "9" * 41]),
    (1700, numeric(38, 38), ["9." + "9" * 38, "1.00"]),
    (1082, -1, ["", "x", "2020-02-30", "2020-1-1", "01/02/2020", "20200101", "Infinity"]),
    (1114, -1, ["", "x", "2020-02-30 00:00:00", "2020-01-01 25:00:00", "2020-01-01 00:00:00+00"]),
    (1114, -1, ["Wed Jan 01 00:00:00 2020", "2020-01-01 00:00:00.1234567"]),
    (1184, -1, ["2020-01-01 00:00:00", "2020-02-30 00:00:00+00:00:01"]),
    (17, -1, ["", "x", "\\x0", "\\xzz", "abcd", "\\\\000", "/x00"]),
    (25, -1, [b"\xff", b"a\xc3", b"\xed\xa0\x80"]),
    (
        1007,
        -1,
        ["", "1", "{", "}", "{1", "{1}}", "{1}{2}", "{1,}", "{,1}", "{1,,2}", "{x}", "{{1}"],
    ),
    (
        1007,
        -1,
        ["{{1}", "[0:1]", "[a]={1}", "{" * 7 + "1" + "}" * 7, '{"1', "{1 2}", "{NULL1}", '{"1"2}'],
    ),
    (1000, -1, ["{x}", "{true}", '{"tt"}']),
    (1009, -1, ["{a", "a}", "{a,}", '{"a}', '{"a"b}', "{a{b}}", '{a"b"}', b"{\xff}", '{"\\']),
]


@pytest.mark.parametrize(("oid", "typmod", "texts"), MALFORMED)
def test_what_is_not_of_the_type_is_refused(
    oid: int, typmod: int, texts: list[str | bytes]
) -> None:
    for text in texts:
        with pytest.raises(DecodeError, match="column 'c' of type") as caught:
            decode(oid, [None, text], typmod)
        # Neither here nor in what a traceback would show besides.
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


ARRAYS: list[tuple[int, dict[str, str]]] = [
    (1007, {"{1,2,NULL}": "[1,2,null]", "{}": "[]", "{-5}": "[-5]", "{NULL}": "[null]"}),
    (1007, {"{{1,2},{3,NULL}}": "[[1,2],[3,null]]", "[0:2]={1,2,3}": "[1,2,3]"}),
    (1007, {"[-1:0][2:3]={{1,2},{3,4}}": "[[1,2],[3,4]]"}),
    (1016, {"{9223372036854775807}": "[9223372036854775807]"}),
    (1000, {"{t,f,NULL}": "[true,false,null]", "{}": "[]", "{{t},{f}}": "[[true],[false]]"}),
    (1022, {"{1.5,NaN,Infinity,-Infinity,-0}": '[1.5,"NaN","Infinity","-Infinity",-0]'}),
    (1022, {"{1e+20,1e-05,5e-324,NULL}": "[1e+20,1e-05,5e-324,null]"}),
    (1231, {"{1.50,NULL}": "[1.50,null]", "{NaN}": '["NaN"]'}),
    (1231, {"{12345678901234567890.1234567890}": "[12345678901234567890.1234567890]"}),
    (90004, {"{1.50,NaN}": '[1.50,"NaN"]'}),
    (1009, {"{a,b}": '["a","b"]', "{}": "[]", "{NULL}": "[null]", '{"NULL"}': '["NULL"]'}),
    (1009, {"{null}": '["null"]', '{""}': '[""]', "{aNULL}": '["aNULL"]'}),
    (1009, {'{"a b","x\\"y\\\\z","{,}"}': '["a b","x\\"y\\\\z","{,}"]'}),
    (1009, {"{é,😀}": '["é","😀"]', '{"\n\t"}': '["\\n\\t"]', "{\x01\x7f}": '["\\u0001\x7f"]'}),
    (1009, {"{{a,b},{c,NULL}}": '[["a","b"],["c",null]]', "[2:3]={a,b}": '["a","b"]'}),
    (90002, {"{sad,NULL}": '["sad",null]'}),
    (1020, {"{(1,1),(0,0);(2,2),(1,1)}": '["(1,1),(0,0)","(2,2),(1,1)"]', "{}": "[]"}),
    (1017, {'{"(1,2)","(3,4)"}': '["(1,2)","(3,4)"]'}),
    (1001, {'{"\\\\x6162",NULL}': '["\\\\x6162",null]'}),
    (1028, {"{1,2}": '["1","2"]'}),
    (199, {'{"{\\"a\\": 1}"}': '["{\\"a\\": 1}"]'}),
    (1182, {"{2020-01-01,infinity}": '["2020-01-01","infinity"]'}),
    (1185, {'{"2020-01-01 00:00:00+00"}': '["2020-01-01 00:00:00+00"]'}),
    (90005, {"{1,2}": "[1,2]"}),
    (90006, {'{"{1,2}","{NULL}"}': "[[1,2],[null]]"}),
]


@pytest.mark.parametrize(("oid", "cases"), ARRAYS)
def test_arrays_become_json(oid: int, cases: dict[str, str]) -> None:
    decoded = decode(oid, [None, *cases, None])
    assert decoded.values.to_pylist() == [None, *cases.values(), None]
    for text, expected in cases.items():
        assert decode(oid, [text]).values.to_pylist() == [expected]
        json.loads(expected)


@given(st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=20))
def test_doubles_bit_for_bit(patterns: list[int | None]) -> None:
    numbers = [
        None if p is None else struct.unpack("<d", struct.pack("<Q", p))[0] for p in patterns
    ]
    numbers = [None if n is None or math.isnan(n) else n for n in numbers]
    texts = [None if n is None else repr(n).replace("inf", "Infinity") for n in numbers]
    decoded = decode(701, texts).values.to_pylist()
    assert [None if n is None else struct.pack("<d", n) for n in decoded] == [
        None if n is None else struct.pack("<d", n) for n in numbers
    ]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_reals_bit_for_bit(patterns: list[int]) -> None:
    numbers = np.array(patterns, dtype=np.uint32).view(np.float32)
    numbers = numbers[~np.isnan(numbers)]
    texts = [np.format_float_scientific(n).replace("inf", "Infinity") for n in numbers]
    decoded = decode(700, texts).values.combine_chunks().to_numpy(zero_copy_only=False)
    assert decoded.astype(np.float32).tobytes() == numbers.tobytes()


def test_not_a_number_stays_one() -> None:
    assert all(math.isnan(decode(oid, ["NaN"]).values[0].as_py()) for oid in (700, 701))


@given(
    st.lists(
        st.datetimes(timezones=st.just(UTC)) | st.sampled_from([None, "infinity"]), max_size=12
    ),
    st.integers(-57599, 57599),
)
def test_timestamps_at_any_offset(instants: list[Any], offset: int) -> None:
    shift = timedelta(seconds=offset)
    texts, expected, odd = [], [], []
    for row, instant in enumerate(instants):
        if not isinstance(instant, datetime):
            texts.append(instant)
            expected.append(None)
            if instant:
                odd.append((row, instant))
            continue
        try:
            local = instant + shift
        except OverflowError:
            local, shift = instant, timedelta(0)
        seconds = abs(int(shift.total_seconds()))
        zone = f"{'-' if shift < timedelta(0) else '+'}{seconds // 3600:02}"
        if seconds % 3600:
            zone += f":{seconds // 60 % 60:02}"
        if seconds % 60:
            zone += f":{seconds % 60:02}"
        fraction = f".{local.microsecond:06}".rstrip("0").rstrip(".")
        texts.append(
            f"{local.year:04}-{local:%m-%d %H:%M:%S}{fraction}{zone}",
        )
        expected.append(instant)
    decoded = decode(1184, texts)
    assert decoded.values.to_pylist() == expected
    assert decoded.unrepresentable == odd


def array_out(value: Any, delimiter: str = ",") -> str:
    """`array_out` of PostgreSQL, for text elements."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "{" + delimiter.join(array_out(item, delimiter) for item in value) + "}"
    if (
        value == ""
        or value.upper() == "NULL"
        or any(c in '"\\{}' + delimiter or c in " \t\n\r\v\f" for c in value)
    ):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


ELEMENT = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ELEMENT |= st.sampled_from(["NULL", "null", "a,b", "{", "}", '"', "\\", " ", "a;b", "x"])


@settings(max_examples=200)
@given(st.lists(st.lists(ELEMENT, max_size=4) | st.lists(st.sampled_from("abc")), max_size=6))
def test_text_arrays_as_python_reads_them(arrays: list[list[str | None]]) -> None:
    texts = [array_out(array) for array in arrays]
    nested = [array_out([array, array]) if array else "{}" for array in arrays]
    expected = [[array, array] if array else [] for array in arrays]
    found = decode(1009, texts).values.to_pylist()
    assert found == [json.dumps(a, ensure_ascii=False, separators=(",", ":")) for a in arrays]
    assert [json.loads(text) for text in decode(1009, nested).values.to_pylist()] == expected


@given(st.lists(st.none() | st.lists(st.none() | st.integers(-99, 10**9), max_size=4), max_size=8))
def test_integer_arrays_as_python_reads_them(arrays: list[list[int | None] | None]) -> None:
    texts = [
        None if a is None else "{" + ",".join("NULL" if i is None else str(i) for i in a) + "}"
        for a in arrays
    ]
    expected = [None if a is None else json.dumps(a, separators=(",", ":")) for a in arrays]
    assert decode(1007, texts).values.to_pylist() == expected


@given(
    st.sampled_from([17, 23, 1007, 1009, 1082, 1114, 1184, 1700]), st.lists(st.binary(max_size=30))
)
def test_random_text_is_decoded_or_refused(oid: int, texts: list[bytes]) -> None:
    for typmod in (-1, numeric(5, 2)) if oid == 1700 else (-1,):
        try:
            decode(oid, texts, typmod)
        except DecodeError:
            continue


def test_large_columns_are_decoded_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "CHUNK_BYTES", 25)
    dates = ["2024-01-01", None, "infinity", "2024-01-02"] * 5
    decoded = decode(1082, dates)
    assert decoded.values.num_chunks > 3
    assert decoded.unrepresentable == [(row, "infinity") for row in range(2, 20, 4)]
    assert decoded.values.to_pylist()[:4] == [date(2024, 1, 1), None, None, date(2024, 1, 2)]


def test_values_may_lie_more_than_two_gigabytes_apart() -> None:
    # Untouched pages of zeros take no memory.
    buffer = np.zeros((1 << 31) + 100, dtype=np.uint8)
    buffer[:2] = np.frombuffer(b"12", dtype=np.uint8)
    buffer[-3:] = np.frombuffer(b"345", dtype=np.uint8)
    column = TextColumn(
        buffer,
        np.array([0, len(buffer) - 3], dtype=np.int64),
        np.array([2, len(buffer)], dtype=np.int64),
        np.ones(2, dtype=np.bool_),
    )
    assert decode_column(column, TYPES[23]).values.to_pylist() == [12, 345]
    assert decode_column(column, TYPES[25]).values.type == pa.string()
