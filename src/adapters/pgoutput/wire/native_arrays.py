r"""Arrays: PostgreSQL's text (`{1,2,NULL}`) to Arrow lists of the element's type.

Simple arrays are split for all rows at once, the others one by one; their elements are then decoded
together. A list has one dimension and begins at 1. Other arrays, and those with an element that its
type cannot hold, are unrepresentable as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters.pgoutput.wire.arrays import array_grammar, is_simple
from adapters.pgoutput.wire.text import TextColumn, as_utf8, gather
from adapters.pgoutput.wire.type_rules import rule_of

if TYPE_CHECKING:
    from adapters.pgoutput.wire.text import Decoded, Mask, Positions
    from adapters.pgoutput.wire.types import PgType


def decode_native_arrays(text: TextColumn, element: PgType, typmod: int) -> Decoded:
    """Lists of the element's Arrow type, and (row, text) of each array that is no list."""
    strings = as_utf8(gather(text))
    words, lists = _words(strings, element)
    rule = rule_of(element, typmod)
    flat = words.flatten()
    values, odd = rule.text(_text_column(flat), rule.arrow)
    offsets = np.concatenate([[0], np.cumsum(_lengths(words))])
    owners = np.searchsorted(offsets, [place for place, _ in odd], side="right") - 1
    lists[owners] = False
    rows = np.flatnonzero(~lists & np.asarray(strings.is_valid()))
    texts = strings.take(pa.array(rows)).to_pylist()
    made = pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), values, pa.list_(rule.arrow), mask=pa.array(~lists)
    )
    return made, list(zip(rows.tolist(), texts, strict=True))


def _words(strings: pa.Array, element: PgType) -> tuple[pa.ListArray, Mask]:
    """The texts of each array's elements, and which rows are lists; the others have none."""
    simple = is_simple(strings, element)
    lists: Mask = np.asarray(strings.is_valid()).copy()
    inner = pc.utf8_slice_codeunits(pc.if_else(pa.array(simple), strings, "{}"), 1, -1)
    split = pc.split_pattern(inner, ",")
    empty = pc.equal(pc.binary_length(inner), 0)
    hard = np.flatnonzero(lists & ~simple)
    found: list[list[str | None] | None] = []
    if len(hard):
        grammar = array_grammar(element)
        found = [grammar.words(one) for one in strings.take(pa.array(hard)).to_pylist()]
        lists[hard[[words is None for words in found]]] = False
    texts = [*(words or [] for words in found), []]
    pool = pa.concat_arrays([_with_nulls(split), pa.array(texts, pa.list_(pa.string()))])
    places = np.arange(len(strings))
    places[np.asarray(empty)] = len(pool) - 1
    places[hard] = len(strings) + np.arange(len(hard))
    return pool.take(pa.array(places)), lists


def _with_nulls(split: pa.ListArray) -> pa.ListArray:
    """The same lists, with NULL for the word NULL, which a simple text never is."""
    words = split.values
    kept = pc.if_else(pc.equal(words, "NULL"), pa.scalar(None, pa.string()), words)
    return pa.ListArray.from_arrays(split.offsets, kept)


def _lengths(lists: pa.ListArray) -> Positions:
    lengths: Positions = np.asarray(pc.list_value_length(lists)).astype(np.int64)
    return lengths


def _text_column(strings: pa.Array) -> TextColumn:
    valid = np.asarray(strings.is_valid())
    _, offsets, data = strings.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(strings) + 1, 4 * strings.offset).astype(np.int64)
    content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    # Decoders read whole words, which must end within the buffer.
    buffer = np.concatenate([content, np.zeros(8, np.uint8)])
    return TextColumn(buffer, bounds[:-1], np.where(valid, bounds[1:], bounds[:-1]), valid)
