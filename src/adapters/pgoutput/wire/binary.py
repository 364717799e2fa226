"""Binary decoders: values in PostgreSQL's binary format to Arrow, all rows of a column at once.

Only for types whose binary format is the text itself, or a number with exactly one Arrow value.
`type_rules` lists them; all others are requested as text. Each decoder returns the array, and the
(row, text) of each value that does not fit the Arrow type, as PostgreSQL prints it. The buffer
continues for `query_rows.PADDING` bytes after the last value.
Source: PostgreSQL, `src/backend/utils/adt`: `numeric_send`, `timestamptz_send`, `date_send`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adapters.pgoutput.wire import scalars
from adapters.pgoutput.wire.messages import EPOCH_MICROSECONDS, sliding
from adapters.pgoutput.wire.text import MalformedValue, as_utf8, gather

if TYPE_CHECKING:
    import numpy.typing as npt

    from adapters.pgoutput.wire.text import (
        Decoded,
        Mask,
        Numbers,
        Positions,
        TextColumn,
        UnrepresentableTexts,
    )

_JSONB_VERSION = 1

_BASE_DIGITS = 4
#: Base-10,000 digits that are read of each value, a multiple of four. 15 decimal digits need fewer.
_NUMERIC_PLACES = 8
_MINUS, _NAN, _INFINITE, _MINUS_INFINITE = 0x4000, 0xC000, 0xD000, 0xF000
_NO_NUMBERS = {_NAN: "NaN", _INFINITE: "Infinity", _MINUS_INFINITE: "-Infinity"}
_POWERS = np.array([10**n for n in range(19)], np.int64)

_DAY = 86_400_000_000
_EPOCH_DAYS = EPOCH_MICROSECONDS // _DAY
_NO_DATES = {-(2**31): "-infinity", 2**31 - 1: "infinity"}
_NO_INSTANTS = {-(2**63): "-infinity", 2**63 - 1: "infinity"}


def plain_numbers(numbers: Numbers, valid: Mask, _: pa.DataType) -> Decoded:
    """Numbers whose dtype is that of the Arrow type."""
    return _array(numbers, valid), []


def booleans(numbers: Numbers, valid: Mask, _: pa.DataType) -> Decoded:
    return _array(numbers != 0, valid), []


def octets(values: TextColumn, _: pa.DataType) -> Decoded:
    """The bytes themselves."""
    return gather(values), []


def jsonb(values: TextColumn, _: pa.DataType) -> Decoded:
    """The text of a `jsonb`, which follows a version byte."""
    return as_utf8(gather(_past_version(values))), []


def numbers_of(values: TextColumn, dtype: str) -> Numbers:
    """Numbers of one width, in the machine's byte order; any number where NULL."""
    width = np.dtype(dtype).itemsize
    lengths = values.ends - values.starts
    starts = values.starts
    if len(lengths) and (int(lengths.min()) != width or int(lengths.max()) != width):
        if bool((values.valid & (lengths != width)).any()):
            raise MalformedValue(f"has not {width} bytes")
        if not values.valid.any():
            return np.zeros(len(starts), np.dtype(dtype).newbyteorder("="))
        starts = np.where(values.valid, starts, starts[values.valid][0])
    found = sliding(values.buffer, dtype)[starts]
    return found.astype(np.dtype(dtype).newbyteorder("="), copy=False)


def _array(numbers: Numbers, valid: Mask) -> pa.Array:
    return pa.array(numbers, mask=None if valid.all() else ~valid)


def _past_version(values: TextColumn) -> TextColumn:
    heads = values.starts[values.valid]
    if bool((values.ends[values.valid] <= heads).any()) or bool(
        (values.buffer[heads] != _JSONB_VERSION).any()
    ):
        raise MalformedValue("is of another version than 1")
    starts = values.starts + values.valid
    return type(values)(values.buffer, starts, values.ends, values.valid)


# Dates and timestamps count from 2000-01-01. The smallest and the largest are the infinities.


def dates(numbers: Numbers, valid: Mask, _: pa.DataType) -> Decoded:
    first = scalars.FIRST_INSTANT // _DAY - _EPOCH_DAYS
    last = scalars.LAST_INSTANT // _DAY - _EPOCH_DAYS
    kept, outside = _within(numbers.astype(np.int64), valid, first, last)
    days = (kept + _EPOCH_DAYS).astype(np.int32)
    array = _array(days, valid & ~outside if len(outside) else valid)
    texts = [_date_text(int(numbers[row])) for row in np.flatnonzero(outside)]
    return array.view(pa.date32()), _with_rows(texts, outside)


def timestamps(numbers: Numbers, valid: Mask, arrow_type: pa.DataType) -> Decoded:
    first = scalars.FIRST_INSTANT - EPOCH_MICROSECONDS
    last = scalars.LAST_INSTANT - EPOCH_MICROSECONDS
    kept, outside = _within(numbers.astype(np.int64, copy=False), valid, first, last)
    array = _array(kept + EPOCH_MICROSECONDS, valid & ~outside if len(outside) else valid)
    zone = "" if arrow_type.tz is None else "+00"
    texts = [_timestamp_text(int(numbers[row]), zone) for row in np.flatnonzero(outside)]
    return array.view(arrow_type), _with_rows(texts, outside)


