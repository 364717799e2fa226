"""The source's ports over an `InMemoryPostgres`."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from adapters.fakes.changes import batch_of
from adapters.fakes.faults import FaultPlan
from adapters.fakes.snapshot import InMemorySnapshot
from cdc_core.ports.catalog import PassedOver, Schemas, SourceTable
from cdc_core.ports.change_source import SlotState
from cdc_core.ports.source_inspector import (
    Provider,
    PublicationFacts,
    Role,
    SourceFacts,
    TableFacts,
)
from cdc_core.slot.continuity import RESNAPSHOT
from cdc_core.tables.selection import left_out
from cdc_core.values.changes import ChangeBatch
from cdc_core.values.checkpoint import SourceIdentity
from cdc_core.values.errors import CdcError, ContinuityLost, OperatorNeeded, WriterBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from adapters.fakes.postgres import InMemoryPostgres, Transaction
    from cdc_core.ports.catalog import Catalog
    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.snapshot_source import SnapshotSource
    from cdc_core.ports.source_inspector import SourceInspector
    from cdc_core.ports.source_monitor import SourceMonitor
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Relation, TableName
    from cdc_core.values.table_rules import ColumnRules


@dataclass
class InMemorySource:
    """`ChangeSource`, `Catalog`, `SnapshotSource` and `SourceInspector` in one.

    The sizes limit what comes together: transactions in a batch (`batch_transactions`), events in a
    part of a batch (`part_events`), rows in a chunk (`chunk_rows`), and rows in a page range
    (`range_rows`; None: tables are read whole). A fault happens before a call has its effect, and
    also after it (`….done`) if the call changes the source.
    """

    postgres: InMemoryPostgres
    slot_name: str = "dlt_cdc_slot"
    faults: FaultPlan = field(default_factory=FaultPlan)
    batch_transactions: int = 1000
    part_events: int | None = None
    chunk_rows: int = 1000
    range_rows: int | None = None
    schemas: Sequence[str] = ("public",)
    exclude: Sequence[str] = ()
    #: Called when a snapshot was taken, before it is read: what happens meanwhile at the source.
    while_reading: Callable[[], None] = lambda: None
    _opened: bool = False

    def __enter__(self) -> Self:
        self.faults.pass_by("source.open")
        if self.postgres.writer is not None:
            raise WriterBusy(
                f"another run holds slot {self.slot_name}: {self.postgres.writer}",
                "wait until it ends",
            )
        self.postgres.writer = f"process {os.getpid()}"
        self._opened = True
        return self

    def __exit__(self, *exc: object) -> None:
        if self._opened:
            self.postgres.writer = None
            self._opened = False

    def identity(self) -> SourceIdentity:
        self._pass_by("identity")
        return _identity(self.postgres, self.slot_name)

    def left_timeline(self, timeline: int) -> Lsn | None:
        self._pass_by("left_timeline")
        return self.postgres.left.get(timeline)

    def current_lsn(self) -> Lsn:
        self._pass_by("current_lsn")
        return self.postgres.lsn

    def slot(self) -> SlotState | None:
        self._pass_by("slot")
        return _slot(self.postgres, self.slot_name)

    def note_transactions(self) -> None:
        self._pass_by("note_transactions")

    def create_slot(self) -> Lsn:
        self._pass_by("create_slot")
        return self._create_slot()

    def drop_slot(self) -> bool:
        self._pass_by("drop_slot")
        self._require_idle_slot()
        existed = self.postgres.slot is not None
        self.postgres.slot = None
        self.faults.pass_by("source.drop_slot.done")
        return existed

    def expect_read(self) -> Lsn:
        self._pass_by("expect_read")
        return self.postgres.lsn

    def read(
        self,
        after: Lsn,
        until: Lsn,
        tables: Collection[int],
        stop: Callable[[], bool] = lambda: False,
        rules: Mapping[int, ColumnRules] | None = None,
    ) -> Iterator[ChangeBatch]:
        self._pass_by("read")
        slot, end = self._require_slot(), max(after, self.postgres.lsn)
        self._require_idle_slot()
        wanted = [t for t in self.postgres.wal if t.end_lsn > max(after, slot) and t.end_lsn <= end]
        for start in range(0, len(wanted), self.batch_transactions):
            chosen = wanted[start : start + self.batch_transactions]
            yield from self._parts(chosen, frozenset(tables), rules or {})
            self.faults.pass_by("source.read.next")
            if stop():
                return
        yield ChangeBatch((), max(end, until))

    def _parts(
        self,
        transactions: Sequence[Transaction],
        tables: frozenset[int],
        rules: Mapping[int, ColumnRules],
    ) -> Iterator[ChangeBatch]:
        """A batch of these transactions, whole or in parts."""
        batch = [(one, event) for one in transactions for event in one.events]
        size = self.part_events or max(1, len(batch))
        starts = range(0, max(1, len(batch)), size)
        for start in starts:
            part = batch_of(
                batch[start : start + size],
                transactions,
                tables,
                rules,
                complete=start == starts[-1],
            )
            numbered = [replace(t, relation=self._numbered(t.relation)) for t in part.tables]
            yield replace(part, tables=numbered)
            self.faults.pass_by("source.read.part")

    def confirm(self, durable_lsn: Lsn) -> None:
        self._pass_by("confirm")
        slot = self._require_slot()
        self._require_idle_slot()
        self.postgres.slot = max(slot, durable_lsn)
        self.faults.pass_by("source.confirm.done")

    def schemas_found(self) -> Schemas:
        self.faults.pass_by("catalog.schemas_found")
        return Schemas(self.schemas, sorted(self.postgres.schemas))

    def tables(self, oids: Collection[int] | None = None) -> Sequence[SourceTable]:
        self.faults.pass_by("catalog.tables")
        return [t for t in self._tables() if oids is None or t.relation.oid in oids]

    def passed_over(self) -> Sequence[PassedOver]:
        self.faults.pass_by("catalog.passed_over")
        names = [table.relation.table for table in self.postgres.tables.values()]
        return [
            PassedOver(name, reason)
            for name in sorted(names)
            if name.schema in self.schemas and (reason := left_out(name, exclude=self.exclude))
        ]

    def publish(self) -> Sequence[SourceTable]:
        self.faults.pass_by("catalog.publish")
        self.postgres.publication = True
        found = self._tables()
        for table in found:
            if table.not_streamed:
                self.postgres.published.discard(table.relation.oid)
            elif table.relation.oid not in self.postgres.locked | self.postgres.refused:
                self.postgres.published.add(table.relation.oid)
        self.faults.pass_by("catalog.publish.done")
        # A table that was created since is not among them.
        oids = {table.relation.oid for table in found}
        waiting = self.postgres.locked - self.postgres.published
        refused = self.postgres.refused - self.postgres.published
        return [
            replace(t, refused=_refusal(t), not_streamed=str(_refusal(t)))
            if t.relation.oid in refused
            else replace(t, locked=t.relation.oid in waiting)
            for t in self._tables()
            if t.relation.oid in oids
        ]

    def horizon(self) -> int:
        self.faults.pass_by("catalog.horizon")
        return int(self.postgres.lsn)

    def settled(
        self, moved: Collection[int], attached: Collection[int], horizon: int
    ) -> frozenset[int]:
        self.faults.pass_by("catalog.settled")
        found = self.postgres.tables.items()  # some may have been dropped since
        kept = {oid for oid, t in found if oid in moved and t.rows and t.rewritten_at < horizon}
        return frozenset(kept | {oid for oid, t in found if oid in attached and not t.rows})

    def names(self, oids: Collection[int]) -> Mapping[int, TableName]:
        self.faults.pass_by("catalog.names")
        tables = self.postgres.tables
        return {oid: tables[oid].relation.table for oid in oids if oid in tables}

    def drop_publication(self) -> bool:
        self.faults.pass_by("catalog.drop_publication")
        existed = self.postgres.publication or bool(self.postgres.published)
        self.postgres.publication = False
        self.postgres.published.clear()
        self.faults.pass_by("catalog.drop_publication.done")
        return existed

    def facts(self) -> SourceFacts:
        """Those of a server on which nothing is missing."""
        self.faults.pass_by("source.facts")
        publication = self.postgres.publication or bool(self.postgres.published)
        return SourceFacts(
            version=180000,
            database=self.postgres.database,
            provider=Provider.SELF,
            identity=_identity(self.postgres, self.slot_name),
            wal_level="logical",
            standby=False,
            hot_standby_feedback=False,
            role=Role("owner", replication=True, create_publications=True, read_control_data=True),
            publication=PublicationFacts("dlt_cdc_pub", publication, publication),
            slot_name=self.slot_name,
            slot=_slot(self.postgres, self.slot_name),
            max_replication_slots=10,
            replication_slots=int(self.postgres.slot is not None),
            max_wal_senders=10,
            wal_senders=int(self.postgres.reader is not None),
            slot_wal_limit=64 << 30,
            slot_idle_limit=None,
            sender_timeout=60.0,
            transactions=(),
            tables={
                table.relation.oid: TableFacts(
                    schema_usage=True, select=True, owner=True, hidden_rows=False
                )
                for table in self._tables()
            },
        )

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[InMemorySnapshot]:
        self.faults.pass_by("snapshot.begin")
        lsn = self._create_slot() if create_slot else self.postgres.write_wal()
        self.postgres.seen[lsn] = {
            oid: [dict(row) for row in table.rows] for oid, table in self.postgres.tables.items()
        }
        taken_at = self.postgres.now
        self.while_reading()
        self.faults.pass_by("snapshot.begin.done")
        yield InMemorySnapshot(
            lsn, taken_at, self.postgres.seen, self.faults, self.chunk_rows, self.range_rows
        )

    def _numbered(self, relation: Relation) -> Relation:
        """Add the column numbers of the catalog; the stream does not contain them."""
        table = self.postgres.tables.get(relation.oid)
        known = {c.name: c.attnum for c in table.relation.columns} if table else {}
        columns = tuple(replace(c, attnum=known.get(c.name, 0)) for c in relation.columns)
        return replace(relation, columns=columns)

    def _pass_by(self, call: str) -> None:
        """A call of the change source, which holds the writer lock."""
        if not self._opened:
            raise RuntimeError("the change source is used outside of its `with` block")
        self.faults.pass_by(f"source.{call}")

    def _require_slot(self) -> Lsn:
        if self.postgres.slot is None:
            raise ContinuityLost(f"replication slot {self.slot_name!r} does not exist", RESNAPSHOT)
        return self.postgres.slot

    def _require_idle_slot(self) -> None:
        if self.postgres.slot is not None and self.postgres.reader is not None:
            raise WriterBusy(
                f"replication slot {self.slot_name!r} is in use by {self.postgres.reader}",
                "end it there, then run again",
            )

    def _create_slot(self) -> Lsn:
        if self.postgres.slot is not None:
            raise OperatorNeeded(
                f"replication slot {self.slot_name!r} exists already", "run: pgbronze slot drop"
            )
        self.postgres.slot = self.postgres.write_wal()
        self.faults.pass_by("source.create_slot.done")
        return self.postgres.slot

    def _tables(self) -> list[SourceTable]:
        found = [
            SourceTable(
                relation=table.relation,
                fingerprint=self.postgres.fingerprint(oid),
                published=oid in self.postgres.published,
                not_streamed=_not_streamed(table.relation),
                estimated_rows=len(table.rows),
            )
            for oid, table in self.postgres.tables.items()
            if table.relation.table.schema in self.schemas
            and left_out(table.relation.table, exclude=self.exclude) is None
        ]
        return sorted(found, key=lambda table: table.relation.table)


@dataclass
class InMemoryMonitor:
    """`SourceMonitor` over an `InMemoryPostgres`."""

    postgres: InMemoryPostgres
    slot_name: str = "dlt_cdc_slot"
    faults: FaultPlan = field(default_factory=FaultPlan)

    def __enter__(self) -> Self:
        self.faults.pass_by("monitor.open")
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def identity(self) -> SourceIdentity:
        self.faults.pass_by("monitor.identity")
        return _identity(self.postgres, self.slot_name)

    def left_timeline(self, timeline: int) -> Lsn | None:
        self.faults.pass_by("monitor.left_timeline")
        return self.postgres.left.get(timeline)

    def slot(self) -> SlotState | None:
        self.faults.pass_by("monitor.slot")
        return _slot(self.postgres, self.slot_name)

    def current_lsn(self) -> Lsn:
        self.faults.pass_by("monitor.current_lsn")
        return self.postgres.lsn

    def now(self) -> int:
        self.faults.pass_by("monitor.now")
        return self.postgres.now


def _fit(
    source: InMemorySource, monitor: InMemoryMonitor
) -> tuple[ChangeSource, Catalog, SnapshotSource, SourceInspector, SourceMonitor]:
    """Checked by mypy: they are the ports."""
    return source, source, source, source, monitor


def _identity(postgres: InMemoryPostgres, slot_name: str) -> SourceIdentity:
    return SourceIdentity(postgres.system_id, postgres.database, slot_name, postgres.timeline)


def _slot(postgres: InMemoryPostgres, slot_name: str) -> SlotState | None:
    position = postgres.slot
    if position is None:
        return None
    restart_lsn = postgres.oldest_transaction or position
    return SlotState(
        name=slot_name,
        plugin="pgoutput",
        database=postgres.database,
        active_pid=None if postgres.reader is None else 1,
        restart_lsn=restart_lsn,
        confirmed_flush_lsn=position,
        wal_status="reserved",
        retained_bytes=postgres.lsn - restart_lsn,
        safe_bytes=None,
    )


def _refusal(table: SourceTable) -> CdcError:
    name = table.relation.table
    return OperatorNeeded(f"PostgreSQL refuses to publish {name}", f"run: ADD TABLE {name}")


def _not_streamed(relation: Relation) -> str:
    if relation.publishes_updates:
        return ""
    return f"it has no replica identity; run: ALTER TABLE {relation.table} REPLICA IDENTITY FULL"
