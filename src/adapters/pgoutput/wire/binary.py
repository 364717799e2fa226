"""Values in PostgreSQL's binary format to Arrow, where that can mean one thing only.

For types whose binary form is the text itself, or a number whose Arrow value is beyond doubt; all
others must be asked for as text. Each function takes all rows of a column and returns the array,
with the (row, text) of every value that the array's type cannot hold, in PostgreSQL's own text.
Values are followed by `results.PADDING` bytes of the buffer.
Source: PostgreSQL, `src/backend/utils/adt`: `numeric_send`, `timestamptz_send`, `date_send`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adapters.pgoutput.wire import scalars, types
from adapters.pgoutput.wire.codec import DecodedColumn
from adapters.pgoutput.wire.messages import EPOCH_MICROSECONDS, sliding
from adapters.pgoutput.wire.text import MalformedValue, as_utf8, gather
from cdc_core.values.errors import DecodeError

if TYPE_CHECKING:
    import numpy.typing as npt

    from adapters.pgoutput.wire.text import Mask, Positions, TextColumn
    from adapters.pgoutput.wire.types import PgType

    Numbers = npt.NDArray[np.generic]

#: Types whose values have one width, as numbers.
FIXED = {types.BOOL: "u1", types.INT2: ">i2", types.INT4: ">i4", types.INT8: ">i8",
          types.FLOAT4: ">f4", types.FLOAT8: ">f8", types.DATE: ">i4",
          types.TIMESTAMP: ">i8", types.TIMESTAMPTZ: ">i8"}  # fmt: skip
#: Their binary form is their text: text, character, character varying, json.
_TEXTS = frozenset({25, types.BPCHAR, types.VARCHAR, 114})
_JSONB, _JSONB_VERSION = 3802, 1

#: Numerics of more digits may not fit 64 bits on the way.
_NUMERIC_DIGITS = 15
_BASE_DIGITS = 4
#: So many digits to the base of 10,000 are looked at, a multiple of four: 15 digits need fewer.
_NUMERIC_PLACES = 8
_MINUS, _NAN, _INFINITE, _MINUS_INFINITE = 0x4000, 0xC000, 0xD000, 0xF000
_NO_NUMBERS = {_NAN: "NaN", _INFINITE: "Infinity", _MINUS_INFINITE: "-Infinity"}
_POWERS = np.array([10**n for n in range(19)], np.int64)

_DAY = 86_400_000_000
_EPOCH_DAYS = EPOCH_MICROSECONDS // _DAY
_NO_DATES = {-(2**31): "-infinity", 2**31 - 1: "infinity"}
_NO_INSTANTS = {-(2**63): "-infinity", 2**63 - 1: "infinity"}


def reads_binary(type_oid: int, typmod: int) -> bool:
    """Whether a value may come in binary format; else it must come as its output function's text.

    A domain's OID is its own: it comes as text.
    """
    if type_oid == types.NUMERIC:
        shape = types.numeric_shape(typmod)
        return shape is not None and shape[0] <= _NUMERIC_DIGITS
    return type_oid in FIXED or type_oid in _TEXTS or type_oid in (types.BYTEA, _JSONB)


def decode_binary(
    values: TextColumn | Numbers, pg_type: PgType, typmod: int = -1, column: str = ""
) -> DecodedColumn:
    """Decode a column for which `reads_binary`, or its numbers; `column` names it in errors.

    Raises `DecodeError`, without the value, when one is not of its type.
    """
    try:
        array, unheld = _decode(values, pg_type, typmod)
    except MalformedValue as malformed:
        name = types.format_type(pg_type, typmod)
        raise DecodeError(
            f"a value of column {column!r} of type {name} {malformed.reason}", malformed.cure
        ) from None
    return DecodedColumn(pa.chunked_array([array]), unheld)


def _decode(
    values: TextColumn | Numbers, pg_type: PgType, typmod: int
) -> tuple[pa.Array, scalars.Unheld]:
    oid = pg_type.oid
    if isinstance(values, np.ndarray):
        return _of_numbers(values, np.ones(len(values), np.bool_), oid)
    if oid in _TEXTS:
        return as_utf8(gather(values)), []
    if oid == _JSONB:
        return as_utf8(gather(_past_version(values))), []
    if oid == types.BYTEA:
        return gather(values), []
    if oid == types.NUMERIC:
        shape = types.numeric_shape(typmod)
        assert shape is not None
        return _decimals(values, *shape)
    return _of_numbers(_numbers(values, FIXED[oid]), values.valid, oid)


def _of_numbers(numbers: Numbers, valid: Mask, oid: int) -> tuple[pa.Array, scalars.Unheld]:
    match oid:
        case types.BOOL:
            return _array(numbers != 0, valid), []
        case types.DATE:
            return _dates(numbers, valid)
        case types.TIMESTAMP | types.TIMESTAMPTZ:
            return _timestamps(numbers, valid, zoned=oid == types.TIMESTAMPTZ)
        case _:
            return _array(numbers, valid), []


def _numbers(values: TextColumn, dtype: str) -> Numbers:
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


# Dates and timestamps count from 2000-01-01; their extremes are the infinities.


def _dates(numbers: Numbers, valid: Mask) -> tuple[pa.Array, scalars.Unheld]:
    first = scalars.FIRST_INSTANT // _DAY - _EPOCH_DAYS
    last = scalars.LAST_INSTANT // _DAY - _EPOCH_DAYS
    kept, odd = _within(numbers.astype(np.int64), valid, first, last)
    days = (kept + _EPOCH_DAYS).astype(np.int32)
    array = _array(days, valid & ~odd if len(odd) else valid)
    texts = [_date_text(int(numbers[row])) for row in np.flatnonzero(odd)]
    return array.view(pa.date32()), _rows_and(texts, odd)


def _timestamps(numbers: Numbers, valid: Mask, *, zoned: bool) -> tuple[pa.Array, scalars.Unheld]:
    first = scalars.FIRST_INSTANT - EPOCH_MICROSECONDS
    last = scalars.LAST_INSTANT - EPOCH_MICROSECONDS
    kept, odd = _within(numbers.astype(np.int64, copy=False), valid, first, last)
    array = _array(kept + EPOCH_MICROSECONDS, valid & ~odd if len(odd) else valid)
    zone = "+00" if zoned else ""
    texts = [_timestamp_text(int(numbers[row]), zone) for row in np.flatnonzero(odd)]
    return array.view(pa.timestamp("us", tz="UTC" if zoned else None)), _rows_and(texts, odd)


def _within(
    numbers: npt.NDArray[np.int64], valid: Mask, first: int, last: int
) -> tuple[npt.NDArray[np.int64], Mask]:
    """The numbers, with `first` in place of those outside, and which these are: empty for none."""
    if len(numbers) == 0 or (int(numbers.min()) >= first and int(numbers.max()) <= last):
        return numbers, np.empty(0, np.bool_)
    outside = (numbers < first) | (numbers > last)
    return np.where(outside, first, numbers), outside & valid


def _rows_and(texts: list[str], odd: Mask) -> scalars.Unheld:
    return list(zip(np.flatnonzero(odd).tolist(), texts, strict=True))


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
    # Years of this count begin in March, 400 of them have 146,097 days: no special case is left.
    cycle, of_cycle = divmod(day + 730_425, 146_097)
    of_years = (of_cycle - of_cycle // 1460 + of_cycle // 36_524 - of_cycle // 146_096) // 365
    of_year = of_cycle - (365 * of_years + of_years // 4 - of_years // 100)
    month = (5 * of_year + 2) // 153
    of_month = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year = cycle * 400 + of_years + (month <= 2)
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04}-{month:02}-{of_month:02}", era


# Numerics: counts of digits to the base of 10,000, the first one's weight, sign, scale; the digits.


def _decimals(values: TextColumn, precision: int, scale: int) -> tuple[pa.Array, scalars.Unheld]:
    if not values.valid.any():
        return pa.nulls(len(values), pa.decimal128(precision, scale)), []
    valid, starts = values.valid, values.starts
    if not valid.all():
        starts = np.where(valid, starts, starts[valid][0])
    heads, digits = _numerics(values.buffer, starts)
    counts = heads >> 48 & 0xFFFF
    weights = (heads << 16) >> 48
    signs = heads >> 16 & 0xFFFF
    if bool((valid & (values.ends - values.starts != 8 + 2 * counts)).any()):
        raise MalformedValue("is not a number")
    odd = np.zeros(0, np.bool_)
    texts: list[str] = []
    if bool((signs & ~_MINUS).any()):
        odd = valid & ((signs & ~_MINUS) != 0)
        texts = [_NO_NUMBERS.get(int(signs[row]), "") for row in np.flatnonzero(odd)]
        if "" in texts:
            raise MalformedValue("is not a number")
        counts = np.where(odd, 0, counts)
    numbers = _unscaled(digits, counts, weights, precision, scale)
    if int(numbers.max(initial=0)) >= 10**precision:
        raise MalformedValue("has more digits than its type")
    numbers = np.where(signs == _MINUS, -numbers, numbers)
    lanes = np.empty((len(numbers), 2), np.int64)
    lanes[:, 0] = numbers
    lanes[:, 1] = numbers >> 63
    present = valid & ~odd if len(odd) else valid
    bits = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    array = pa.Array.from_buffers(
        pa.decimal128(precision, scale), len(numbers), [bits, pa.py_buffer(lanes)]
    )
    return array, _rows_and(texts, odd)


def _unscaled(
    digits_of: Numbers, counts: Positions, weights: Positions, precision: int, scale: int
) -> Positions:
    """The absolute values times 10 to the power of `scale`."""
    most = int(counts.max(initial=0))
    if most > _NUMERIC_PLACES:
        raise MalformedValue("has more digits than its type")
    if most == 0:
        return np.zeros(len(counts), np.int64)
    # A first digit at the highest weight has so many decimal digits before the point.
    if int(weights[counts > 0].max()) * _BASE_DIGITS + 1 > precision - scale:
        raise MalformedValue("has more digits than its type")
    numbers = np.zeros(len(counts), np.int64)
    for place in range(most):
        digits = digits_of[:, place].astype(np.int64)
        if place > 0 or int(counts.min()) == 0:
            digits = np.where(counts > place, digits, 0)
        powers = scale + _BASE_DIGITS * (weights - place)
        if int(powers.min()) < 0:
            # Behind the scale's last digit there are zeros only.
            behind = _POWERS[np.clip(-powers, 0, _BASE_DIGITS)]
            if bool((digits % behind).any()):
                raise MalformedValue("has more digits than its type")
            digits = digits // behind
            powers = np.maximum(powers, 0)
        numbers += digits * _POWERS[np.minimum(powers, _POWERS.size - 1)]
    return numbers


def _numerics(buffer: npt.NDArray[np.uint8], at: Positions) -> tuple[Positions, Numbers]:
    """The first eight bytes of each, and the digits behind them, of which not all need count."""
    words = 1 + _NUMERIC_PLACES // 4
    found = sliding(buffer, f"V{8 * words}")[at]
    heads = found.view(">i8").reshape(-1, words)[:, 0].astype(np.int64)
    return heads, found.view(">u2").reshape(-1, 4 * words)[:, 4:]
