"""pgoutput messages written field by field from the manual, "Logical Replication Message Formats".

Knows nothing of the decoder. A tuple is a list of values: str or bytes (text), None (NULL) or
`UNCHANGED` (an unchanged TOAST value).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


class Binary(bytes):
    """A value in binary format."""


class _Unchanged:
    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = _Unchanged()
Value = str | bytes | None | _Unchanged


def string(text: str) -> bytes:
    return text.encode() + b"\0"


def begin(final_lsn: int, timestamp: int = 0, xid: int = 1) -> bytes:
    return b"B" + struct.pack("!QqI", final_lsn, timestamp, xid)


def commit(commit_lsn: int, end_lsn: int, timestamp: int = 0) -> bytes:
    return b"C" + struct.pack("!BQQq", 0, commit_lsn, end_lsn, timestamp)


def relation(
    oid: int,
    schema: str,
    name: str,
    identity: str,
    columns: Sequence[tuple[bool, str, int, int]],
) -> bytes:
    """`columns`: (part of the key, name, type OID, type modifier)."""
    head = b"R" + struct.pack("!I", oid) + string(schema) + string(name) + identity.encode()
    body = b"".join(
        struct.pack("!B", in_key) + string(column) + struct.pack("!Ii", type_oid, typmod)
        for in_key, column, type_oid, typmod in columns
    )
    return head + struct.pack("!H", len(columns)) + body


def tuple_data(values: Sequence[Value]) -> bytes:
    parts = [struct.pack("!H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif isinstance(value, _Unchanged):
            parts.append(b"u")
        else:
            raw = value.encode() if isinstance(value, str) else value
            kind = b"b" if isinstance(value, Binary) else b"t"
            parts.append(kind + struct.pack("!i", len(raw)) + raw)
    return b"".join(parts)


def insert(oid: int, new: Sequence[Value]) -> bytes:
    return b"I" + struct.pack("!I", oid) + b"N" + tuple_data(new)


def update(
    oid: int,
    new: Sequence[Value],
    *,
    key: Sequence[Value] | None = None,
    old: Sequence[Value] | None = None,
) -> bytes:
    before = b""
    if key is not None:
        before = b"K" + tuple_data(key)
    elif old is not None:
        before = b"O" + tuple_data(old)
    return b"U" + struct.pack("!I", oid) + before + b"N" + tuple_data(new)


def delete(
    oid: int, *, key: Sequence[Value] | None = None, old: Sequence[Value] | None = None
) -> bytes:
    if key is not None:
        return b"D" + struct.pack("!I", oid) + b"K" + tuple_data(key)
    assert old is not None
    return b"D" + struct.pack("!I", oid) + b"O" + tuple_data(old)


def truncate(oids: Sequence[int], options: int = 0) -> bytes:
    return b"T" + struct.pack(f"!IB{len(oids)}I", len(oids), options, *oids)


def type_message(oid: int, schema: str, name: str) -> bytes:
    return b"Y" + struct.pack("!I", oid) + string(schema) + string(name)


def origin(lsn: int, name: str) -> bytes:
    return b"O" + struct.pack("!Q", lsn) + string(name)


def logical_message(lsn: int, prefix: str, content: bytes) -> bytes:
    head = b"M" + struct.pack("!BQ", 1, lsn) + string(prefix)
    return head + struct.pack("!I", len(content)) + content


def stream(messages: Sequence[bytes]) -> tuple[bytes, np.ndarray]:
    """One buffer and its n + 1 offsets."""
    lengths = np.array([0, *(len(message) for message in messages)], dtype=np.int64)
    return b"".join(messages), np.cumsum(lengths)
