"""Replication messages of whole transactions to `TableChanges`: grouping, versions, filters.

No Python object is made for a message, row or value. Only Relation messages are parsed one by one.
Source: PostgreSQL manual, "Logical Streaming Replication Protocol".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adapters.pgoutput.wire import messages as wire
from adapters.pgoutput.wire.codec import decode_binary, decode_column
from adapters.pgoutput.wire.messages import Messages
from adapters.pgoutput.wire.row_messages import RowReader
from adapters.pgoutput.wire.text import TextColumn, table_of
from adapters.pgoutput.wire.type_rules import (
    arrow_type,
    element_type,
    logical_type,
    reads_binary,
    type_read,
)
from adapters.pgoutput.wire.types import format_type
from cdc_core.values.changes import TableChanges, Unrepresentable
from cdc_core.values.errors import DecodeError
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from adapters.pgoutput.wire.codec import DecodedColumn
    from adapters.pgoutput.wire.messages import OpenTransaction, RelationMessage, Transactions
    from adapters.pgoutput.wire.text import Bytes, Mask, Positions
    from adapters.pgoutput.wire.tuples import Values
    from adapters.pgoutput.wire.types import PgType, TypeMap
    from cdc_core.values.table_rules import ColumnRules

#: Messages decoded at a time. Each column visits them again, so they should stay in the processor's
#: cache. But there must be enough of them to outweigh the fixed cost of each step.
_CHUNK_BYTES = 8 << 20
_FEWEST_EVENTS, _MOST_EVENTS = 1 << 13, 1 << 17
#: The limit for large messages.
_MOST_BYTES = 1 << 28

_CARRIES_ROWS = np.zeros(256, dtype=np.bool_)
_CARRIES_ROWS[list(wire.ROW_KINDS)] = True
#: Bytes read at once at positions up to a message's end. A binary numeric needs 24.
_READ_BEYOND = 32
#: A kind byte, an OID, a tuple's kind, a number of columns.
_SHORTEST_ROW = 8


class BinaryValue(DecodeError):
    """A value arrived in the binary format of a type that must be requested as text."""


@dataclass(frozen=True, eq=False)
class DecodedBatch:
    """The changes of a run of messages.

    `end_lsn` is the end of the last transaction that ended, kept or dropped; None if none ended.
    The other figures count only the kept transactions that ended. `skipped` counts messages without
    rows by kind: origin, type, message (logical decoding messages), unknown.
    """

    tables: list[TableChanges]
    end_lsn: Lsn | None = None
    last_commit_lsn: Lsn | None = None
    last_committed_at: int | None = None
    transactions: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Version:
    """The columns and identity of a relation, until a Relation message changes them."""

    message: RelationMessage
    raw: bytes


class PgoutputDecoder:
    """Decodes messages in order, one run after another.

    Remembers the open transaction and the Relation messages, which arrive once per session.

    - `types` returns the current types. It is called for new Relation messages, with the type OIDs
      they name, so that a provider can look up missing ones.
    - `key_for` returns a relation's primary key from the catalog, for REPLICA IDENTITY FULL. None
      or empty: the rows are a multiset. It is called again after a Relation message.
    """

    def __init__(
        self,
        types: Callable[[Collection[int]], TypeMap],
        key_for: Callable[[int], tuple[str, ...] | None],
    ) -> None:
        self._types = types
        self._key_for = key_for
        self._versions: dict[int, _Version] = {}
        self._primary: dict[int, frozenset[str]] = {}
        self._shapes: dict[bytes, tuple[tuple[Column, ...], tuple[PgType, ...]]] = {}
        self._open: OpenTransaction | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether the last message decoded was within a transaction."""
        return self._open is not None

    def decode(
        self,
        buffer: bytes | memoryview | Bytes,
        offsets: Positions,
        *,
        after: Lsn | None = None,
        tables: Collection[int] | None = None,
        rules: Mapping[int, ColumnRules] | None = None,
    ) -> DecodedBatch:
        """Decode the next n messages, `buffer[offsets[i]:offsets[i + 1]]` each.

        Drops transactions whose commit record starts before `after`, and rows of relations that are
        not in `tables` (OIDs). `rules` (by OID) say how to read columns by name. Raises
        `DecodeError`; do not use the decoder after that.
        """
        return self.scan(buffer, offsets, after=after, tables=tables, rules=rules)()

    def scan(
        self,
        buffer: bytes | memoryview | Bytes,
        offsets: Positions,
        *,
        after: Lsn | None = None,
        tables: Collection[int] | None = None,
        rules: Mapping[int, ColumnRules] | None = None,
    ) -> Callable[[], DecodedBatch]:
        """The part of `decode` that must run in order. The returned function does the rest, in any
        thread."""
        data = buffer if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, np.uint8)
        messages = Messages(_readable_beyond(data, offsets), np.asarray(offsets, dtype=np.int64))
        transactions = wire.read_transactions(messages, self._open)
        self._open = transactions.open
        events = np.flatnonzero(_CARRIES_ROWS[messages.kinds])
        relations = np.flatnonzero(messages.kinds == wire.RELATION)
        begins = np.flatnonzero(messages.kinds == wire.BEGIN)
        known = np.concatenate([events, relations, begins, transactions.commits])
        skipped = wire.count_skipped(messages, known)

        _check_enclosed(messages, transactions, events)
        kept = np.ones(len(transactions), dtype=np.bool_)
        if after is not None:
            kept = transactions.commit_lsns >= np.uint64(after)
            events = events[kept[transactions.of_message[events]]]
        history = self._read_relations(messages, relations)
        versions = [
            (*self._relation(version, (rules or {}).get(oid, {})), version_events)
            for oid, of_table in _by_relation(*_events_and_oids(messages, events), tables)
            for version, version_events in _by_version(oid, of_table, history.get(oid, []))
        ]
        ended = np.flatnonzero(kept[: len(transactions.commits)])
        last = int(ended[-1]) if len(ended) else None
        return lambda: DecodedBatch(
            [_decode_version(messages, transactions, *version) for version in versions],
            Lsn(int(transactions.end_lsns[-1])) if len(transactions.commits) else None,
            None if last is None else Lsn(int(transactions.commit_lsns[last])),
            None if last is None else int(transactions.committed_at[last]),
            len(ended),
            skipped,
        )

    def _read_relations(
        self, messages: Messages, indexes: Positions
    ) -> dict[int, list[tuple[int, _Version]]]:
        """Versions by relation OID, each with the index of its message; -1 if already known."""
        history = {oid: [(-1, version)] for oid, version in self._versions.items()}
        for index in indexes.tolist():
            raw = messages.data[messages.starts[index] : messages.ends[index]].tobytes()
            oid = int.from_bytes(raw[1:5], "big")
            # The server sends it again after any change of the table, including its keys.
            self._primary.pop(oid, None)
            known = self._versions.get(oid)
            if known is not None and known.raw == raw:
                continue
            message = wire.parse_relation(raw)
            version = _Version(message, raw)
            self._versions[message.oid] = version
            history.setdefault(message.oid, []).append((index, version))
        return history

    def _relation(
        self, version: _Version, rules: ColumnRules
    ) -> tuple[Relation, tuple[PgType, ...]]:
        """The relation under these rules, and the types as which its columns are read."""
        message = version.message
        if version.raw not in self._shapes:
            types = self._types({column.type_oid for column in message.columns})
            pg_types = tuple(types[column.type_oid] for column in message.columns)
            columns = tuple(
                Column(
                    column.name,
                    arrow_type(pg_type, column.typmod),
                    column.type_oid,
                    column.typmod,
                    pg_type=format_type(pg_type, column.typmod),
                    logical=logical_type(pg_type),
                    element_type=element_type(pg_type, column.typmod),
                )
                for column, pg_type in zip(message.columns, pg_types, strict=True)
            )
            self._shapes[version.raw] = columns, pg_types
        columns, pg_types = self._shapes[version.raw]
        identity = ReplicaIdentity(message.identity)
        names = tuple(column.name for column in columns)
        if identity is ReplicaIdentity.FULL:
            # The catalog describes the present, the message the past. If the message lacks a key
            # column, the rows are a multiset, which is also correct: all columns are sent.
            if message.oid not in self._primary:
                self._primary[message.oid] = frozenset(self._key_for(message.oid) or ())
            primary = self._primary[message.oid]
            key = tuple(name for name in names if name in primary) if primary <= set(names) else ()
        else:
            key = tuple(column.name for column in message.columns if column.in_key)
        table = TableName(message.schema, message.name)
        relation = Relation(message.oid, table, columns, identity, key)
        if not rules:
            return relation, pg_types
        relation = relation.under(rules)
        pairs = zip(pg_types, relation.columns, strict=True)
        return relation, tuple(type_read(pg_type, column) for pg_type, column in pairs)


