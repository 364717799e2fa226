"""A plain decoder, message by message and row by row, to compare the columnar one with.

Reads its own bytes by `struct`, and states the rules of `TableChanges` as simply as can be.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

EPOCH = 946_684_800_000_000

READERS: dict[int, Callable[[str], Any]] = {
    16: lambda text: text == "t",
    20: int,
    23: int,
    25: str,
    701: float,
    1700: Decimal,
}


@dataclass
class Shape:
    oid: int
    name: str
    identity: str
    columns: list[tuple[bool, str, int, int]]
    key: set[int] = field(default_factory=set)


@dataclass
class Table:
    oid: int
    columns: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    ops: str = ""
    commit_lsns: list[int] = field(default_factory=list)
    committed_at: list[int] = field(default_factory=list)
    xids: list[int] = field(default_factory=list)
    moved_from: list[int] = field(default_factory=list)
    unchanged: list[set[str]] = field(default_factory=list)


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.here = data, 1

    def take(self, code: str) -> Any:
        (value,) = struct.unpack_from("!" + code, self.data, self.here)
        self.here += struct.calcsize("!" + code)
        return value

    def string(self) -> str:
        end = self.data.index(0, self.here)
        text = self.data[self.here : end].decode()
        self.here = end + 1
        return text

    def tuple(self) -> list[Any]:
        values: list[Any] = []
        for _ in range(self.take("H")):
            match self.take("c"):
                case b"n":
                    values.append(None)
                case b"u":
                    values.append(...)
                case b"t":
                    length = self.take("i")
                    values.append(self.data[self.here : self.here + length].decode())
                    self.here += length
        return values


class ReferenceDecoder:
    def __init__(self, keys: dict[int, tuple[str, ...]]) -> None:
        self.keys = keys
        self.shapes: dict[int, Shape] = {}
        #: Commit LSN and time of the last transaction begun, and whether it is dropped.
        self.transaction = (0, 0, 0, False)

    def decode(
        self,
        messages: Sequence[bytes],
        after: int | None = None,
        wanted: Collection[int] | None = None,
    ) -> list[Table]:
        tables: list[Table] = []
        current: dict[int, Table] = {}
        lsn, at, xid, dropped = self.transaction

        def table(oid: int) -> Table | None:
            if dropped or (wanted is not None and oid not in wanted):
                return None
            if oid not in current:
                shape = self.shapes[oid]
                current[oid] = Table(oid, [column[1] for column in shape.columns])
                tables.append(current[oid])
            return current[oid]

        def add(into: Table, op: str, values: list[Any], moved_from: int = -1) -> None:
            shape = self.shapes[into.oid]
            into.rows.append(
                {
                    column[1]: None if value in (None, ...) else READERS[column[2]](value)
                    for column, value in zip(shape.columns, values, strict=True)
                }
            )
            into.ops += op
            into.commit_lsns.append(lsn)
            into.committed_at.append(at)
            into.xids.append(xid)
            into.moved_from.append(moved_from)
            into.unchanged.append(
                {column[1] for column, v in zip(shape.columns, values, strict=True) if v is ...}
            )

        for message in messages:
            cursor = Cursor(message)
            match message[:1]:
                case b"B":
                    lsn, at = cursor.take("Q"), cursor.take("q") + EPOCH
                    xid = cursor.take("I")
                    dropped = after is not None and lsn < after
                    self.transaction = lsn, at, xid, dropped
                case b"R":
                    shape = self._shape(cursor)
                    if self.shapes.get(shape.oid) != shape:
                        self.shapes[shape.oid] = shape
                        current.pop(shape.oid, None)
                case b"T":
                    count, _ = cursor.take("I"), cursor.take("B")
                    for oid in [cursor.take("I") for _ in range(count)]:
                        into = table(oid)
                        if into is not None:
                            add(into, "T", [None] * len(into.columns))
                case b"I" | b"U" | b"D":
                    into = table(cursor.take("I"))
                    if into is not None:
                        self._row(message[:1].decode(), cursor, into, add)
        return tables

    def _row(self, kind: str, cursor: Cursor, into: Table, add: Callable[..., None]) -> None:
        shape = self.shapes[into.oid]
        tag = cursor.take("c")
        old = None if tag == b"N" else cursor.tuple()
        if kind == "D":
            assert old is not None
            add(into, "D", self._visible(shape, tag, old))
            return
        if old is not None:
            assert cursor.take("c") == b"N"
        new = cursor.tuple()
        if old is not None:
            new = [
                before if v is ... and before is not None and (tag == b"O" or i in shape.key) else v
                for i, (before, v) in enumerate(zip(old, new, strict=True))
            ]
        if kind == "I" or old is None:
            add(into, kind, new)
        elif not shape.key:
            add(into, "D", old)
            add(into, "I", new, len(into.rows) - 1)
        elif any(old[i] != new[i] for i in shape.key):
            add(into, "D", self._visible(shape, tag, old))
            add(into, "U", new, len(into.rows) - 1)
        else:
            add(into, "U", new)

    def _visible(self, shape: Shape, tag: bytes, old: list[Any]) -> list[Any]:
        if tag == b"O" and shape.identity == "f":
            return old
        return [value if i in shape.key else None for i, value in enumerate(old)]

    def _shape(self, cursor: Cursor) -> Shape:
        oid, _, name = cursor.take("I"), cursor.string(), cursor.string()
        shape = Shape(oid, name, cursor.take("c").decode(), [])
        for _ in range(cursor.take("H")):
            flag, column = cursor.take("B"), cursor.string()
            shape.columns.append((bool(flag), column, cursor.take("I"), cursor.take("i")))
        names = [column[1] for column in shape.columns]
        if shape.identity == "f":
            primary = self.keys.get(oid, ())
            shape.key = {names.index(n) for n in primary} if set(primary) <= set(names) else set()
        else:
            shape.key = {i for i, column in enumerate(shape.columns) if column[0]}
        return shape
