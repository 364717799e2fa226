"""Masks against the standard library's own HMAC, and by hand."""

from __future__ import annotations

import hmac

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_core.values.masks import Hasher, last4


@given(st.binary(min_size=1, max_size=200), st.lists(st.none() | st.text(max_size=100)))
def test_hashes_are_those_of_the_standard_library(key: bytes, texts: list[str | None]) -> None:
    encodable = [text if text is None or _is_utf8(text) else "x" for text in texts]
    expected = [
        None if text is None else hmac.new(key, text.encode(), "sha256").hexdigest()
        for text in encodable
    ]
    half = len(encodable) // 2
    chunks = [encodable[:half], encodable[half:]]
    assert Hasher(key)(pa.chunked_array(chunks, pa.string())).to_pylist() == expected


def _is_utf8(text: str) -> bool:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "ignore") == text


def test_no_chunk_and_only_nulls() -> None:
    hasher = Hasher(b"k")
    assert hasher(pa.chunked_array([], pa.string())).to_pylist() == []
    assert hasher(pa.chunked_array([[None, None]], pa.string())).to_pylist() == [None, None]


def test_the_mark_of_a_key_shows_neither_the_key_nor_equals_that_of_another() -> None:
    assert Hasher(b"one").key_mark == Hasher(b"one").key_mark != Hasher(b"two").key_mark
    assert "one" not in Hasher(b"one").key_mark


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("DE89370400440532013000", "******************3000"),
        ("12345", "*2345"),
        ("1234", "****"),
        ("1", "*"),
        ("", ""),
        ("ünïcödé€", "****ödé€"),
        (None, None),
    ],
)
def test_last4(text: str | None, masked: str | None) -> None:
    assert last4(pa.chunked_array([[text]], pa.string())).to_pylist() == [masked]
