"""The source's ports over an `InMemoryPostgres`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from adapters.fakes.faults import FaultPlan
from cdc_core.changes import ChangeBatch, Op, TableChanges, Unrepresentable
from cdc_core.checkpoint import SourceIdentity
from cdc_core.errors import OperatorNeeded, WriterBusy
from cdc_core.lsn import Lsn
from cdc_core.ports.catalog import SourceTable
from cdc_core.ports.change_source import SlotState
from cdc_core.ports.source_inspector import (
    Provider,
    PublicationFacts,
    Role,
    SourceFacts,
    TableFacts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from adapters.fakes.postgres import Event, InMemoryPostgres, Row, Transaction
    from cdc_core.relation import Relation


@dataclass(frozen=True)
class Piece:
    rows: pa.Table
    unrepresentable: tuple[Unrepresentable, ...] = ()


@dataclass(frozen=True)
class InMemorySnapshot:
    lsn: Lsn
    taken_at: int
    rows: dict[int, list[Row]]
    faults: FaultPlan
    piece_rows: int

    def read(self, relation: Relation) -> Iterator[Piece]:
        self.faults.pass_by("snapshot.read")
        rows = self.rows[relation.oid]
        for start in range(0, len(rows), self.piece_rows):
            yield Piece(_table(relation, rows[start : start + self.piece_rows]))


@dataclass
class InMemorySource:
    """`ChangeSource`, `Catalog`, `SnapshotSource`, `SourceMonitor` and `SourceInspector` in one.

    `batch_transactions` cuts the stream into batches of so many transactions.
    """

    postgres: InMemoryPostgres
    slot_name: str = "dlt_cdc_slot"
    faults: FaultPlan = field(default_factory=FaultPlan)
    batch_transactions: int = 1000
    piece_rows: int = 1000
    #: Called when a snapshot was taken, before it is read: what happens meanwhile at the source.
    while_reading: Callable[[], None] = lambda: None
    _opened: bool = False

    def __enter__(self) -> Self:
        self.faults.pass_by("source.open")
        if self.postgres.writer is not None:
            raise WriterBusy(
                f"slot {self.slot_name} is in use by {self.postgres.writer}", "wait until it ends"
            )
        self.postgres.writer = "another run"
        self._opened = True
        return self

    def __exit__(self, *exc: object) -> None:
        if self._opened:
            self.postgres.writer = None
            self._opened = False

    def identity(self) -> SourceIdentity:
        return SourceIdentity(self.postgres.system_id, self.postgres.database, self.slot_name)

    def current_lsn(self) -> Lsn:
        self.faults.pass_by("source.current_lsn")
        return self.postgres.lsn

    def now(self) -> int:
        return self.postgres.now

    def slot(self) -> SlotState | None:
        position = self.postgres.slot
        if position is None:
            return None
        return SlotState(
            name=self.slot_name,
            plugin="pgoutput",
            database=self.postgres.database,
            active_pid=None,
            restart_lsn=position,
            confirmed_flush_lsn=position,
            wal_status="reserved",
            retained_bytes=self.postgres.lsn - position,
            safe_bytes=None,
        )

    def create_slot(self) -> Lsn:
        self.faults.pass_by("source.create_slot")
        if self.postgres.slot is not None:
            raise OperatorNeeded(f"slot {self.slot_name} exists", "drop it first")
        self.postgres.slot = self.postgres.write_wal()
        return self.postgres.slot

    def drop_slot(self) -> bool:
        self.faults.pass_by("source.drop_slot")
        existed = self.postgres.slot is not None
        self.postgres.slot = None
        return existed

    def expect_read(self) -> None:
        pass

    def read(
        self,
        after: Lsn,
        until: Lsn,
        tables: Collection[int],
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[ChangeBatch]:
        end = max(after, self.postgres.lsn)
        slot = self.postgres.slot or Lsn(0)
        wanted = [t for t in self.postgres.wal if t.end_lsn > max(after, slot) and t.end_lsn <= end]
        for start in range(0, len(wanted), self.batch_transactions):
            self.faults.pass_by("source.read")
            part = wanted[start : start + self.batch_transactions]
            yield _batch(part, frozenset(tables))
            if stop():
                return
        self.faults.pass_by("source.read")
        yield ChangeBatch((), max(end, until))

    def confirm(self, durable_lsn: Lsn) -> None:
        self.faults.pass_by("source.confirm")
        if self.postgres.slot is None:
            raise OperatorNeeded(f"slot {self.slot_name} is gone", "run: wal2delta snapshot")
        self.postgres.slot = max(self.postgres.slot, durable_lsn)

    def tables(self) -> Sequence[SourceTable]:
        return [
            SourceTable(
                relation=table.relation,
                fingerprint=self.postgres.fingerprint(oid),
                published=oid in self.postgres.published,
                estimated_rows=len(table.rows),
            )
            for oid, table in sorted(
                self.postgres.tables.items(), key=lambda item: item[1].relation.table
            )
        ]

    def publish(self) -> Sequence[SourceTable]:
        self.faults.pass_by("catalog.publish")
        self.postgres.published.update(self.postgres.tables)
        return self.tables()

    def drop_publication(self) -> bool:
        existed = bool(self.postgres.published)
        self.postgres.published.clear()
        return existed

    def facts(self) -> SourceFacts:
        """Those of a server on which nothing is missing."""
        self.faults.pass_by("source.facts")
        return SourceFacts(
            version=180000,
            database=self.postgres.database,
            provider=Provider.SELF,
            identity=self.identity(),
            wal_level="logical",
            standby=False,
            hot_standby_feedback=False,
            role=Role("owner", replication=True, create_publications=True, read_control_data=True),
            publication=PublicationFacts("dlt_cdc_pub", bool(self.postgres.published), True),
            slot_name=self.slot_name,
            slot=self.slot(),
            max_replication_slots=10,
            replication_slots=int(self.postgres.slot is not None),
            max_wal_senders=10,
            wal_senders=0,
            slot_wal_limit=64 << 30,
            slot_idle_limit=None,
            sender_timeout=60.0,
            transactions=(),
            tables={
                oid: TableFacts(schema_usage=True, select=True, owner=True, hidden_rows=False)
                for oid in self.postgres.tables
            },
        )

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[InMemorySnapshot]:
        self.faults.pass_by("snapshot.begin")
        lsn = self.create_slot() if create_slot else self.postgres.write_wal()
        rows = {
            oid: [dict(row) for row in table.rows] for oid, table in self.postgres.tables.items()
        }
        taken_at = self.postgres.now
        self.while_reading()
        yield InMemorySnapshot(lsn, taken_at, rows, self.faults, self.piece_rows)


def _batch(transactions: Sequence[Transaction], tables: frozenset[int]) -> ChangeBatch:
    groups: dict[tuple[int, int], list[tuple[Transaction, Event]]] = {}
    relations: dict[int, Relation] = {}
    versions: dict[int, int] = {}
    for transaction in transactions:
        for event in transaction.events:
            if event.oid not in tables:
                continue
            if relations.get(event.oid) != event.relation:
                relations[event.oid] = event.relation
                versions[event.oid] = versions.get(event.oid, 0) + 1
            groups.setdefault((event.oid, versions[event.oid]), []).append((transaction, event))
    return ChangeBatch(
        tables=[_changes(pairs) for pairs in groups.values()],
        end_lsn=transactions[-1].end_lsn,
        last_commit_lsn=transactions[-1].commit_lsn,
        last_committed_at=transactions[-1].committed_at,
        transactions=len(transactions),
    )


def _changes(pairs: Sequence[tuple[Transaction, Event]]) -> TableChanges:
    relation = pairs[0][1].relation
    rows: list[Row] = []
    ops: list[int] = []
    owners: list[Transaction] = []
    moved: list[int] = []
    unchanged: dict[str, list[int]] = {}

    def add(transaction: Transaction, op: Op, row: Row, moved_from: int = -1) -> None:
        rows.append(row)
        ops.append(op)
        owners.append(transaction)
        moved.append(moved_from)

    for transaction, event in pairs:
        op = event.op
        came_from = -1
        if event.old is not None:
            old_key = {name: event.old[name] for name in relation.key} or event.old
            add(transaction, Op.DELETE, old_key)
            came_from = len(rows) - 1 if relation.key else -1
            op = op if relation.key else Op.INSERT
        for name in event.unchanged:
            unchanged.setdefault(name, []).append(len(rows))
        sent = {k: v for k, v in event.row.items() if k not in event.unchanged}
        add(transaction, op, sent, came_from)
    masks = {name: np.zeros(len(rows), np.bool_) for name in unchanged}
    for name, indexes in unchanged.items():
        masks[name][indexes] = True
    return TableChanges(
        relation=relation,
        rows=_table(relation, rows),
        op=np.array(ops, np.uint8),
        commit_lsn=np.array([int(t.commit_lsn) for t in owners], np.uint64),
        committed_at=np.array([t.committed_at for t in owners], np.int64),
        moved_from=np.array(moved, np.int64),
        unchanged=masks,
    )


def _table(relation: Relation, rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.table(
        [pa.array([row.get(c.name) for row in rows], c.arrow_type) for c in relation.columns],
        schema=pa.schema([(c.name, c.arrow_type) for c in relation.columns]),
    )