def _within(
    numbers: npt.NDArray[np.int64], valid: Mask, first: int, last: int
) -> tuple[npt.NDArray[np.int64], Mask]:
    """The numbers, with `first` in place of those outside the range, and a mask of these; an empty
    mask if there are none."""
    if len(numbers) == 0 or (int(numbers.min()) >= first and int(numbers.max()) <= last):
        return numbers, np.empty(0, np.bool_)
    outside = (numbers < first) | (numbers > last)
    return np.where(outside, first, numbers), outside & valid


def _with_rows(texts: list[str], mask: Mask) -> UnrepresentableTexts:
    return list(zip(np.flatnonzero(mask).tolist(), texts, strict=True))


def _date_text(day: int) -> str:
    """As `date_out` prints it; `day` counts from 2000-01-01."""
    if day in _NO_DATES:
        return _NO_DATES[day]
    date, era = _calendar(day)
    return date + era


def _timestamp_text(instant: int, zone: str) -> str:
    """As `timestamptz_out` prints it under TimeZone UTC, or `timestamp_out`."""
    if instant in _NO_INSTANTS:
        return _NO_INSTANTS[instant]
    day, rest = divmod(instant, _DAY)
    date, era = _calendar(day)
    seconds, micros = divmod(rest, 1_000_000)
    fraction = f".{micros:06}".rstrip("0") if micros else ""
    time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{date} {time}{fraction}{zone}{era}"


def _calendar(day: int) -> tuple[str, str]:
    """Year, month and day of the proleptic Gregorian calendar, and the era after all else."""
    # These years begin in March, and 400 of them have 146,097 days. So there is no special case.
    cycle, of_cycle = divmod(day + 730_425, 146_097)
    of_years = (of_cycle - of_cycle // 1460 + of_cycle // 36_524 - of_cycle // 146_096) // 365
    of_year = of_cycle - (365 * of_years + of_years // 4 - of_years // 100)
    month = (5 * of_year + 2) // 153
    of_month = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year = cycle * 400 + of_years + (month <= 2)
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04}-{month:02}-{of_month:02}", era


# A numeric: the count of base-10,000 digits, the weight of the first, sign, scale, the digits.


def decimals(values: TextColumn, arrow_type: pa.DataType) -> Decoded:
    if not values.valid.any():
        return pa.nulls(len(values), arrow_type), []
    precision, scale = arrow_type.precision, arrow_type.scale
    valid, starts = values.valid, values.starts
    if not valid.all():
        starts = np.where(valid, starts, starts[valid][0])
    heads, digits = _numerics(values.buffer, starts)
    counts = heads >> 48 & 0xFFFF
    weights = (heads << 16) >> 48
    signs = heads >> 16 & 0xFFFF
    if bool((valid & (values.ends - values.starts != 8 + 2 * counts)).any()):
        raise MalformedValue("is not a number")
    special = np.zeros(0, np.bool_)
    texts: list[str] = []
    if bool((signs & ~_MINUS).any()):
        special = valid & ((signs & ~_MINUS) != 0)
        texts = [_NO_NUMBERS.get(int(signs[row]), "") for row in np.flatnonzero(special)]
        if "" in texts:
            raise MalformedValue("is not a number")
        counts = np.where(special, 0, counts)
    numbers = _unscaled(digits, counts, weights, precision, scale)
    if int(numbers.max(initial=0)) >= 10**precision:
        raise MalformedValue("has more digits than its type")
    numbers = np.where(signs == _MINUS, -numbers, numbers)
    lanes = np.empty((len(numbers), 2), np.int64)
    lanes[:, 0] = numbers
    lanes[:, 1] = numbers >> 63
    present = valid & ~special if len(special) else valid
    bits = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    array = pa.Array.from_buffers(arrow_type, len(numbers), [bits, pa.py_buffer(lanes)])
    return array, _with_rows(texts, special)


def _unscaled(
    digits_of: Numbers, counts: Positions, weights: Positions, precision: int, scale: int
) -> Positions:
    """The absolute values times 10 to the power of `scale`."""
    most = int(counts.max(initial=0))
    if most > _NUMERIC_PLACES:
        raise MalformedValue("has more digits than its type")
    if most == 0:
        return np.zeros(len(counts), np.int64)
    # A first digit at the highest weight has at least this many decimal digits before the point.
    if int(weights[counts > 0].max()) * _BASE_DIGITS + 1 > precision - scale:
        raise MalformedValue("has more digits than its type")
    numbers = np.zeros(len(counts), np.int64)
    for place in range(most):
        digits = digits_of[:, place].astype(np.int64)
        if place > 0 or int(counts.min()) == 0:
            digits = np.where(counts > place, digits, 0)
        powers = scale + _BASE_DIGITS * (weights - place)
        if int(powers.min()) < 0:
            # After the scale's last digit there are only zeros.
            excess = _POWERS[np.clip(-powers, 0, _BASE_DIGITS)]
            if bool((digits % excess).any()):
                raise MalformedValue("has more digits than its type")
            digits = digits // excess
            powers = np.maximum(powers, 0)
        numbers += digits * _POWERS[np.minimum(powers, _POWERS.size - 1)]
    return numbers


def _numerics(buffer: npt.NDArray[np.uint8], at: Positions) -> tuple[Positions, Numbers]:
    """The first eight bytes of each, and the digits after them, of which some may not count."""
    words = 1 + _NUMERIC_PLACES // 4
    found = sliding(buffer, f"V{8 * words}")[at]
    heads = found.view(">i8").reshape(-1, words)[:, 0].astype(np.int64)
    return heads, found.view(">u2").reshape(-1, 4 * words)[:, 4:]
