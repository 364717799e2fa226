"""One text for each JSON value, for destinations that keep values but not their text.

Equal values have equal texts: keys are sorted, spaces are left out, numbers are written by their
value alone. Source: Databricks SQL reference, "VARIANT type" and "parse_json function".
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

#: Digits of an exact number, before and after the point together.
EXACT_DIGITS = 38

#: Limits of a value: bytes of its text, nested arrays and objects, characters of a number, of a
#: key. Databricks documents 128 MiB for a VARIANT, which takes up to four times the bytes of its
#: text; the others are those of its parser, with a margin.
MOST_BYTES = 16 << 20
MOST_NESTED = 200
MOST_CHARACTERS_OF_NUMBER = 900
MOST_CHARACTERS_OF_KEY = 40_000


#: Strings, and all else but brackets.
_NO_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[^][{}"]+', re.DOTALL)


class NotCanonical(ValueError):
    """A JSON value that a VARIANT cannot hold. The message does not contain the value."""


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def canonical_json(text: str, *, printed: bool = False) -> str:
    """Return the canonical text of a JSON value. Raises `NotCanonical`.

    `printed`: a VARIANT was printed, whose doubles can have more digits than they need.
    """
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise NotCanonical("is too large")
    if text.count("[") + text.count("{") > MOST_NESTED and _depth(text) > MOST_NESTED:
        raise NotCanonical("is nested too deeply")
    number = _printed_number if printed else _number
    found = json.loads(
        text, parse_int=number, parse_float=number, object_pairs_hook=_without_duplicates
    )
    written = _written(found)
    try:
        written.encode()
    except UnicodeEncodeError:
        raise NotCanonical("has half of a surrogate pair") from None
    return written


def _number(text: str) -> _Number:
    """Exact up to 38 digits, else as a double if that is the same number. Written without zeros
    that mean nothing, and -0 as 0."""
    if len(text) > MOST_CHARACTERS_OF_NUMBER:
        raise NotCanonical("has a number with too many digits")
    value = Decimal(text)
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    plain = "e" not in text and "E" not in text
    if not (plain and len(digits) <= EXACT_DIGITS and -exponent <= EXACT_DIGITS):
        double = float(text)
        if not math.isfinite(double) or Decimal(repr(double)) != value:
            raise NotCanonical("has a number that is neither a decimal of 38 digits nor a double")
    if not value:
        return _Number("0")
    kept = "".join(map(str, digits)).rstrip("0")
    power = exponent + len(digits) - len(kept)
    sign = "-" if value < 0 else ""
    whole = len(kept) + power
    if power >= 0 and whole <= EXACT_DIGITS:
        return _Number(sign + kept + "0" * power)
    if power < 0 and max(len(kept), -power) <= EXACT_DIGITS:
        padded = kept.rjust(1 - power, "0")
        return _Number(f"{sign}{padded[:power]}.{padded[power:]}")
    return _Number(f"{sign}{kept}e{power}")


def _printed_number(text: str) -> _Number:
    return _number(repr(float(text)) if "E" in text else text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotCanonical("has an object with the same key twice")
    if any(len(key) > MOST_CHARACTERS_OF_KEY for key in found):
        raise NotCanonical("has a key that is too long")
    return found


def _written(value: Any) -> str:
    match value:
        case _Number():
            return str(value)
        case str():
            return encode_basestring(value)
        case dict():
            pairs = (f"{encode_basestring(k)}:{_written(value[k])}" for k in sorted(value))
            return f"{{{','.join(pairs)}}}"
        case list():
            return f"[{','.join(map(_written, value))}]"
        case _:
            return {None: "null", True: "true", False: "false"}[value]


def _depth(text: str) -> int:
    """Return how deeply arrays and objects are nested."""
    depth = deepest = 0
    for bracket in _NO_BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
