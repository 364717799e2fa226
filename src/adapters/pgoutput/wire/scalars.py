"""Text decoders: PostgreSQL's text of a column to Arrow, all rows at once.

Each decoder takes a column's text and the Arrow type. It returns the array, and the (row, text) of
each value that does not fit that type. A text that does not belong to the type raises
`MalformedValue` or `pa.ArrowInvalid`.
Source: PostgreSQL manual, "Data Types", the output format of each.
"""

from __future__ import annotations

import json
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
    as_utf8,
    contents,
    gather,
    with_validity,
)
from cdc_core.values.canonical_json import NotCanonical, canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.pgoutput.wire.text import Decoded, Positions, UnrepresentableTexts

SETTINGS = "the session must have DateStyle ISO, TimeZone UTC and bytea_output hex"

_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
_FIRST_DAY, _LAST_DAY = date(1, 1, 1), date(9999, 12, 31)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST_INSTANT = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
LAST_INSTANT = (datetime(9999, 12, 31, 23, 59, 59, 999999, UTC) - _EPOCH) // _MICROSECOND


def strings(text: TextColumn, _: pa.DataType) -> Decoded:
    """The text as it is."""
    return as_utf8(gather(text)), []


def json_values(text: TextColumn, _: pa.DataType) -> Decoded:
    """Texts that every parser of JSON takes. Half of a surrogate pair, which the type `json` takes
    as an escape, is unrepresentable."""
    values = as_utf8(gather(text))
    escaped = pc.match_substring(values, "\\ud", ignore_case=True)
    rows = [row for row in _rows(escaped).tolist() if not _is_unicode(values[row].as_py())]
    return _set_aside(values, np.array(rows, np.int64))


def canonical_json_values(text: TextColumn, _: pa.DataType) -> Decoded:
    """Canonical texts. A value that a VARIANT cannot hold is unrepresentable."""
    values = as_utf8(gather(text))
    canonical: list[str | None] = []
    unrepresentable: UnrepresentableTexts = []
    for row, value in enumerate(values.to_pylist()):
        try:
            canonical.append(None if value is None else canonical_json(value))
        except NotCanonical:
            canonical.append(None)
            unrepresentable.append((row, value))
    return pa.array(canonical, pa.string()), unrepresentable


def _is_unicode(text: str) -> bool:
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def booleans(text: TextColumn, _: pa.DataType) -> Decoded:
    if not text.valid.any():
        return pa.nulls(len(text), pa.bool_()), []
    letters = text.buffer.take(text.starts, mode="clip")
    true = letters == ord("t")
    good = (true | (letters == ord("f"))) & (text.ends - text.starts == 1)
    if not (good | ~text.valid).all():
        raise MalformedValue("is neither t nor f")
    return pa.array(true, mask=None if text.valid.all() else ~text.valid), []


def integers(text: TextColumn, arrow_type: pa.DataType) -> Decoded:
    values = gather(text)
    _, data = contents(values)
    # Arrow also takes hexadecimal. No letter is between "-" and "9".
    if len(data) and not (int(data.min()) >= ord("-") and int(data.max()) <= ord("9")):
        raise MalformedValue("is not an integer")
    return as_ascii(values).cast(arrow_type), []


def floats(text: TextColumn, arrow_type: pa.DataType) -> Decoded:
    """Bit for bit: the server prints the shortest text that parses to the same number."""
    return as_ascii(gather(text)).cast(arrow_type), []


def decimals(text: TextColumn, arrow_type: pa.DataType) -> Decoded:
    """`numeric(precision, scale)`, which prints exactly `scale` digits after the point."""
    precision, scale = arrow_type.precision, arrow_type.scale
    values = as_ascii(gather(text))
    unrepresentable: UnrepresentableTexts = []
    _, data = contents(values)
    if len(data) and int(data.max()) > ord("9"):
        values, unrepresentable = _set_aside(values, _rows(pc.is_in(values, pa.array(_NO_NUMBERS))))
    if not _prints_scale(values, precision, scale):
        # Arrow's cast silently wraps around beyond 128 bits.
        pattern = rf"^-?[0-9]{{1,{max(precision - scale, 1)}}}(\.[0-9]{{1,{max(scale, 1)}}})?$"
        fits = pc.match_substring_regex(values, pattern)
        if precision == scale:
            fits = pc.and_(fits, pc.match_substring_regex(values, r"^-?0"))
        if not pc.all(fits).as_py():
            raise MalformedValue("is not a number, or has more digits than its type")
    return values.cast(arrow_type), unrepresentable


def _prints_scale(values: pa.Array, precision: int, scale: int) -> bool:
    """Whether each text has `scale` digits after the point, and no more digits than the type."""
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


def bytea(text: TextColumn, _: pa.DataType) -> Decoded:
    r"""Format hex: `\x` and two digits per byte."""
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
    return with_validity(values, text.valid), []


def _nibbles() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    table = np.full(256, 0xFF, dtype=np.uint8)
    for value, digit in enumerate("0123456789abcdef"):
        table[ord(digit)] = table[ord(digit.upper())] = value
    return table


_NIBBLES = _nibbles()

