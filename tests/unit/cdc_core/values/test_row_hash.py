"""What counts as the same value, and that equal rows hash equally however Arrow holds them."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_core.values import row_hash
from cdc_core.values.row_hash import hash_rows

NAN_WITH_PAYLOAD = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]


def hashes(values: list, type_: pa.DataType, **options) -> list[int]:
    column = pa.chunked_array([pa.array(values, type_)])
    return hash_rows([column], len(values), **options).tolist()


DISTINCT = {
    "bool": (pa.bool_(), [None, True, False]),
    "integers": (pa.int64(), [None, 0, 1, -1, 2**63 - 1, -(2**63)]),
    "floats": (
        pa.float64(),
        [None, 0.0, -0.0, 1.0, float("inf"), float("-inf"), float("nan"), 5e-324],
    ),
    "decimals": (
        pa.decimal128(38, 2),
        [None, Decimal("0.00"), Decimal("0.01"), Decimal("-0.01"), Decimal(10**35)],
    ),
    "text": (
        pa.string(),
        [
            *(None, "", " ", "a", "a ", "ab", "a" * 8, "a" * 9, "a" * 16, "ab" * 4, "ba" * 4),
            *("\0", "\0\0", "é", "e\u0301", "x" * 100 + "y", "y" + "x" * 100),
        ],
    ),
    "bytes": (pa.binary(), [None, b"", b"\0", b"\0" * 8, b"\0" * 9, b"\xff"]),
    "lists": (
        pa.list_(pa.string()),
        [None, [], [""], [None], ["", ""], ["a"], ["a", "b"], ["b", "a"], ["ab"], ["a", None]],
    ),
    "dates": (pa.date32(), [None, date(1, 1, 1), date(1970, 1, 1), date(9999, 12, 31)]),
    "times": (
        pa.timestamp("us", tz="UTC"),
        [None, datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)],
    ),
}


@pytest.mark.parametrize("kind", DISTINCT)
def test_different_values_differ(kind: str) -> None:
    type_, values = DISTINCT[kind]
    found = hashes(values, type_)
    for left, right in combinations(range(len(values)), 2):
        assert found[left] != found[right], (values[left], values[right])


SAME = [
    ([1, None, -5], pa.int16(), pa.int64()),
    ([1, None, -5], pa.int32(), pa.int64()),
    ([1.5, None, -0.0, 0.1], pa.float32(), pa.float64()),
    ([Decimal("1.25"), None, Decimal("-7.00")], pa.decimal128(5, 2), pa.decimal128(20, 2)),
    (["a", None, ""], pa.string(), pa.large_string()),
    ([b"a", None, b""], pa.binary(), pa.large_binary()),
    ([0, None, 7], pa.timestamp("us"), pa.timestamp("ns")),
]


@pytest.mark.parametrize(("values", "narrow", "wide"), SAME)
def test_the_same_value_in_another_layout_is_the_same(values, narrow, wide) -> None:
    held = pa.array(values, narrow)
    if wide == pa.timestamp("ns"):
        held, again = pa.array(values, narrow), pa.array(values, narrow).cast(wide)
    else:
        again = held.cast(wide)
    first = hash_rows([pa.chunked_array([held])], len(held))
    second = hash_rows([pa.chunked_array([again])], len(held))
    assert first.tolist() == second.tolist()


def test_every_nan_is_the_same() -> None:
    array = pa.array(np.array([float("nan"), NAN_WITH_PAYLOAD, -float("nan")]))
    assert len(set(hash_rows([pa.chunked_array([array])], 3).tolist())) == 1


def test_a_key_takes_both_zeros_for_one() -> None:
    zeros = hashes([0.0, -0.0], pa.float64(), as_key=True)
    assert zeros[0] == zeros[1]


def test_columns_do_not_run_into_each_other() -> None:
    left = pa.chunked_array([["ab", "a", None, ""]])
    right = pa.chunked_array([["c", "bc", "", None]])
    assert len(set(hash_rows([left, right], 4).tolist())) == 4
    assert (hash_rows([left, right], 4) != hash_rows([right, left], 4)).all()


@given(
    values=st.lists(st.one_of(st.none(), st.binary(max_size=40))),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    slice_bytes=st.sampled_from([1, 16, 1 << 20]),
    long_value=st.sampled_from([8, 1 << 20]),
)
def test_slices_and_chunks_do_not_matter(values, cuts, slice_bytes, long_value) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_hash, "_SLICE_BYTES", slice_bytes)
        patch.setattr(row_hash, "_LONG_VALUE", long_value)
        whole = hashes(values, pa.binary())
        array = pa.array(values, pa.binary())
        edges = sorted({0, len(values), *(min(cut, len(values)) for cut in cuts)})
        chunks = [array[a:b] for a, b in pairwise(edges)]
        chunked = pa.chunked_array(chunks, pa.binary())
        assert hash_rows([chunked], len(values)).tolist() == whole
        assert [hashes([value], pa.binary())[0] for value in values] == whole


def test_no_columns_and_no_rows() -> None:
    assert hash_rows([], 3).tolist() == [int(row_hash._GOLDEN)] * 3
    assert hashes([], pa.string()) == []
