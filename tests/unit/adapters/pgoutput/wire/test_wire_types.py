"""The type map: built-in types, user types, names with modifiers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from adapters.pgoutput.wire import type_rules
from adapters.pgoutput.wire.codec import decode_column
from adapters.pgoutput.wire.text import TextColumn
from adapters.pgoutput.wire.type_rules import TypeRule, arrow_type, reads_binary, rule_of
from adapters.pgoutput.wire.types import TypeMap, format_type

BUILT_IN = TypeMap()


def numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale & 0x7FF) + 4


@pytest.mark.parametrize(
    ("oid", "typmod", "expected"),
    [
        (16, -1, pa.bool_()),
        (17, -1, pa.binary()),
        (20, -1, pa.int64()),
        (21, -1, pa.int16()),
        (23, -1, pa.int32()),
        (700, -1, pa.float32()),
        (701, -1, pa.float64()),
        (1082, -1, pa.date32()),
        (1114, 3, pa.timestamp("us")),
        (1184, -1, pa.timestamp("us", tz="UTC")),
        (1700, numeric(1, 0), pa.decimal128(1, 0)),
        (1700, numeric(38, 38), pa.decimal128(38, 38)),
        (1700, numeric(39, 0), pa.string()),
        (1700, numeric(5, -1), pa.string()),
        (1700, numeric(3, 4), pa.string()),
        (1700, -1, pa.string()),
        (1007, -1, pa.string()),
        (1231, numeric(5, 2), pa.string()),
        (3802, -1, pa.string()),
        (26, -1, pa.string()),
        (4_000_000, -1, pa.string()),
    ],
)
def test_arrow_types(oid: int, typmod: int, expected: pa.DataType) -> None:
    assert arrow_type(BUILT_IN[oid], typmod) == expected


@pytest.mark.parametrize(
    ("oid", "typmod", "expected"),
    [
        (23, -1, "integer"),
        (1043, 24, "character varying(20)"),
        (1043, -1, "character varying"),
        (1042, 14, "character(10)"),
        (1042, -1, "bpchar"),
        (1015, 24, "character varying(20)[]"),
        (1700, numeric(12, 2), "numeric(12,2)"),
        (1700, numeric(2, -3), "numeric(2,-3)"),
        (1700, -1, "numeric"),
        (1114, 0, "timestamp(0) without time zone"),
        (1184, 3, "timestamp(3) with time zone"),
        (1266, -1, "time with time zone"),
        (1186, 0x7FFF0003, "interval(3)"),
        (1186, 0x0004FFFF, "interval"),
        (1560, 5, "bit(5)"),
        (1560, -1, '"bit"'),
        (1562, 5, "bit varying(5)"),
    ],
)
def test_names_are_those_of_format_type(oid: int, typmod: int, expected: str) -> None:
    assert format_type(BUILT_IN[oid], typmod) == expected


def test_user_types_come_in_any_order() -> None:
    types = BUILT_IN.with_user_types(
        [
            (90004, "positive[]", "b", "A", 0, -1, 90003, ","),
            (90003, "positive", "d", "N", 90002, -1, 0, ","),
            (90002, "price", "d", "N", 1700, numeric(6, 2), 0, ","),
            (90005, "mood", "e", "E", 0, -1, 0, ","),
            (90006, "floatrange", "r", "R", 0, -1, 0, ","),
            (90007, "floatmultirange", "m", "R", 0, -1, 0, ","),
            (90008, "pair", "c", "C", 0, -1, 0, ","),
            (90009, "orphan", "d", "S", 123456, -1, 0, ","),
            (90010, "citext", "b", "S", 0, -1, 0, ","),
        ]
    )
    assert arrow_type(types[90003]) == pa.decimal128(6, 2)
    assert types[90004].kind == "array"
    assert types[90004].element == types[90003]
    assert [types[oid].kind for oid in range(90005, 90011)] == [
        "enum",
        "range",
        "multirange",
        "composite",
        "domain",
        "base",
    ]
    assert arrow_type(types[90009]) == pa.string()
    assert 90010 in types
    assert 90010 not in BUILT_IN


def test_array_like_types_that_print_without_braces_are_text() -> None:
    assert BUILT_IN[22].element is None
    assert BUILT_IN[30].element is None
    assert BUILT_IN[1006].element == BUILT_IN[22]
    assert BUILT_IN[600].element is None


def test_only_box_arrays_have_another_delimiter() -> None:
    assert BUILT_IN[603].delimiter == ";"
    assert BUILT_IN[601].delimiter == ","


def test_an_unknown_type_is_text_that_names_its_oid() -> None:
    assert BUILT_IN[4_000_000].kind == "other"
    assert "4000000" in BUILT_IN[4_000_000].name


def test_json_is_text_that_means_json() -> None:
    types = BUILT_IN.with_user_types([(90001, "document", "d", "U", 3802, -1, 0, ",")])
    assert [rule_of(types[oid]).logical for oid in (114, 3802, 90001)] == ["json"] * 3
    assert [rule_of(types[oid]).logical for oid in (25, 23, 199, 3807)] == [None] * 4


@pytest.mark.parametrize("name", ["vector", "extensions.vector"])
def test_one_entry_by_name_and_a_decoder_read_a_type_of_an_extension(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def floats(text: TextColumn, arrow: pa.DataType) -> tuple[pa.Array, list[tuple[int, str]]]:
        bounds = zip(text.starts, text.ends, strict=True)
        texts = [text.buffer[start:end].tobytes() for start, end in bounds]
        return pa.array([[float(x) for x in one[1:-1].split(b",")] for one in texts], arrow), []

    rule = TypeRule(pa.list_(pa.float32()), floats)
    monkeypatch.setitem(type_rules._BY_NAME, "vector", rule)  # type: ignore[arg-type]
    rows = [(90001, name, "b", "U", 0, -1, 0, ","), (90002, "vector", "e", "E", 0, -1, 0, ",")]
    types = BUILT_IN.with_user_types(rows)
    assert arrow_type(types[90001]) == pa.list_(pa.float32())
    assert not reads_binary(types[90001])
    assert arrow_type(types[90002]) == pa.string()  # an enum that only has the same name
    stored = np.frombuffer(b"[1,2.5][-3]", np.uint8)
    column = TextColumn(stored, np.array([0, 7]), np.array([7, 11]), np.ones(2, np.bool_))
    assert decode_column(column, types[90001]).values.to_pylist() == [[1.0, 2.5], [-3.0]]
