"""Logical replication messages (`pgoutput`, protocol version 1, text) as columns over one buffer.

The reader has split the bytes into messages: message `i` is bytes `offsets[i]:offsets[i + 1]`. Each
position is checked to lie within its message, before it is read or right after.
Source: PostgreSQL manual, "Logical Replication Message Formats".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cdc_core.values.errors import DecodeError

if TYPE_CHECKING:
    import numpy.typing as npt

    from adapters.pgoutput.wire.text import Bytes, Positions

BEGIN, COMMIT, RELATION = ord("B"), ord("C"), ord("R")
INSERT, UPDATE, DELETE, TRUNCATE = ord("I"), ord("U"), ord("D"), ord("T")
ROW_KINDS = (INSERT, UPDATE, DELETE, TRUNCATE)
#: Messages without rows, by name. A kind that is not listed here is counted as unknown.
SKIPPED_KINDS = {ord("O"): "origin", ord("Y"): "type", ord("M"): "message"}
UNKNOWN = "unknown"
#: Begin Prepare, Prepare, Commit Prepared, Rollback Prepared, Stream Prepare. Only a slot with
#: two_phase sends them.
PREPARED_KINDS = frozenset(b"bPKrp")

BEGIN_LENGTH, COMMIT_LENGTH = 21, 26
#: From PostgreSQL's epoch, 2000-01-01, to 1970-01-01.
EPOCH_MICROSECONDS = 946_684_800_000_000
_MAX_COLUMNS = 1600
_KEY_FLAG = 1

#: Tags before a tuple, and the kinds of a column's value in it.
NEW_TUPLE, KEY_TUPLE, OLD_TUPLE = ord("N"), ord("K"), ord("O")
NULL, UNCHANGED, TEXT, BINARY = ord("n"), ord("u"), ord("t"), ord("b")


class Messages:
    """Messages of one buffer: `starts`, `ends` (n positions each), `kinds` (their first bytes)."""

    def __init__(self, data: Bytes, offsets: Positions) -> None:
        if len(offsets) == 0:
            raise DecodeError("a batch of messages needs n + 1 offsets, but has none")
        starts, ends = offsets[:-1], offsets[1:]
        if int(offsets[0]) < 0 or int(offsets[-1]) > len(data) or not bool((starts < ends).all()):
            raise DecodeError("offsets of replication messages do not rise within the buffer")
        self.data = data
        self.starts = starts
        self.ends = ends
        heads = _heads(data, starts)
        self.kinds = (heads >> np.uint64(56)).astype(np.uint8)
        #: For row messages (eight bytes or more): the relation's OID and the tag before the tuple.
        self.oids = ((heads >> np.uint64(24)) & np.uint64(0xFFFFFFFF)).astype(np.int64)
        self.tags = (heads >> np.uint64(16)).astype(np.uint8)
        #: Big-endian integers at any position: views of the buffer with a stride of one byte.
        self._int64s = sliding(data, ">i8")
        self._int32s = sliding(data, ">i4")
        self._int16s = sliding(data, ">i2")

    def __len__(self) -> int:
        return len(self.starts)

    def int64(self, at: Positions) -> Positions:
        return self._int64s[at].astype(np.int64)

    def int32(self, at: Positions) -> Positions:
        return self._int32s[at].astype(np.int64)

    def oid(self, at: Positions) -> Positions:
        return self.int32(at) & 0xFFFFFFFF

    def int16(self, at: Positions) -> Positions:
        return self._int16s[at].astype(np.int64)


def _heads(data: Bytes, starts: Positions) -> npt.NDArray[np.uint64]:
    """The eight bytes at each position, with zeros after the end. Visits each message once."""
    heads = np.empty(len(starts), dtype=np.uint64)
    whole = int(np.searchsorted(starts, len(data) - 8, side="right"))
    heads[:whole] = sliding(data, ">u8")[starts[:whole]]
    for index in range(whole, len(starts)):
        tail = data[starts[index] :][:8].tobytes()
        heads[index] = int.from_bytes(tail.ljust(8, b"\0"), "big")
    return heads


def sliding(data: Bytes, dtype: str) -> npt.NDArray[np.generic]:
    size = np.dtype(dtype).itemsize
    return np.ndarray((max(len(data) - size + 1, 0),), dtype, buffer=data, strides=(1,))


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction that continues in the next messages; see `Transactions`."""

    commit_lsn: int
    committed_at: int
    xid: int


@dataclass(frozen=True, eq=False)
class Transactions:
    """Transactions in commit order. The first may have begun before these messages, and the last
    may end after them.

    `commits[i]` is the index of the Commit message of transaction i; an open one has none.
    `commit_lsns` is where the commit record starts (Begin's final LSN), `end_lsns` where it ends,
    for transactions with a Commit. `committed_at` is in microseconds since 1970-01-01 UTC.
    `of_message` is, for each message, the last transaction that had begun; -1 before the first.
    """

    commits: Positions
    commit_lsns: npt.NDArray[np.uint64]
    end_lsns: npt.NDArray[np.uint64]
    committed_at: Positions
    xids: npt.NDArray[np.uint32]
    of_message: Positions

    def __len__(self) -> int:
        return len(self.commit_lsns)

    @property
    def open(self) -> OpenTransaction | None:
        """The transaction without a Commit so far."""
        if len(self.commits) == len(self):
            return None
        return OpenTransaction(
            int(self.commit_lsns[-1]), int(self.committed_at[-1]), int(self.xids[-1])
        )


