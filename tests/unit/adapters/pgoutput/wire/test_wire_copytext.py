"""COPY text: a plain writer after the manual, read back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.pgoutput.wire import copytext
from adapters.pgoutput.wire.copytext import CopiedRows, decode_copy_text
from adapters.pgoutput.wire.types import TypeMap, arrow_type
from cdc_core.changes import Unrepresentable
from cdc_core.errors import DecodeError
from cdc_core.relation import Column

TYPES = TypeMap()
ESCAPES = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
ESCAPES["\\"] = "\\\\"


def columns(*oids: int) -> list[Column]:
    return [Column(f"c{i}", arrow_type(TYPES[oid]), oid) for i, oid in enumerate(oids)]


def copy_out(rows: list[list[str | None]]) -> bytes:
    """`CopyAttributeOutText` of PostgreSQL."""
    lines = []
    for row in rows:
        cells = [
            "\\N" if cell is None else "".join(ESCAPES.get(char, char) for char in cell)
            for cell in row
        ]
        lines.append("\t".join(cells) + "\n")
    return "".join(lines).encode()


def decode(data: bytes, *oids: int) -> CopiedRows:
    copied = decode_copy_text(data, columns(*oids), TYPES, "public.t")
    copied.rows.validate(full=True)
    return copied


CELL = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
CELL |= st.text(st.sampled_from("\\\\\\\t\n\rN.x"), max_size=6)


@settings(max_examples=200)
@given(st.data())
def test_text_comes_back(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=8))
    size = data.draw(st.sampled_from([1, 30, 1 << 20]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copytext, "_PIECE_BYTES", size)
        patch.setattr(copytext, "_WINDOW_BYTES", 4)
        copied = decode(copy_out(rows), *[25] * width)
    assert [list(row.values()) for row in copied.rows.to_pylist()] == rows
    assert copied.rows.num_rows == len(rows)


def test_every_type_by_the_same_codec() -> None:
    rows: list[list[str | None]] = [
        ["1", "\\x00ff", "2024-01-01", '{"a\\\\b",NULL}', "t"],
        [None, None, None, None, None],
        ["-5", "\\x", "infinity", "{}", "f"],
    ]
    copied = decode(copy_out(rows), 23, 17, 1082, 1009, 16)
    first, second, third = (list(row.values()) for row in copied.rows.to_pylist())
    assert first[0:2] == [1, b"\x00\xff"]
    assert first[3:] == ['["a\\\\b",null]', True]
    assert second == [None] * 5
    assert third == [-5, b"", None, "[]", False]
    assert copied.unrepresentable == (Unrepresentable("c2", 2, "infinity"),)


def test_rows_of_unrepresentable_values_count_from_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copytext, "_PIECE_BYTES", 10)
    copied = decode(b"2024-01-01\n" * 5 + b"infinity\n", 1082)
    assert copied.unrepresentable == (Unrepresentable("c0", 5, "infinity"),)


def test_no_columns_and_one_column() -> None:
    assert decode(b"\n\n\n").rows.num_rows == 3
    assert decode(b"").rows.num_rows == 0
    assert decode(b"", 25, 23).rows.column_names == ["c0", "c1"]
    assert decode(b"\n\\N\nx\n", 25).rows.to_pylist() == [{"c0": ""}, {"c0": None}, {"c0": "x"}]


@pytest.mark.parametrize(
    ("data", "oids"),
    [
        (b"1", [23]),
        (b"1\n2", [23]),
        (b"1\t2\n3\n", [23, 23]),
        (b"1\n2\t3\n", [23, 23]),
        (b"1\t2\n3\t4\n", [23]),
        (b"1\t2\t3\n4\n", [23, 23]),
        (b"x\n", []),
        (b"\t\n", []),
        (b"a\\\n", [25]),
        (b"a\\\tb\n", [25, 25]),
        (b"\\\\\\\n", [25]),
        (b"\\q\n", [25]),
        (b"\\x41\n", [25]),
        (b"\\101\n", [25]),
        (b"\\.\n", [25]),
        (b"\xff\n", [25]),
        (b"x\n", [23]),
    ],
)
def test_what_is_no_copy_of_these_columns_is_refused(data: bytes, oids: list[int]) -> None:
    with pytest.raises(DecodeError, match=r"public\.t"):
        decode(data, *oids)


@given(st.text(st.sampled_from("\\N\t\nx1"), max_size=30).map(str.encode) | st.binary())
def test_random_bytes_are_decoded_or_refused(data: bytes) -> None:
    for oids in ([], [25], [25, 25], [23, 17]):
        try:
            decode(data, *oids)
        except DecodeError:
            continue