_USUAL_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_USUAL_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_USUAL_ZONE = r"[+-][0-9]{2}(:[0-9]{2})?$"
_INFINITIES = frozenset({"infinity", "-infinity"})
_ANY_DATE = re.compile(r"\d{4,7}-\d\d-\d\d( BC)?", re.ASCII)
_ANY_TIMESTAMP = re.compile(
    r"(\d{4,7})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?"
    r"(?:([+-])(\d\d)(?::(\d\d)(?::(\d\d))?)?)?( BC)?",
    re.ASCII,
)


def dates(text: TextColumn, _: pa.DataType) -> Decoded:
    """Years 1 to 9999. Other years and the infinities are unrepresentable."""
    values = as_ascii(gather(text))
    unrepresentable: UnrepresentableTexts = []
    days = _cast_or_none(values, pa.date32())
    if days is None:
        unusual = _rows(pc.invert(pc.match_substring_regex(values, _USUAL_DATE)))
        usual, unrepresentable = _set_aside(values, unusual)
        for _row, unusual_text in unrepresentable:
            if unusual_text not in _INFINITIES and not _ANY_DATE.fullmatch(unusual_text):
                raise MalformedValue("is not an ISO date", SETTINGS)
        days = usual.cast(pa.date32())
    return _within(days, _FIRST_DAY, _LAST_DAY, values, unrepresentable)


def timestamps(text: TextColumn, arrow_type: pa.DataType) -> Decoded:
    """Microseconds of years 1 to 9999. Other years and the infinities are unrepresentable.

    A timestamp with time zone may have any offset from UTC, including seconds.
    """
    values = as_ascii(gather(text))
    unrepresentable: UnrepresentableTexts = []
    instants = _cast_or_none(values, arrow_type)
    if instants is None:
        instants, unrepresentable = _unusual_timestamps(values, arrow_type)
    numbers = instants.cast(pa.int64())
    kept, unrepresentable = _within(numbers, FIRST_INSTANT, LAST_INSTANT, values, unrepresentable)
    return (instants if kept is numbers else kept.cast(arrow_type)), unrepresentable


def _unusual_timestamps(values: pa.Array, arrow_type: pa.DataType) -> Decoded:
    """Timestamps, some of them infinite, before year 1, after 9999, or with a rare offset."""
    zoned = arrow_type.tz is not None
    pattern = _USUAL_TIMESTAMP + (_USUAL_ZONE if zoned else "$")
    unusual = _rows(pc.invert(pc.match_substring_regex(values, pattern)))
    usual, set_aside = _set_aside(values, unusual)
    instants = usual.cast(arrow_type)
    unrepresentable: UnrepresentableTexts = []
    exact = np.zeros(len(values), dtype=np.bool_)
    found: list[int] = []
    for row, unusual_text in set_aside:
        instant = _instant(unusual_text, zoned=zoned)
        if instant is None:
            unrepresentable.append((row, unusual_text))
        else:
            exact[row] = True
            found.append(instant)
    if found:
        replacements = pa.array(found, pa.int64()).cast(arrow_type)
        instants = pc.replace_with_mask(instants, pa.array(exact), replacements)
    return instants, unrepresentable


def _cast_or_none(values: pa.Array, arrow_type: pa.DataType) -> pa.Array | None:
    """The cast, which is strict about the format; None if it rejects a text."""
    try:
        return values.cast(arrow_type)
    except pa.ArrowInvalid:
        return None


def _instant(text: str, *, zoned: bool) -> int | None:
    """Microseconds since 1970 of any timestamp; None outside the years 1 to 9999."""
    if text in _INFINITIES:
        return None
    match = _ANY_TIMESTAMP.fullmatch(text)
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
    valid = True
    try:
        local = datetime(year, month, day, hour, minute, second, micros, UTC)
    except ValueError:
        valid = False
    if not valid:
        raise MalformedValue("is not an ISO timestamp", SETTINGS)
    return (local - _EPOCH) // _MICROSECOND - offset * 1_000_000


def _rows(mask: pa.Array) -> Positions:
    return np.flatnonzero(np.asarray(mask.fill_null(False)))


def _set_aside(values: pa.Array, rows: Positions) -> Decoded:
    """The strings with NULL in these rows, and the texts replaced."""
    if len(rows) == 0:
        return values, []
    texts: Sequence[str] = values.take(pa.array(rows)).to_pylist()
    valid = np.asarray(values.is_valid())
    valid[rows] = False
    return with_validity(values, valid), list(zip(rows.tolist(), texts, strict=True))


def _within(
    numbers: pa.Array,
    first: object,
    last: object,
    values: pa.Array,
    unrepresentable: UnrepresentableTexts,
) -> Decoded:
    """NULL for numbers outside the range; their texts are added, in row order."""
    extremes = pc.min_max(numbers)
    least, most = extremes["min"], extremes["max"]
    if not least.is_valid or (
        pc.greater_equal(least, pa.scalar(first, numbers.type)).as_py()
        and pc.less_equal(most, pa.scalar(last, numbers.type)).as_py()
    ):
        return numbers, unrepresentable
    outside = pc.or_(
        pc.less(numbers, pa.scalar(first, numbers.type)),
        pc.greater(numbers, pa.scalar(last, numbers.type)),
    )
    rows = _rows(outside)
    texts = values.take(pa.array(rows)).to_pylist()
    merged = sorted([*unrepresentable, *zip(rows.tolist(), texts, strict=True)])
    kept = pc.if_else(outside, pa.scalar(None, numbers.type), numbers)
    return kept, merged
