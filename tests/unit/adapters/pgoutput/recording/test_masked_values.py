"""Masks of values: the same type and length, and a permutation of the values of each form."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.pgoutput.recording.masked_rows import MaskedRows, StoredAs
from adapters.pgoutput.recording.masked_values import MaskedValues
from adapters.pgoutput.wire.codec import decode_column
from adapters.pgoutput.wire.text import column_of_texts
from adapters.pgoutput.wire.types import TypeMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MASK = MaskedValues(b"0" * 32)
TYPES = TypeMap()
OIDS = {
    "bool": 16, "bytea": 17, "int8": 20, "int2": 21, "int4": 23, "text": 25, "json": 114,
    "float4": 700, "float8": 701, "numeric": 1700, "date": 1082, "timestamp": 1114,
    "timestamptz": 1184, "bit": 1560, "uuid": 2950, "jsonb": 3802, "int4[]": 1007,
    "text[]": 1009, "bool[]": 1000, "interval": 1186, "inet": 869,
}  # fmt: skip


def masked(kind: str, text: str, typmod: int = -1) -> str:
    return str(MASK.masked(text, TYPES[OIDS[kind]], typmod))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bool", "tf"),
        ("int2", map(str, range(-9, 0))),
        ("int4", map(str, range(10))),
        ("int4", map(str, range(100, 1000))),
        ("int2", map(str, range(10_000, 32_768))),
        ("numeric", (f"{n / 100:.2f}" for n in range(100, 1000))),
        ("numeric", (f"0.{n:03}" for n in range(1000))),
        ("text", "abcdefghijklmnopqrstuvwxyz"),
        ("text", (f"{a}-{b}{c}" for a in "xyz" for b in "0123456789" for c in "QRS")),
        ("text", map(chr, range(0x80, 0x800))),
        ("uuid", (f"{n:04x}" for n in range(1 << 16))),
        ("bit", (f"{n:06b}" for n in range(1 << 6))),
        ("date", (date.fromordinal(693_596 + n).isoformat() for n in range(3000))),
    ],
)
def test_different_values_stay_different(kind: str, values: Iterable[str]) -> None:
    """And none stays what it was, if there is another of its form."""
    originals = list(values)
    found = [masked(kind, text) for text in originals]
    assert len(set(found)) == len(originals)
    assert not [text for text, other in zip(originals, found, strict=True) if text == other]
    assert {len(text) for text in found} == {len(text) for text in originals}
    assert found == [masked(kind, text) for text in originals]


VALUES = {
    "bool": ["t", "f"],
    "bytea": ["\\x", "\\xdeadbeef"],
    "int2": ["0", "-1", "32767", "-32768"],
    "int4": ["2147483647", "-2147483648", "10"],
    "int8": ["9223372036854775807", "-9223372036854775808", "9000000000000000000"],
    "float4": ["NaN", "-Infinity", "1e-45", "3.4028235e+38", "0.1", "-0", "1.5e+06"],
    "float8": ["5e-324", "1.7976931348623157e+308", "0.30000000000000004", "1e+20", "12345"],
    "numeric": ["0", "-0.00", "NaN", "100.50", "99999999999999999999.999999"],
    "date": ["2024-02-29", "0001-01-01", "9999-12-31", "infinity", "0044-03-15 BC", "10000-01-01"],
    "timestamp": ["2024-02-29 23:59:59.999999", "1999-12-31 00:00:00", "infinity"],
    "timestamptz": ["2024-02-29 23:59:59.5+00", "294276-12-31 23:59:59+00"],
    "json": ['{"a": [1, -2.5e3, true, null, "x\\u00e9\\n\\"y\\""], "b": {}}', '""', "7"],
    "jsonb": ['{"\\ud83d\\ude00": "ü"}'],
    "int4[]": ["{1,22,NULL,-333}", "{}", "[0:1]={7,8}", "{{1,2},{3,4}}"],
    "text[]": ['{a,"b c",NULL,"NULL","q\\"\\\\",""}', "{}"],
    "bool[]": ["{t,f,NULL}"],
    "interval": ["1 day 02:03:04.5"],
    "inet": ["10.1.2.3/24"],
    "uuid": ["123e4567-e89b-42d3-a456-426614174000"],
    "text": ["", "Grüße, 東京 😀!", "x" * 5000],
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_masked_value_belongs_to_its_type(kind: str) -> None:
    """It decodes, and it fits its destination type where the original does."""
    pg_type = TYPES[OIDS[kind]]
    decoded = [
        decode_column(column_of_texts(texts), pg_type)
        for texts in (VALUES[kind], [masked(kind, text) for text in VALUES[kind]])
    ]
    valid = [one.values.is_valid().to_pylist() for one in decoded]
    assert valid[0] == valid[1]
    rows = [[row for row, _ in one.unrepresentable] for one in decoded]
    assert rows[0] == rows[1]


CHANGEABLE = re.compile(r"[A-Za-z0-9]|[^\x00-\x7f]")


@pytest.mark.parametrize("kind", VALUES)
def test_letters_and_digits_are_gone_and_everything_else_stays(kind: str) -> None:
    for text in VALUES[kind]:
        found = masked(kind, text)
        assert len(found.encode()) == len(text.encode()), text
        if kind not in ("date", "timestamp", "timestamptz"):
            assert CHANGEABLE.sub("_", found) == CHANGEABLE.sub("_", text)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
))  # fmt: skip
def test_json_stays_json_of_the_same_shape(document: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(document, ensure_ascii=ascii_only)
        assert _shape(json.loads(masked("json", text))) == _shape(json.loads(text))


def _shape(document: object) -> object:
    match document:
        case dict():
            # Keys with equal and keys with different masks have the shapes that they had.
            return [(len(key), _shape(value)) for key, value in document.items()]
        case list():
            return [_shape(each) for each in document]
        case bool() | None:
            return document
        case str():
            return len(document)
        case _:
            return "number"


@given(st.text(max_size=40), st.text(max_size=40))
def test_texts_are_equal_only_where_they_were(one: str, other: str) -> None:
    assert (masked("text", one) == masked("text", other)) == (one == other)


def test_each_recording_has_other_masks() -> None:
    text = "the same text in two recordings"
    assert MaskedValues().text(text) != MaskedValues().text(text)


FLOATS = {1e20: "1e+20", 0.5: "0.5", 1e-7: "1e-07"}
ROWS: dict[str, tuple[pa.DataType, list[object], Callable[[object], str]]] = {
    "bool": (pa.bool_(), [True, False], lambda v: "t" if v else "f"),
    "int4": (pa.int32(), [7, -12345], str),
    "float8": (pa.float64(), [1e20, 0.5, 1e-7], FLOATS.get),
    "date": (pa.date32(), [date(2024, 2, 29)], str),
    "timestamptz": (
        pa.timestamp("us", tz="UTC"),
        [datetime(2024, 2, 29, 1, 2, 3, 500_000, tzinfo=UTC)],
        lambda _: "2024-02-29 01:02:03.5+00",
    ),
    "bytea": (pa.binary(), [b"\xde\xad"], lambda v: "\\x" + v.hex()),
    "text": (pa.string(), ["Ada", ""], str),
    "int4[]": (pa.string(), ["[1,22,null]"], lambda _: "{1,22,NULL}"),
    "text[]": (pa.string(), ['["a","b c",null]'], lambda _: '{a,"b c",NULL}'),
    "bool[]": (pa.string(), ["[true,false,null]"], lambda _: "{t,f,NULL}"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
def test_rows_have_the_masks_of_messages(kind: str) -> None:
    arrow_type, values, text_of = ROWS[kind]
    column = pa.chunked_array([pa.array([*values, None], arrow_type)])
    rows = pa.table({"c": column, "_cdc_lsn": pa.array(range(len(column)))})
    found = MaskedRows(MASK, TYPES, {"c": StoredAs(OIDS[kind], -1)}).masked(rows)
    texts = [masked(kind, text_of(value)) for value in values]
    expected = decode_column(column_of_texts([*texts, None]), TYPES[OIDS[kind]]).values
    assert found.column("c").to_pylist() == expected.to_pylist()
    assert found.schema == rows.schema
    assert found.column("_cdc_lsn").equals(rows.column("_cdc_lsn"))


def test_rows_of_lists_and_of_texts_by_a_rule() -> None:
    lists = pa.array([[1, 22], None, [], [None, 333]], pa.list_(pa.int32()))
    rows = pa.table({"list": lists, "hash": pa.array(["ab12", None, "", "ff"])})
    stored = {"list": StoredAs(OIDS["int4[]"], -1), "hash": StoredAs(OIDS["date"], -1, True)}
    found = MaskedRows(MASK, TYPES, stored).masked(rows)
    one, two, three = (int(masked("int4", text)) for text in ("1", "22", "333"))
    assert found.column("list").to_pylist() == [[one, two], None, [], [None, three]]
    texts = [masked("text", text) for text in ("ab12", "", "ff")]
    assert found.column("hash").to_pylist() == [texts[0], None, *texts[1:]]
