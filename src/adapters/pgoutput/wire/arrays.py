r"""Arrays: PostgreSQL's text (`{1,2,NULL}`, `[0:1]={"a \"b\"",c}`) to compact JSON, digits kept.

Simple arrays (one dimension, nothing quoted) are converted for all rows at once, the others one by
one. Source: PostgreSQL manual, "Arrays", "Array Input and Output Syntax".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters.pgoutput.wire.text import MalformedValue, TextColumn, as_utf8, contents, gather
from adapters.pgoutput.wire.type_rules import rule_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from adapters.pgoutput.wire.text import Mask
    from adapters.pgoutput.wire.types import PgType

#: PostgreSQL's MAXDIM.
_MAX_DEPTH = 6
_BOUNDS = re.compile(r"(?:\[[+-]?\d+:[+-]?\d+\])+=", re.ASCII)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_NO_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_BOOLEANS = {"t": "true", "f": "false"}


def decode_arrays(text: TextColumn, element: PgType) -> pa.Array:
    """JSON text of each array."""
    strings = as_utf8(gather(text))
    element, _ = element.resolve()
    simple = is_simple(strings, element)
    match rule_of(element).json:
        case "number":
            quick = _numbers(strings)
        case "boolean":
            quick = _booleans(strings)
        case "string":
            quick = _texts(strings) if simple.any() else strings
    hard = ~simple & np.asarray(strings.is_valid())
    if not hard.any():
        return quick
    grammar = _Grammar.of(element)
    rows = np.flatnonzero(hard)
    slow = [grammar.to_json(one) for one in strings.take(pa.array(rows)).to_pylist()]
    return pc.replace_with_mask(quick, pa.array(hard), pa.array(slow, pa.string()))


def is_simple(strings: pa.Array, element: PgType) -> Mask:
    """Rows with one dimension that begins at 1, in which a comma or brace separates elements and
    NULL is no text."""
    element, _ = element.resolve()
    match rule_of(element).json:
        case "number":
            return _simple_rows(strings, _NUMBER_PAIRS)
        case "boolean":
            return _simple_rows(strings, _BOOLEAN_PAIRS)
        case "string" if element.element is None and element.delimiter == ",":
            return _simple_texts(strings)
    return np.zeros(len(strings), dtype=np.bool_)


def array_grammar(element: PgType) -> _Grammar:
    element, _ = element.resolve()
    return _Grammar.of(element)


# Simple arrays -------------------------------------------------------------------------------


def _pairs(grammar: dict[str, str]) -> npt.NDArray[np.bool_]:
    """A table by (byte, next byte): whether the second may follow the first."""
    table = np.zeros((256, 256), dtype=np.bool_)
    for firsts, seconds in grammar.items():
        for first in firsts:
            for second in seconds:
                table[ord(first), ord(second)] = True
    return table.reshape(-1)


_DIGITS = "0123456789"
_NUMBER_PAIRS = _pairs(
    {
        "{": "-N}" + _DIGITS,
        ",": "-N" + _DIGITS,
        "-.+": _DIGITS,
        _DIGITS: ".e,}" + _DIGITS,
        "e": "+-" + _DIGITS,
        "N": "U",
        "U": "L",
        "L": "L,}",
    }
)
_BOOLEAN_PAIRS = _pairs({"{": "tfN}", ",": "tfN", "tf": ",}", "N": "U", "U": "L", "L": "L,}"})


def _simple_rows(strings: pa.Array, pairs: npt.NDArray[np.bool_]) -> Mask:
    """Rows in braces in which all pairs of adjacent bytes are allowed."""
    bounds, data = contents(strings)
    simple = _in_braces(strings)
    if len(data) < 2:
        return simple
    allowed = pairs[data[:-1].astype(np.uint16) << 8 | data[1:]]
    borders = bounds[(bounds > 0) & (bounds < len(data))]
    allowed[borders - 1] = True
    return _without(simple, bounds, np.flatnonzero(~allowed))


def _in_braces(strings: pa.Array) -> Mask:
    bounds, data = contents(strings)
    simple: Mask = np.asarray(strings.is_valid()) & (np.diff(bounds) >= 2)
    if len(data):
        simple &= data[bounds[:-1].clip(max=len(data) - 1)] == ord("{")
        simple &= data[bounds[1:] - 1] == ord("}")
    return simple


def _without(simple: Mask, bounds: npt.NDArray[np.int32], offenders: npt.NDArray[np.int64]) -> Mask:
    """`simple` less the rows in which these bytes lie."""
    rows = np.searchsorted(bounds, offenders, side="right") - 1
    simple[rows] = False
    return simple


_TO_JSON = np.arange(256, dtype=np.uint8)
for _old, _new in zip(b"{}NUL", b"[]nul", strict=True):
    _TO_JSON[_old] = _new


def _numbers(strings: pa.Array) -> pa.Array:
    """Simple arrays of numbers: only braces and NULL differ in JSON, byte for byte."""
    validity, offsets, _ = strings.buffers()
    _, data = contents(strings)
    translated = pa.py_buffer(_TO_JSON[data])
    return pa.Array.from_buffers(pa.string(), len(strings), [validity, offsets, translated])


def _booleans(strings: pa.Array) -> pa.Array:
    true = pc.replace_substring(_numbers(strings), "t", "true")
    return pc.replace_substring(true, "f", "false")


#: Bytes that a simple text array does not have between its braces.
_HARD_BYTES = np.zeros(256, dtype=np.bool_)
_HARD_BYTES[:0x20] = True
_HARD_BYTES[[ord(c) for c in '"\\{}']] = True


def _simple_texts(strings: pa.Array) -> Mask:
    """Rows without quotes, escapes, inner braces, control characters and NULL."""
    bounds, data = contents(strings)
    hard = _HARD_BYTES[data]
    simple = _in_braces(strings)
    hard[bounds[:-1][simple]] = False
    hard[bounds[1:][simple] - 1] = False
    simple = _without(simple, bounds, np.flatnonzero(hard))
    unquoted_null = pc.match_substring(strings, "NULL", ignore_case=False).fill_null(True)
    empty_token = pc.match_substring_regex(strings, r"^\{,|,,|,\}$").fill_null(True)
    simple &= ~np.asarray(unquoted_null) & ~np.asarray(empty_token)
    return simple


def _texts(strings: pa.Array) -> pa.Array:
    quoted = pc.replace_substring(strings, ",", '","')
    opened = pc.replace_substring_regex(quoted, r"^\{", '["')
    closed = pc.replace_substring_regex(opened, r"\}$", '"]')
    return pc.if_else(pc.equal(strings, "{}"), "[]", closed)


# Any array -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grammar:
    """The grammar of arrays of one element type."""

    element: PgType
    tokens: re.Pattern[str]

    @classmethod
    def of(cls, element: PgType) -> _Grammar:
        delimiter = re.escape(element.delimiter)
        quoted = r'"[^"\\]*(?:\\.[^"\\]*)*"'
        pattern = rf'{quoted}|[{{}}]|{delimiter}|[^"{{}}\\{delimiter}]+'
        return cls(element, re.compile(pattern, re.DOTALL))

    def to_json(self, text: str) -> str:
        """One array; `MalformedValue` if it is not one."""
        here = 0
        if text.startswith("["):
            lower_bounds = _BOUNDS.match(text)
            if lower_bounds is None:
                raise MalformedValue("is not an array")
            here = lower_bounds.end()
        out: list[str] = []
        depth = 0
        # An item may follow an opening brace or a delimiter, but not another item.
        item_allowed, after_delimiter = True, False
        while here < len(text):
            token = self.tokens.match(text, here)
            if token is None or (here and depth == 0 and out):
                raise MalformedValue("is not an array")
            here = token.end()
            word = token[0]
            if word == "{":
                depth += 1
                if not item_allowed or depth > _MAX_DEPTH:
                    raise MalformedValue("is not an array")
                out.append("[")
                after_delimiter = False
            elif word == "}":
                depth -= 1
                if depth < 0 or after_delimiter:
                    raise MalformedValue("is not an array")
                out.append("]")
                item_allowed = False
            elif word == self.element.delimiter:
                if item_allowed or depth == 0:
                    raise MalformedValue("is not an array")
                out.append(",")
                item_allowed = after_delimiter = True
            else:
                if not item_allowed or depth == 0:
                    raise MalformedValue("is not an array")
                out.append(self.item(word))
                item_allowed = after_delimiter = False
        if depth or not out:
            raise MalformedValue("is not an array")
        return "".join(out)

    def words(self, text: str) -> list[str | None] | None:
        """The texts of an array's elements; None for an array with several dimensions or another
        lower bound. `MalformedValue` if it is not an array."""
        self.to_json(text)
        if text.startswith(("[", "{{")):
            return None
        tokens = (token[0] for token in self.tokens.finditer(text, 1, len(text) - 1))
        return [_unquoted(word) for word in tokens if word != self.element.delimiter]

    def item(self, word: str) -> str:
        if word == "NULL":
            return "null"
        word = _unquoted(word) or ""
        element = self.element
        if element.element is not None:
            inner, _ = element.element.resolve()
            return _Grammar.of(inner).to_json(word)
        form = rule_of(element).json
        if form == "number" and word not in _NO_NUMBERS:
            if not _NUMBER.fullmatch(word):
                raise MalformedValue("has an item that is not a number")
            return word
        if form == "boolean":
            if word not in _BOOLEANS:
                raise MalformedValue("has an item that is neither t nor f")
            return _BOOLEANS[word]
        return encode_basestring(word)


def _unquoted(word: str) -> str | None:
    """An item's text; None for NULL."""
    if word.startswith('"'):
        return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)
    return None if word == "NULL" else word
