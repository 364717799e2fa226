"""Replaces a value by one of the same type and length, always by the same one.

A random key, which is nowhere else, makes the replacements. Those of short values are a permutation
of the values of that form, so two keys never become one. Digits stay digits and letters stay
letters; signs, spaces and punctuation stay. A value without letters and digits stays as it is, and
so does one that its type allows once (`NaN`, `infinity`, the limits of floats).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import date
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING

from adapters.pgoutput.wire import types

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapters.pgoutput.wire.types import PgType

_INTEGER_LIMITS = {types.INT2: 2**15 - 1, types.INT4: 2**31 - 1, types.INT8: 2**63 - 1}
_HEX = frozenset({2950, 829, 774})  # uuid, macaddr, macaddr8
#: Forms with fewer values than this are permuted. Of more, a collision is not to be expected.
_PERMUTED = 1 << 96
_ROUNDS = 6

_NUMBER = re.compile(r"(-?)(\d+)((?:\.\d+)?)((?:[eE][+-]?\d+)?)", re.ASCII)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d+))?", re.ASCII)
_JSON_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(-?\d[\d.eE+-]*)', re.DOTALL)
_JSON_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ARRAY_BOUNDS = re.compile(r"(?:\[[+-]?\d+:[+-]?\d+\])+=", re.ASCII)
_ARRAY_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([^{},"]+)', re.DOTALL)
#: Years that stay within their span, so that a date keeps its century, roughly.
_YEARS = ((1900, 2099), (2100, 9999), (1000, 1899), (1, 999))
#: Code points with two, three and four bytes in UTF-8.
_WIDE = ((0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))

_DIGITS = "0123456789"
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
_PLAIN = (_DIGITS, _LOWER, _UPPER)
_HEXADECIMAL = ("0123456789abcdef", "ABCDEF")
_BITS = ("01",)


class MaskedValues:
    """Masks values in PostgreSQL's text format."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self.masked = lru_cache(maxsize=1 << 14)(self._masked)

    def _masked(self, text: str, pg_type: PgType, typmod: int = -1) -> str:
        """Return the replacement of a value of this type."""
        resolved, _ = pg_type.resolve(typmod)
        if resolved.element is not None:
            if resolved.element.resolve()[0].delimiter != ",":
                return self.text(text)
            return self.array(text, resolved.element)
        match resolved.oid:
            case types.BOOL:
                return "ft"[self._moved(b"bool", 2, int(text == "t"))]
            case types.INT2 | types.INT4 | types.INT8:
                return self._integer(text, _INTEGER_LIMITS[resolved.oid])
            case types.NUMERIC | types.FLOAT4 | types.FLOAT8:
                return self.number(text)
            case types.DATE | types.TIMESTAMP | types.TIMESTAMPTZ:
                return self._moment(text)
            case types.JSON | types.JSONB:
                return self.json(text)
            case types.BYTEA:
                return "\\x" + self._characters(text[2:], _HEXADECIMAL)
            case types.BIT | types.VARBIT:
                return self._characters(text, _BITS)
            case oid if oid in _HEX:
                return self._characters(text, _HEXADECIMAL)
            case _:
                return self.text(text)

    def text(self, text: str) -> str:
        return self._characters(text, _PLAIN)

    def number(self, text: str) -> str:
        """A number with any digits; its sign, point and exponent stay."""
        found = _NUMBER.fullmatch(text)
        if found is None:
            return text  # NaN, Infinity
        sign, whole, fraction, exponent = found.groups()
        if exponent and abs(int(exponent[1:])) >= 38:
            return text  # as large or small as its type allows, where other digits may not fit
        digits = whole + fraction[1:]
        # A first digit that is not 0 must not become 0: the number would have another form.
        first = [1 if whole == "0" else 9]
        sizes = first + [10] * (len(digits) - 1)
        low = 0 if whole == "0" else 1
        places = [int(digits[0]) - low, *map(int, digits[1:])]
        moved = self._shuffled(b"number", sizes, places)
        found_digits = str(moved[0] + low) + "".join(map(str, moved[1:]))
        point = "." if fraction else ""
        return f"{sign}{found_digits[: len(whole)]}{point}{found_digits[len(whole) :]}{exponent}"

    def json(self, text: str) -> str:
        """JSON stays JSON: its keys and texts are masked as texts, its numbers as numbers."""

        def token(found: re.Match[str]) -> str:
            if found[1] is None:
                return self.number(found[2])
            parts = re.split(f"({_JSON_ESCAPE.pattern})", found[1], flags=re.DOTALL)
            return '"' + "".join(map(part, parts)) + '"'

        def part(text: str) -> str:
            if not text.startswith("\\"):
                return self.text(text)
            # Half of a surrogate pair must not become anything else.
            if text[1] != "u" or text[2] in "dD":
                return text
            return text[:4] + self._characters(text[4:], _HEXADECIMAL)

        return _JSON_TOKEN.sub(token, text)

    def array(self, text: str, element: PgType) -> str:
        """An array in PostgreSQL's format, each element masked as a value of its type."""
        bounds = _ARRAY_BOUNDS.match(text)
        head, body = (bounds[0], text[bounds.end() :]) if bounds else ("", text)

        def token(found: re.Match[str]) -> str:
            if found[1] is not None:
                inner = re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL)
                escaped = re.sub(r'(["\\])', r"\\\1", self.masked(inner, element))
                return f'"{escaped}"'
            if found[2] == "NULL":
                return found[2]
            masked = str(self.masked(found[2], element))
            return f'"{masked}"' if masked.upper() == "NULL" else masked

        return head + _ARRAY_TOKEN.sub(token, body)

    def array_as_json(self, text: str, element: PgType) -> str:
        """As `array`, of the JSON that a destination holds."""

        def token(found: re.Match[str]) -> str:
            if found[1] is not None:
                import json

                return encode_basestring(str(self.masked(json.loads(found[0]), element)))
            return str(self.masked(found[2], element))

        masked = _JSON_TOKEN.sub(token, text)
        if element.resolve()[0].oid != types.BOOL:
            return masked
        words = {word: self.masked(word[0], element) for word in ("true", "false")}
        return re.sub(
            "true|false", lambda found: "true" if words[found[0]] == "t" else "false", masked
        )

    def _integer(self, text: str, most: int) -> str:
        size = abs(int(text))
        negative = text.startswith("-")
        low = 10 ** (len(str(size)) - 1) if size > 9 else int(negative)
        high = min(10 ** len(str(size)) - 1, most)
        if size > high:
            return text  # the smallest number of the type
        moved = low + self._moved(b"integer", high - low + 1, size - low)
        return f"-{moved}" if negative else str(moved)

    def _moment(self, text: str) -> str:
        """A date or a timestamp. Of years with other than four digits, only the year is masked."""
        if not text[:1].isdigit():
            return text  # infinity, -infinity
        found = _DATE.match(text)
        if found is None or " BC" in text:
            year, dash, rest = text.partition("-")
            return self.number(year.lstrip("0")).zfill(len(year)) + dash + rest
        day = self._date(date(*map(int, found.groups())))
        return day + _TIME.sub(self._time, text[found.end() :], count=1)

    def _date(self, day: date) -> str:
        first, last = next(span for span in _YEARS if span[0] <= day.year <= span[1])
        low, high = date(first, 1, 1).toordinal(), date(last, 12, 31).toordinal()
        moved = self._moved(b"date", high - low + 1, day.toordinal() - low)
        return date.fromordinal(low + moved).isoformat()

    def _time(self, found: re.Match[str]) -> str:
        hour, minute, second, fraction = found.groups()
        digits = len(fraction or "")
        ticks = (int(hour) * 3600 + int(minute) * 60 + int(second)) * 10**digits
        ticks += int(fraction or 0)
        if ticks >= 86400 * 10**digits:
            return found[0]  # 24:00:00
        seconds, part = divmod(self._moved(b"time", 86400 * 10**digits, ticks), 10**digits)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return f"{clock}.{part:0{digits}}" if fraction else clock

    def _characters(self, text: str, alphabets: Sequence[str]) -> str:
        """Replace each character by one of its alphabet; those of none stay."""
        kinds = [_alphabet(character, alphabets) for character in text]
        chosen = [at for at, kind in enumerate(kinds) if kind is not None]
        sets = [kind for kind in kinds if kind is not None]
        places = [where for _, where, _ in sets]
        moved = self._shuffled(b"text", [size for size, _, _ in sets], places)
        characters = list(text)
        for at, (_, _, character), place in zip(chosen, sets, moved, strict=True):
            characters[at] = character(place)
        return "".join(characters)

    def _shuffled(self, form: bytes, sizes: Sequence[int], places: Sequence[int]) -> list[int]:
        """Replace all places together; each stays below its size."""
        total, number = 1, 0
        for size, place in zip(sizes, places, strict=True):
            total, number = total * size, number * size + place
            if total >= _PERMUTED:
                return self._drawn(form, sizes, places)
        number = self._moved(form + repr(list(sizes)).encode(), total, number)
        moved = []
        for size in reversed(sizes):
            number, place = divmod(number, size)
            moved.append(place)
        return moved[::-1]

    def _drawn(self, form: bytes, sizes: Sequence[int], places: Sequence[int]) -> list[int]:
        named = b"".join(place.to_bytes(4, "big") for place in places)
        stream = hashlib.shake_256(self._key + form + named).digest(4 * len(sizes))
        return [
            int.from_bytes(stream[4 * at : 4 * at + 4], "big") % size
            for at, size in enumerate(sizes)
        ]

    def _moved(self, form: bytes, size: int, number: int) -> int:
        """A permutation of the numbers below `size` that leaves none where it was."""
        if size < 2:
            return number
        return self._permuted(form, size, (self._inverse(form, size, number) + 1) % size)

    def _permuted(self, form: bytes, size: int, number: int) -> int:
        """A Feistel network, repeated until the result is below `size`."""
        half = ((size - 1).bit_length() + 1) // 2
        low = (1 << half) - 1
        while True:
            left, right = number >> half, number & low
            for step in range(_ROUNDS):
                left, right = right, left ^ self._round(form, size, step, right) & low
            number = left << half | right
            if number < size:
                return number

    def _inverse(self, form: bytes, size: int, number: int) -> int:
        half = ((size - 1).bit_length() + 1) // 2
        low = (1 << half) - 1
        while True:
            left, right = number >> half, number & low
            for step in reversed(range(_ROUNDS)):
                left, right = right ^ self._round(form, size, step, left) & low, left
            number = left << half | right
            if number < size:
                return number

    def _round(self, form: bytes, size: int, step: int, number: int) -> int:
        named = b"%b|%d|%d|%d" % (form, size, step, number)
        return int.from_bytes(hashlib.blake2b(named, key=self._key).digest(), "big")


def _alphabet(
    character: str, alphabets: Sequence[str]
) -> tuple[int, int, Callable[[int], str]] | None:
    """The size of the character's alphabet, its place there, and how to get a character of it."""
    if character.isascii():
        for alphabet in alphabets:
            place = alphabet.find(character)
            if place >= 0:
                return len(alphabet), place, alphabet.__getitem__
        return None
    code = ord(character)
    low, high = next(span for span in _WIDE if span[0] <= code <= span[1])
    return high - low + 1, code - low, lambda place: chr(low + place)
