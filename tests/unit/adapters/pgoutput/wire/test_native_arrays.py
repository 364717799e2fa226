"""Arrays as lists: equal to what their JSON says, and what is no list."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.pgoutput.wire.codec import DecodedColumn, TextColumn, decode_column
from adapters.pgoutput.wire.type_rules import element_type, logical_type
from adapters.pgoutput.wire.types import PgType, TypeMap
from cdc_core.values.errors import DecodeError
from tests.unit.adapters.pgoutput.wire.columns import text_column

INTS, TEXTS, NUMERICS, BOXES, TEXT, JSONB = 1007, 1009, 1231, 1020, 25, 3802
PRECISE = ((10 << 16) | 2) + 4
TYPES = TypeMap()


def decoded(texts: list[str | None], oid: int, typmod: int = -1) -> DecodedColumn:
    column: TextColumn = text_column(texts)
    return decode_column(column, replace(TYPES[oid], is_list=True, typmod=typmod), -1, "c")


def printed(items: list[str | None]) -> str:
    """As PostgreSQL prints an array of texts."""
    return "{" + ",".join(map(_item, items)) + "}"


def _item(text: str | None) -> str:
    if text is None:
        return "NULL"
    if re.search(r'[{}",\\\s]', text) or text.upper() in ("", "NULL"):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return text


PRINTABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@given(st.lists(st.none() | st.lists(st.none() | PRINTABLE, max_size=5)))
def test_texts(rows: list[list[str | None] | None]) -> None:
    texts = [None if row is None else printed(row) for row in rows]
    found = decoded(texts, TEXTS)
    assert found.values.to_pylist() == rows
    assert found.unrepresentable == []
    as_json = decode_column(text_column(texts), TYPES[TEXTS]).values.to_pylist()
    assert [None if one is None else json.loads(one) for one in as_json] == rows


@given(st.lists(st.none() | st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=5)))
def test_integers(rows: list[list[int | None] | None]) -> None:
    texts = [
        None if row is None else printed([None if n is None else str(n) for n in row])
        for row in rows
    ]
    assert decoded(texts, INTS).values.to_pylist() == rows


def test_what_is_no_list_is_kept_as_text() -> None:
    texts = ["{1}", "{{1},{2}}", "[0:0]={3}", "[2:3][1:1]={{4},{5}}", None, "{6}"]
    found = decoded(texts, INTS)
    assert found.values.to_pylist() == [[1], None, None, None, None, [6]]
    assert found.unrepresentable == [(n, texts[n]) for n in (1, 2, 3)]


def test_an_element_that_does_not_fit_makes_the_array_unrepresentable() -> None:
    found = decoded(["{1.50,NULL}", "{2.00,NaN}", "{3.00}"], NUMERICS, PRECISE)
    assert found.values.type == pa.list_(pa.decimal128(10, 2))
    assert found.values.to_pylist() == [[Decimal("1.50"), None], None, [Decimal("3.00")]]
    assert found.unrepresentable == [(1, "{2.00,NaN}")]


def test_another_delimiter() -> None:
    found = decoded(["{(1,1),(0,0);(2,2),(1,1)}"], BOXES)
    assert found.values.to_pylist() == [["(1,1),(0,0)", "(2,2),(1,1)"]]


@pytest.mark.parametrize("text", ["{1", "1}", "{1,}", "{x}", "{1}}", ""])
def test_a_text_that_is_no_array_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decoded([text], INTS)
    assert "'c'" in str(refused.value)


def test_which_types_have_elements_and_json() -> None:
    assert element_type(TYPES[INTS]) == pa.int32()
    assert element_type(TYPES[NUMERICS], PRECISE) == pa.decimal128(10, 2)
    assert element_type(TYPES[TEXT]) is None
    of_arrays = PgType(
        1, "ids[]", "array", None, PgType(2, "ids", "domain", TYPES[INTS])
    )  # an array of a domain over arrays
    assert element_type(of_arrays) is None
    assert logical_type(TYPES[JSONB]) == "json"
    assert logical_type(TYPES[3807]) is None
