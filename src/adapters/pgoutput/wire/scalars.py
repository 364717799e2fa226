"""Booleans, numbers, dates, timestamps, bytes: PostgreSQL's text to Arrow, all rows at once.

Each function takes a column's text and returns the array, with the (row, text) of every value that
the array's type cannot hold. A text that is not of the type raises `MalformedValue` or
`pa.ArrowInvalid`.
Source: PostgreSQL manual, "Data Types", the output format of each.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters.pgoutput.wire.text import (
    MalformedValue,
    TextColumn,
    as_ascii,
    contents,
    gather,
    with_validity,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.pgoutput.wire.text import Positions

SETTINGS = "the session must have DateStyle ISO, TimeZone UTC and bytea_output hex"

Unheld = list[tuple[int, str]]

_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
_FIRST_DAY, _LAST_DAY = date(1, 1, 1), date(9999, 12, 31)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST_INSTANT = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
LAST_INSTANT = (datetime(9999, 12, 31, 23, 59, 59, 999999, UTC) - _EPOCH) // _MICROSECOND


def decode_booleans(text: TextColumn) -> pa.Array:
    if not text.valid.any():
        return pa.nulls(len(text), pa.bool_())
    letters = text.buffer.take(text.starts, mode="clip")
    true = letters == ord("t")
    good = (true | (letters == ord("f"))) & (text.ends - text.starts == 1)
    if not (good | ~text.valid).all():
        raise MalformedValue("is neither t nor f")
    return pa.array(true, mask=None if text.valid.all() else ~text.valid)


def decode_integers(text: TextColumn, arrow_type: pa.DataType) -> pa.Array:
    values = gather(text)
    _, data = contents(values)
    # Arrow takes hexadecimal too; between "-" and "9" there is no letter.
    if len(data) and not (int(data.min()) >= ord("-") and int(data.max()) <= ord("9")):
        raise MalformedValue("is not an integer")
    return as_ascii(values).cast(arrow_type)


def decode_floats(text: TextColumn, arrow_type: pa.DataType) -> pa.Array:
    """Bit for bit: the server prints the shortest text that reads back as the same number."""
    return as_ascii(gather(text)).cast(arrow_type)


def decode_decimals(text: TextColumn, precision: int, scale: int) -> tuple[pa.Array, Unheld]:
    """`numeric(precision, scale)`, which prints exactly `scale` digits after the point."""
    values = as_ascii(gather(text))
    unheld: Unheld = []
    _, data = contents(values)
    if len(data) and int(data.max()) > ord("9"):
        values, unheld = _set_aside(values, _rows(pc.is_in(values, pa.array(_NO_NUMBERS))))
    if not _prints_scale(values, precision, scale):
        # Arrow's own cast wraps around in silence past 128 bits.
        pattern = rf"^-?[0-9]{{1,{max(precision - scale, 1)}}}(\.[0-9]{{1,{max(scale, 1)}}})?$"
        fits = pc.match_substring_regex(values, pattern)
        if precision == scale:
            fits = pc.and_(fits, pc.match_substring_regex(values, r"^-?0"))
        if not pc.all(fits).as_py():
            raise MalformedValue("is not a number, or has more digits than its type")
    return values.cast(pa.decimal128(precision, scale)), unheld


def _prints_scale(values: pa.Array, precision: int, scale: int) -> bool:
    """Whether all texts have the point where the scale puts it and no more digits than the type."""
    bounds, data = contents(values)
    present = np.asarray(values.is_valid())
    starts, ends = bounds[:-1][present], bounds[1:][present]
    point = 1 if scale else 0
    if len(starts) == 0:
        return True
    if int((ends - starts).min()) < scale + point + 1:
        return False
    whole = ends - starts - scale - point - (data[starts] == ord("-"))
    fits = int(whole.min()) >= 1 and int(whole.max()) <= precision - scale
    return fits and (not scale or bool((data[ends - scale - 1] == ord(".")).all()))


def decode_bytea(text: TextColumn) -> pa.Array:
    r"""Format hex: `\x` and two digits a byte."""
    lengths = text.ends - text.starts
    if bool((text.valid & (lengths < 2)).any()) or bool((lengths & 1).any()):
        raise MalformedValue("is not in hex format", SETTINGS)
    heads = text.starts[text.valid]
    if bool((text.buffer[heads] != ord("\\")).any()) or bool(
        (text.buffer[heads + 1] != ord("x")).any()
    ):
        raise MalformedValue("is not in hex format", SETTINGS)
    starts = np.where(text.valid, text.starts + 2, text.ends)
    digits = gather(TextColumn(text.buffer, starts, text.ends, text.valid))
    bounds, data = contents(digits)
    nibbles = _NIBBLES[data]
    if len(nibbles) and int(nibbles.max()) > 0xF:
        raise MalformedValue("is not in hex format", SETTINGS)
    octets = nibbles[0::2] << 4 | nibbles[1::2]
    offsets = bounds >> 1
    values = pa.Array.from_buffers(
        pa.binary(), len(text), [None, pa.py_buffer(offsets), pa.py_buffer(octets)]
    )
    return with_validity(values, text.valid)


def _nibbles() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    table = np.full(256, 0xFF, dtype=np.uint8)
    for value, digit in enumerate("0123456789abcdef"):
        table[ord(digit)] = table[ord(digit.upper())] = value
    return table


_NIBBLES = _nibbles()

_USUAL_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_USUAL_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_USUAL_ZONE = r"[+-][0-9]{2}(:[0-9]{2})?$"
_ENDLESS = frozenset({"infinity", "-infinity"})
_ODD_DATE = re.compile(r"\d{4,7}-\d\d-\d\d( BC)?", re.ASCII)
_ODD_TIMESTAMP = re.compile(
    r"(\d{4,7})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?"
    r"(?:([+-])(\d\d)(?::(\d\d)(?::(\d\d))?)?)?( BC)?",
    re.ASCII,
)


def decode_dates(text: TextColumn) -> tuple[pa.Array, Unheld]:
    """Years 1 to 9999; others and the infinities are set aside."""
    values = as_ascii(gather(text))
    unheld: Unheld = []
    days = _cast_or_none(values, pa.date32())
    if days is None:
        odd = _rows(pc.invert(pc.match_substring_regex(values, _USUAL_DATE)))
        usual, unheld = _set_aside(values, odd)
        for _, odd_text in unheld:
            if odd_text not in _ENDLESS and not _ODD_DATE.fullmatch(odd_text):
                raise MalformedValue("is not an ISO date", SETTINGS)
        days = usual.cast(pa.date32())
    return _within(days, _FIRST_DAY, _LAST_DAY, values, unheld)


def decode_timestamps(text: TextColumn, *, zoned: bool) -> tuple[pa.Array, Unheld]:
    """Microseconds, of years 1 to 9999; others and the infinities are set aside.

    A zoned timestamp may carry any offset from UTC, down to its seconds.
    """
    values = as_ascii(gather(text))
    arrow_type = pa.timestamp("us", tz="UTC" if zoned else None)
    unheld: Unheld = []
    instants = _cast_or_none(values, arrow_type)
    if instants is None:
        instants, unheld = _odd_timestamps(values, arrow_type, zoned=zoned)
    numbers = instants.cast(pa.int64())
    kept, unheld = _within(numbers, FIRST_INSTANT, LAST_INSTANT, values, unheld)
    return (instants if kept is numbers else kept.cast(arrow_type)), unheld


def _odd_timestamps(
    values: pa.Array, arrow_type: pa.DataType, *, zoned: bool
) -> tuple[pa.Array, Unheld]:
    """Timestamps of which some are infinite, before Christ, past 9999 or at odd offsets."""
    pattern = _USUAL_TIMESTAMP + (_USUAL_ZONE if zoned else "$")
    odd = _rows(pc.invert(pc.match_substring_regex(values, pattern)))
    usual, set_aside = _set_aside(values, odd)
    instants = usual.cast(arrow_type)
    unheld: Unheld = []
    exact = np.zeros(len(values), dtype=np.bool_)
    found: list[int] = []
    for row, odd_text in set_aside:
        instant = _odd_instant(odd_text, zoned=zoned)
        if instant is None:
            unheld.append((row, odd_text))
        else:
            exact[row] = True
            found.append(instant)
    if found:
        replacements = pa.array(found, pa.int64()).cast(arrow_type)
        instants = pc.replace_with_mask(instants, pa.array(exact), replacements)
    return instants, unheld


def _cast_or_none(values: pa.Array, arrow_type: pa.DataType) -> pa.Array | None:
    """The cast, strict in its format; None where it meets a text that it does not know."""
    try:
        return values.cast(arrow_type)
    except pa.ArrowInvalid:
        return None


def _odd_instant(text: str, *, zoned: bool) -> int | None:
    """Microseconds since 1970 of an unusual text; None if it lies outside years 1 to 9999."""
    if text in _ENDLESS:
        return None
    match = _ODD_TIMESTAMP.fullmatch(text)
    if match is None or (match[8] is not None) != zoned:
        raise MalformedValue("is not an ISO timestamp", SETTINGS)
    if match[12] or len(match[1]) > 4:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    micros = int((match[7] or "").ljust(6, "0"))
    offset = 0
    if zoned:
        hours, minutes, seconds = (int(part or 0) for part in match.groups()[8:11])
        offset = (hours * 3600 + minutes * 60 + seconds) * (-1 if match[8] == "-" else 1)
    sound = True
    try:
        local = datetime(year, month, day, hour, minute, second, micros, UTC)
    except ValueError:
        sound = False
    if not sound:
        raise MalformedValue("is not an ISO timestamp", SETTINGS)
    return (local - _EPOCH) // _MICROSECOND - offset * 1_000_000


def _rows(mask: pa.Array) -> Positions:
    return np.flatnonzero(np.asarray(mask.fill_null(False)))


def _set_aside(values: pa.Array, rows: Positions) -> tuple[pa.Array, Unheld]:
    """The strings with NULL in these rows, and what stood there."""
    if len(rows) == 0:
        return values, []
    texts: Sequence[str] = values.take(pa.array(rows)).to_pylist()
    valid = np.asarray(values.is_valid())
    valid[rows] = False
    return with_validity(values, valid), list(zip(rows.tolist(), texts, strict=True))


def _within(
    numbers: pa.Array, first: object, last: object, values: pa.Array, unheld: Unheld
) -> tuple[pa.Array, Unheld]:
    """NULL for what lies outside first to last, and its text added to `unheld`, in row order."""
    extremes = pc.min_max(numbers)
    least, most = extremes["min"], extremes["max"]
    if not least.is_valid or (
        pc.greater_equal(least, pa.scalar(first, numbers.type)).as_py()
        and pc.less_equal(most, pa.scalar(last, numbers.type)).as_py()
    ):
        return numbers, unheld
    outside = pc.or_(
        pc.less(numbers, pa.scalar(first, numbers.type)),
        pc.greater(numbers, pa.scalar(last, numbers.type)),
    )
    rows = _rows(outside)
    texts = values.take(pa.array(rows)).to_pylist()
    merged = sorted([*unheld, *zip(rows.tolist(), texts, strict=True)])
    kept = pc.if_else(outside, pa.scalar(None, numbers.type), numbers)
    return kept, merged
