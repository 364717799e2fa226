"""64-bit hashes of rows, column by column: equal rows have equal hashes wherever they are read.

The hash depends on the value, not on its Arrow layout: an int16 and an int64 that hold the same
number are equal, as are string and large_string, decimals of any precision and NaNs of any payload.
NULL, the empty string and zero differ. 0.0 and -0.0 differ too, except in keys, where PostgreSQL
treats them as equal.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Hashes = npt.NDArray[np.uint64]

#: Bytes of strings that are hashed at a time; this needs about six times as much memory.
_SLICE_BYTES = 8 << 20
#: A longer value is hashed on its own.
_LONG_VALUE = 1 << 20

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x6A09E667F3BCC909)
_NAN = np.uint64(0x7FF8000000000000)


def hash_rows(columns: Sequence[pa.ChunkedArray], rows: int, *, as_key: bool = False) -> Hashes:
    """Return one hash per row over all columns, in their order.

    `as_key`: -0.0 and 0.0 are equal, as they are to a unique index.
    """
    total = np.full(rows, _GOLDEN, np.uint64)
    for place, column in enumerate(columns, start=1):
        with np.errstate(over="ignore"):
            salt = np.uint64(place) * _GOLDEN
            total = mix(total ^ (_hash_column(column, as_key=as_key) + salt))
    return total


def mix(values: Hashes) -> Hashes:
    """Permute the 64-bit numbers so that every bit of the result depends on every bit of the input
    (splitmix64)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def canonical_type(arrow_type: pa.DataType) -> pa.DataType:
    """Return the type in which to compare values; equal for types that can hold equal values."""
    types = pa.types
    if types.is_integer(arrow_type):
        return pa.int64()
    if types.is_floating(arrow_type):
        return pa.float64()
    if types.is_decimal(arrow_type):
        return pa.decimal128(38, arrow_type.scale)
    if types.is_string(arrow_type) or types.is_large_string(arrow_type):
        return pa.large_string()
    if types.is_binary(arrow_type) or types.is_large_binary(arrow_type):
        return pa.large_binary()
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        return pa.list_(canonical_type(arrow_type.value_type))
    if types.is_timestamp(arrow_type):
        return pa.timestamp("us", tz="UTC" if arrow_type.tz else None)
    return arrow_type


def _hash_column(column: pa.ChunkedArray, *, as_key: bool) -> Hashes:
    canonical = column.cast(canonical_type(column.type))
    parts = [_hash_array(chunk, as_key=as_key) for chunk in canonical.chunks]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _hash_array(array: pa.Array, *, as_key: bool) -> Hashes:
    types = pa.types
    if not len(array):
        return np.empty(0, np.uint64)
    if types.is_large_string(array.type) or types.is_large_binary(array.type):
        hashes = _hash_bytes(array.cast(pa.large_binary()))
    elif types.is_list(array.type):
        hashes = _hash_lists(array)
    elif types.is_decimal(array.type):
        words = np.frombuffer(array.buffers()[1], np.uint64).reshape(-1, 2)
        words = words[array.offset : array.offset + len(array)]
        hashes = mix(mix(words[:, 0] ^ _GOLDEN) ^ words[:, 1])
    else:
        hashes = mix(_words(array, as_key=as_key) ^ _GOLDEN)
    if array.null_count:
        hashes[~_valid(array)] = _NULL
    return hashes


def _hash_lists(array: pa.ListArray) -> Hashes:
    """Hashes of lists: the sum of their elements' hashes, mixed with their places."""
    lengths = np.asarray(array.value_lengths().fill_null(0)).astype(np.int64)
    ends = np.cumsum(lengths)
    elements = _hash_array(array.flatten(), as_key=False)
    place = np.arange(len(elements), dtype=np.int64) - np.repeat(ends - lengths, lengths)
    with np.errstate(over="ignore"):
        salted = mix(elements ^ mix((place.astype(np.uint64) + np.uint64(1)) * _GOLDEN))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(salted, dtype=np.uint64)])
        return mix((sums[ends] - sums[ends - lengths]) ^ mix(lengths.astype(np.uint64)))


def _valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    valid: npt.NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _words(array: pa.Array, *, as_key: bool) -> Hashes:
    """Return fixed-width values as 64 bits each."""
    types = pa.types
    if types.is_floating(array.type):
        floats = array.fill_null(0.0).to_numpy(zero_copy_only=False)
        if as_key:
            floats = floats + 0.0
        bits: Hashes = np.ascontiguousarray(floats).view(np.uint64)
        return np.where(np.isnan(floats), _NAN, bits)
    if types.is_boolean(array.type):
        array = array.cast(pa.int8())
    elif types.is_date32(array.type):
        array = array.cast(pa.int32())
    whole = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(whole).view(np.uint64)


def _hash_bytes(array: pa.LargeBinaryArray) -> Hashes:
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = (
        np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.empty(0, np.uint8)
    )
    lengths = np.diff(offsets)
    hashes = np.empty(len(array), np.uint64)
    for start, end in _slices(offsets):
        part = slice(start, end)
        if end - start == 1 and lengths[start] > _LONG_VALUE:
            value = data[offsets[start] : offsets[end]]
            digest = hashlib.blake2b(value.data, digest_size=8).digest()
            hashes[start] = int.from_bytes(digest, "little")
            continue
        hashes[part] = _hash_spread(data[offsets[start] : offsets[end]], lengths[part])
    return mix(hashes ^ lengths.astype(np.uint64))


def _slices(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of values of limited size; a long value is always alone."""
    long_values = np.flatnonzero(np.diff(offsets) > _LONG_VALUE).tolist()
    start, last = 0, len(offsets) - 1
    for stop in [*long_values, last]:
        while start < stop:
            limit = int(np.searchsorted(offsets, offsets[start] + _SLICE_BYTES, side="right")) - 1
            end = min(stop, max(start + 1, limit))
            yield start, end
            start = end
        if stop < last:
            yield stop, stop + 1
            start = stop + 1


def _hash_spread(data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> Hashes:
    """Return hashes of adjacent values: each is the sum of its 8-byte words, mixed with their
    positions."""
    words = (lengths + 7) >> 3
    ends = np.cumsum(words)
    total = int(ends[-1])
    place = np.arange(total, dtype=np.int64) - np.repeat(ends - words, words)
    start = np.repeat(np.cumsum(lengths) - lengths, words) + (place << 3)
    left = np.repeat(lengths, words) - (place << 3)
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    # A word can begin at any byte.
    every = np.ndarray((len(padded) - 7,), np.dtype("<u8"), padded, 0, (1,))
    values = every[start]
    short = left < 8
    values[short] &= (np.uint64(1) << (left[short].astype(np.uint64) << np.uint64(3))) - np.uint64(
        1
    )
    with np.errstate(over="ignore"):
        salted = mix(values ^ mix((place.astype(np.uint64) + np.uint64(1)) * _GOLDEN))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(salted, dtype=np.uint64)])
        hashes: Hashes = sums[ends] - sums[ends - words]
        return hashes
