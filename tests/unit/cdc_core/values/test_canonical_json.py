"""The text of a JSON value is one and the same for equal values, and keeps the value."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_core.values import canonical_json as limits
from cdc_core.values.canonical_json import NotCanonical, canonical_json

NUMBERS = st.one_of(
    st.integers(-(10**37), 10**37).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20)).map(
        lambda d: format(d, "f")[:30]
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (' { "b" : 1.50, "a" : [ 1E2 , null ] } ', '{"a":[100,null],"b":1.5}'),
        ("null", "null"),
        ('"null"', '"null"'),
        ("true", "true"),
        ("-0.0", "0"),
        ("0.00", "0"),
        ("1e400000", None),
        ("1e300", "1e300"),
        ("1" + "0" * 300, "1e300"),
        ("100", "100"),
        ("0.0010", "0.001"),
        ("-12.5e-1", "-1.25"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("123456789012345678901234567890123456789", None),
        ("0." + "1" * 39, None),
        ("1e-7", "0.0000001"),
        ("1.7976931348623157e308", "17976931348623157e292"),
        ("5e-324", "5e-324"),
        ('"\\u00e9\\u0000\\n/"', '"é\\u0000\\n/"'),
        ('"\\ud83d\\ude00"', '"\U0001f600"'),
        ('"\\ud83d"', None),
        ('{"\\ud83d": 1}', None),
        ('{"a": 1, "b": {"c": 1, "\\u0063": 1}}', None),
        ("[" * 200 + "]" * 200, "[" * 200 + "]" * 200),
        ("[" * 201 + "]" * 201, None),
        ("[" * 100_000 + "]" * 100_000, None),
        ('"' + "[" * 1000 + '\\"["', '"' + "[" * 1000 + '\\"["'),
        ("1" * 5000, None),
        ('"' + "é" * (limits.MOST_BYTES // 2) + '"', None),
        ('{"' + "k" * 40_001 + '": 1}', None),
    ],
)  # fmt: skip
def test_canonical_text(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(NotCanonical) as refused:
            canonical_json(text)
        assert text[:20] not in str(refused.value)
    else:
        assert canonical_json(text) == expected
        assert canonical_json(expected) == expected
        assert canonical_json(expected, printed=True) == expected


@given(NUMBERS)
def test_a_number_keeps_its_value(text: str) -> None:
    try:
        found = canonical_json(text)
    except NotCanonical:
        return
    assert Decimal(found) == Decimal(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_is_never_refused(number: float) -> None:
    text = repr(number)
    found = canonical_json(text)
    assert float(found) == number
    # As Java prints doubles: sometimes with one digit more than needed.
    assert canonical_json(f"{number:.16E}", printed=True) == found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_equal_values_have_equal_texts(value: object) -> None:
    found = canonical_json(json.dumps(value))
    assert json.loads(found) == value
    assert canonical_json(json.dumps(value, indent=3, ensure_ascii=False)) == found