def _readable_beyond(data: Bytes, offsets: Positions) -> Bytes:
    """The same bytes, with at least eight more after the last message; see `tuples.walk`."""
    end = int(offsets[-1]) if len(offsets) else 0
    if end + _READ_BEYOND <= len(data) or end > len(data):
        return data
    return np.concatenate([data[:end], np.zeros(_READ_BEYOND, np.uint8)])


def _decode_version(
    messages: Messages,
    transactions: Transactions,
    relation: Relation,
    pg_types: Sequence[PgType],
    events: Positions,
) -> TableChanges:
    columns: list[list[pa.Array]] = [[] for _ in pg_types]
    unrepresentable: list[Unrepresentable] = []
    ops, sources, moves = [], [], []
    unchanged: dict[str, list[tuple[int, Mask]]] = {}
    first_row = 0
    for chunk in _chunks(messages, events):
        rows = RowReader(messages, transactions, relation, chunk).read()
        for column, pg_type, values, into in zip(
            relation.columns, pg_types, rows.columns, columns, strict=True
        ):
            if not column.rule.is_read:
                continue
            decoded = _decode_column(
                messages, relation, column, pg_type, values, transactions, chunk
            )
            into.extend(decoded.values.chunks)
            unrepresentable += [
                Unrepresentable(column.name, first_row + row, text)
                for row, text in decoded.unrepresentable
            ]
            if values.unchanged is not None and values.unchanged.any():
                unchanged.setdefault(column.name, []).append((first_row, values.unchanged))
        ops.append(rows.op)
        sources.append(chunk[rows.source])
        moves.append(np.where(rows.moved_from < 0, -1, rows.moved_from + first_row))
        first_row += len(rows.op)
    schema = pa.schema([(column.name, column.arrow_type) for column in relation.columns_read])
    read = [
        chunks
        for chunks, column in zip(columns, relation.columns, strict=True)
        if column.rule.is_read
    ]
    transaction = transactions.of_message[np.concatenate(sources)]
    return TableChanges(
        relation,
        table_of(schema, read, first_row),
        np.concatenate(ops),
        transactions.commit_lsns[transaction],
        transactions.committed_at[transaction],
        transactions.xids[transaction],
        np.concatenate(moves),
        {name: _joined(masks, first_row) for name, masks in unchanged.items()},
        tuple(unrepresentable),
    )


