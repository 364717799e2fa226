"""Masks: what is stored instead of a value's text. NULL stays NULL."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

_BLOCK = 64
#: What `key_mark` hashes; it says nothing about any row.
_CONSTANT = b"pgbronze mask key"
#: Values are hashed in slices of this many, so that few Python objects exist at a time.
_SLICE_ROWS = 1 << 16


class Hasher:
    """HMAC-SHA-256 of texts (UTF-8) under one key, as lower-case hexadecimal digits.

    The key's two blocks are hashed once, which is the larger part of the work for short texts.
    Source: RFC 2104.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        if len(key) > _BLOCK:
            key = hashlib.sha256(key).digest()
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def __reduce__(self) -> tuple[type[Hasher], tuple[bytes]]:
        return Hasher, (self._key,)

    @property
    def key_mark(self) -> str:
        """Equal for equal keys; the key cannot be found from it."""
        return self._digests([_CONSTANT])[0] or ""

    def __call__(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the hash of each text; a value that is repeated is hashed once per chunk."""
        chunks = [self._hashed(chunk) for chunk in texts.chunks]
        return pa.chunked_array(chunks, pa.string())

    def _hashed(self, texts: pa.Array) -> pa.Array:
        encoded = texts.dictionary_encode()
        values = encoded.dictionary.cast(pa.binary())
        parts = [
            pa.array(self._digests(values.slice(start, _SLICE_ROWS).to_pylist()), pa.string())
            for start in range(0, len(values), _SLICE_ROWS)
        ]
        digests = pa.concat_arrays(parts) if parts else pa.array([], pa.string())
        return digests.take(encoded.indices)

    def _digests(self, values: list[bytes]) -> list[str]:
        inner, outer = self._inner.copy, self._outer.copy
        digests = []
        for value in values:
            first, second = inner(), outer()
            first.update(value)
            second.update(first.digest())
            digests.append(second.hexdigest())
        return digests


def last4(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace all but the last four characters by `*`; of four or fewer, all."""
    lengths = pc.utf8_length(texts)
    hidden = pc.if_else(pc.greater(lengths, 4), pc.subtract(lengths, 4), lengths)
    stars = pc.binary_repeat(pa.scalar("*"), hidden)
    kept = pc.if_else(
        pc.greater(lengths, 4), pc.utf8_slice_codeunits(texts, start=-4), pa.scalar("")
    )
    return pc.binary_join_element_wise(stars, kept, "")
