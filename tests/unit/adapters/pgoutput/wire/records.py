"""Rows as `COPY` and `record_send` put them, for tests: values in binary format by plain Python."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.pgoutput.wire.query_rows import COPY, PADDING, PackedRows, Packing

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN = {16: "?", 20: ">q", 21: ">h", 23: ">i", 700: ">f", 701: ">d"}


def binary(oid: int, value: Any) -> bytes:
    """A value as the send function of its type gives it; bytes as they are."""
    if isinstance(value, bytes):
        return value
    if oid in _PLAIN:
        return struct.pack(_PLAIN[oid], value)
    match oid:
        case 1082:
            days = value if isinstance(value, int) else (value - date(2000, 1, 1)).days
            return struct.pack(">i", days)
        case 1114 | 1184:
            if isinstance(value, int):
                return struct.pack(">q", value)
            since = value - datetime(2000, 1, 1, tzinfo=UTC if oid == 1184 else None)
            micros = (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds
            return struct.pack(">q", micros)
        case 1700 if isinstance(value, Decimal):
            return numeric(value)
        case 3802:
            return b"\x01" + str(value).encode()
        case _:
            return str(value).encode()


def numeric(value: Decimal) -> bytes:
    """`numeric_send`: digits to the base of 10,000, no zeros at either end."""
    if not value.is_finite():
        sign = 0xC000 if value.is_nan() else 0xF000 if value < 0 else 0xD000
        return struct.pack(">hhHH", 0, 0, sign, 0)
    whole, _, fraction = f"{abs(value):f}".partition(".")
    padded = whole.zfill(-(-len(whole) // 4) * 4)
    text = padded + fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    digits = [int(text[at : at + 4]) for at in range(0, len(text), 4)]
    weight = len(padded) // 4 - 1
    while digits and digits[0] == 0:
        digits, weight = digits[1:], weight - 1
    while digits and digits[-1] == 0:
        digits.pop()
    sign = 0x4000 if value < 0 else 0
    head = struct.pack(">hhHH", len(digits), weight if digits else 0, sign, len(fraction))
    return head + b"".join(struct.pack(">h", digit) for digit in digits)


def packed(
    oids: Sequence[int], rows: Sequence[Sequence[Any]], packing: Packing = COPY
) -> PackedRows:
    buffer = bytearray(b"before")
    bounds = [len(buffer)]
    for row in rows:
        buffer += len(row).to_bytes(packing.count, "big")
        for oid, value in zip(oids, row, strict=True):
            buffer += oid.to_bytes(4, "big")[: packing.head - 4]
            encoded = None if value is None else binary(oid, value)
            buffer += struct.pack(">i", -1 if encoded is None else len(encoded)) + (encoded or b"")
        bounds.append(len(buffer))
    places = np.array(bounds, np.int64)
    data = np.frombuffer(bytes(buffer) + bytes(PADDING), np.uint8)
    return PackedRows(data, places[:-1], places[1:], packing)