def _decode_column(
    messages: Messages,
    relation: Relation,
    column: Column,
    pg_type: PgType,
    values: Values,
    transactions: Transactions,
    events: Positions,
) -> DecodedColumn:
    sent = TextColumn(messages.data, values.starts, values.ends, values.valid)
    name = f"{relation.table}.{column.name}"
    if values.binary and not reads_binary(pg_type, column.typmod):
        raise BinaryValue(f"a value of column {name!r} arrived in the binary format of its type")
    try:
        if values.binary:
            return decode_binary(sent, pg_type, column.typmod, name)
        return decode_column(sent, pg_type, column.typmod, name)
    except DecodeError as error:
        first, last = transactions.commit_lsns[transactions.of_message[events[[0, -1]]]]
        raise DecodeError(
            f"{error.what}, in transactions that commit from {Lsn(int(first))} to {Lsn(int(last))}",
            error.cure,
        ) from None


def _joined(masks: list[tuple[int, Mask]], count: int) -> Mask:
    """One mask from masks that begin at given rows."""
    joined = np.zeros(count, dtype=np.bool_)
    for first_row, mask in masks:
        joined[first_row : first_row + len(mask)] = mask
    return joined


def _check_enclosed(messages: Messages, transactions: Transactions, events: Positions) -> None:
    """Check that row messages lie between a Begin and its Commit, and are long enough for an
    OID."""
    if len(events) == 0:
        return
    transaction = transactions.of_message[events]
    ended = transaction < len(transactions.commits)
    if int(transaction[0]) < 0 or bool(
        (events[ended] > transactions.commits[transaction[ended]]).any()
    ):
        raise DecodeError("a row message is outside of any transaction")
    short = messages.ends[events] - messages.starts[events] < _SHORTEST_ROW
    short &= messages.kinds[events] != wire.TRUNCATE
    if short.any():
        lsn = Lsn(int(transactions.commit_lsns[transaction[np.flatnonzero(short)[0]]]))
        raise DecodeError(f"a row message in the transaction that commits at {lsn} is cut off")