def read_transactions(messages: Messages, opened: OpenTransaction | None = None) -> Transactions:
    """Pair each Begin with its Commit. Raises `DecodeError` unless they alternate.

    `opened` is the transaction that was open at the end of the previous messages.
    """
    began = messages.kinds == BEGIN
    ended = messages.kinds == COMMIT
    begins, commits = np.flatnonzero(began), np.flatnonzero(ended)
    marks = began[np.flatnonzero(began | ended)]
    head = 0 if opened is None else 1
    if not np.array_equal(marks, np.arange(len(marks)) % 2 == head):
        raise DecodeError("Begin and Commit messages do not alternate")
    lengths = messages.ends - messages.starts
    if not (
        bool((lengths[begins] == BEGIN_LENGTH).all())
        and bool((lengths[commits] == COMMIT_LENGTH).all())
    ):
        raise DecodeError("a Begin or Commit message has a wrong length")
    at, end_at = messages.starts[begins], messages.starts[commits]
    commit_lsns = messages.int64(at + 1)
    committed_at = messages.int64(at + 9)
    if bool((committed_at > np.iinfo(np.int64).max - EPOCH_MICROSECONDS).any()):
        raise DecodeError("a Begin message has a commit time out of range")
    committed_at = committed_at + EPOCH_MICROSECONDS
    lsns, xids = commit_lsns.view(np.uint64), messages.oid(at + 17).astype(np.uint32)
    if opened is not None:
        lsns = np.concatenate([np.array([opened.commit_lsn], np.uint64), lsns])
        committed_at = np.concatenate([np.array([opened.committed_at], np.int64), committed_at])
        xids = np.concatenate([np.array([opened.xid], np.uint32), xids])
    if bool((lsns[: len(commits)] != messages.int64(end_at + 2).view(np.uint64)).any()):
        raise DecodeError("a Commit message does not belong to the open transaction")
    return Transactions(
        commits,
        lsns,
        messages.int64(end_at + 10).view(np.uint64),
        committed_at,
        xids,
        np.cumsum(began) - 1 + head,
    )


@dataclass(frozen=True)
class RelationColumn:
    """A column in a Relation message. `in_key`: part of the replica identity."""

    name: str
    type_oid: int
    typmod: int
    in_key: bool


@dataclass(frozen=True)
class RelationMessage:
    """A Relation message. An empty namespace on the wire means `pg_catalog`."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


def parse_relation(message: bytes) -> RelationMessage:
    """Parse one Relation message, including the kind byte."""
    reader = _Reader(message, 1)
    oid = reader.integer(4)
    schema, name = reader.string(), reader.string()
    identity = chr(reader.integer(1))
    count = reader.integer(2)
    if identity not in "dnfi" or count > _MAX_COLUMNS:
        raise DecodeError(f"the Relation message of OID {oid} is malformed")
    columns = []
    for _ in range(count):
        flags = reader.integer(1)
        column = reader.string()
        type_oid = reader.integer(4)
        typmod = reader.integer(4, signed=True)
        columns.append(RelationColumn(column, type_oid, typmod, bool(flags & _KEY_FLAG)))
    if reader.here != len(message) or len({column.name for column in columns}) != count:
        raise DecodeError(f"the Relation message of OID {oid} is malformed")
    return RelationMessage(oid, schema or "pg_catalog", name, identity, tuple(columns))


class _Reader:
    """Reads the fields of one message in order."""

    def __init__(self, message: bytes, here: int) -> None:
        self.message = message
        self.here = here

    def integer(self, size: int, *, signed: bool = False) -> int:
        raw = self.message[self.here : self.here + size]
        if len(raw) != size:
            raise DecodeError("a Relation message is cut off")
        self.here += size
        return int.from_bytes(raw, "big", signed=signed)

    def string(self) -> str:
        end = self.message.find(b"\0", self.here)
        if end < 0:
            raise DecodeError("a Relation message is cut off")
        raw = self.message[self.here : end]
        self.here = end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise DecodeError("a name in a Relation message is not UTF-8") from None


def truncations(messages: Messages, indexes: Positions) -> tuple[Positions, Positions]:
    """Truncate messages as (message index, relation OID) pairs, one for each relation."""
    starts, ends = messages.starts[indexes], messages.ends[indexes]
    if bool((ends - starts < 6).any()):
        raise DecodeError("a Truncate message is cut off")
    counts = messages.oid(starts + 1)
    if bool((ends - starts != 6 + 4 * counts).any()):
        raise DecodeError("a Truncate message has a wrong length")
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(indexes, counts), messages.oid(np.repeat(starts + 6, counts) + 4 * within)


def count_skipped(messages: Messages, known: Positions) -> dict[str, int]:
    """The number of skipped messages by kind. `known` are the indexes of the others.

    Raises `DecodeError` for messages of prepared transactions: skipping them would lose rows.
    """
    if len(known) == len(messages):
        return {}
    kinds, counts = np.unique(np.delete(messages.kinds, known), return_counts=True)
    if not PREPARED_KINDS.isdisjoint(kinds.tolist()):
        raise DecodeError(
            "received messages of a prepared transaction, which are not supported",
            "the replication slot must not have two_phase; run: pgbronze check",
        )
    skipped: dict[str, int] = {}
    for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        name = SKIPPED_KINDS.get(kind, UNKNOWN)
        skipped[name] = skipped.get(name, 0) + count
    return skipped