def _events_and_oids(messages: Messages, events: Positions) -> tuple[Positions, Positions]:
    """Events in order, with their relations. A Truncate is one event for each of its relations."""
    truncating = messages.kinds[events] == wire.TRUNCATE
    if not truncating.any():
        return events, messages.oids[events]
    rows = events[~truncating]
    truncated, truncated_oids = wire.truncations(messages, events[truncating])
    every = np.concatenate([rows, truncated])
    oids = np.concatenate([messages.oids[rows], truncated_oids])
    order = np.argsort(every, kind="stable")
    return every[order], oids[order]


def _by_relation(
    events: Positions, oids: Positions, tables: Collection[int] | None
) -> Iterator[tuple[int, Positions]]:
    """Events of each relation, in order."""
    if len(events) == 0:
        return
    distinct = np.unique(oids)
    if len(distinct) == 1:
        groups = [events]
    else:
        codes = np.searchsorted(distinct, oids)
        if len(distinct) <= 1 << 16:
            codes = codes.astype(np.uint16)  # numpy sorts these by radix
        order = np.argsort(codes, kind="stable")
        counts = np.bincount(codes, minlength=len(distinct))
        groups = np.split(events[order], np.cumsum(counts)[:-1])
    for oid, group in zip(distinct.tolist(), groups, strict=True):
        if tables is None or oid in tables:
            yield oid, group


def _by_version(
    oid: int, events: Positions, history: list[tuple[int, _Version]]
) -> Iterator[tuple[_Version, Positions]]:
    """A relation's events, by the last Relation message before them."""
    cuts = np.searchsorted(events, [index for index, _ in history])
    if len(cuts) == 0 or int(cuts[0]) > 0:
        raise DecodeError(f"a row message of relation OID {oid} precedes its Relation message")
    groups = np.split(events, cuts[1:])
    for (_, version), group in zip(history, groups, strict=True):
        if len(group):
            yield version, group


def _chunks(messages: Messages, events: Positions) -> Iterator[Positions]:
    """The events in order, in chunks of bounded number and size, of at least one event."""
    total = np.cumsum(messages.ends[events] - messages.starts[events])
    start, before = 0, 0
    while start < len(events):
        cached, most = np.searchsorted(total, [before + _CHUNK_BYTES, before + _MOST_BYTES])
        few, many = start + _FEWEST_EVENTS, start + _MOST_EVENTS
        stop = max(min(max(int(cached), few), many, int(most), len(events)), start + 1)
        yield events[start:stop]
        start, before = stop, int(total[stop - 1])
