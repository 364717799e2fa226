"""A PostgreSQL of plain Python: tables, transactions, a WAL of row events, and a slot."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cdc_core.values.changes import Op
from cdc_core.values.fingerprint import Fingerprint, Label
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

Row = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One row event; `unchanged` names columns whose value is not sent, `old` the key it had."""

    oid: int
    relation: Relation
    op: Op
    row: Row
    unchanged: frozenset[str] = frozenset()
    old: Row | None = None


@dataclass(frozen=True)
class Transaction:
    commit_lsn: Lsn
    end_lsn: Lsn
    committed_at: int
    events: tuple[Event, ...]
    xid: int


@dataclass
class Table:
    relation: Relation
    rows: list[Row] = field(default_factory=list)
    definition: int = 0
    storage: int = 0
    #: The LSN at which every row was rewritten without events.
    rewritten_at: Lsn = Lsn(0)  # noqa: RUF009
    #: Labels of enums and marks of their last renaming, by number.
    labels: dict[int, tuple[str, str]] = field(default_factory=dict)
    #: Columns whose value an update that does not touch them leaves unsent.
    toasted: frozenset[str] = frozenset()
    created_at: Lsn = Lsn(0)  # noqa: RUF009


class InMemoryPostgres:
    """One database of one cluster. `transaction()` commits on leaving, or not at all on an
    error."""

    def __init__(
        self, database: str = "db", system_id: str = "1", schemas: Sequence[str] = ("public",)
    ) -> None:
        self.database = database
        self.system_id = system_id
        self.timeline = 1
        #: Where the WAL left earlier timelines.
        self.left: dict[int, Lsn] = {}
        self.schemas = {*schemas}
        self.tables: dict[int, Table] = {}
        self.wal: list[Transaction] = []
        #: Whether the publication exists, and what it holds.
        self.publication = False
        self.published: set[int] = set()
        #: Tables that another session has locked.
        self.locked: set[int] = set()
        #: Tables that may not be published.
        self.refused: set[int] = set()
        self.slot: Lsn | None = None
        #: Who holds the writer lock, and who else reads the slot; None: nobody.
        self.writer: str | None = None
        self.reader: str | None = None
        #: Where a transaction began that is still open: it holds the slot's WAL back.
        self.oldest_transaction: Lsn | None = None
        #: What each snapshot saw, by its LSN.
        self.seen: dict[Lsn, dict[int, list[Row]]] = {}
        self._lsn = 0x1000
        self._oid = 16384
        self._now = 1_700_000_000_000_000
        self._dropped: dict[int, list[Column]] = {}

    @property
    def lsn(self) -> Lsn:
        return Lsn(self._lsn)

    @property
    def now(self) -> int:
        return self._now

    def write_wal(self, size: int = 64) -> Lsn:
        """WAL of no interest, as other databases write it."""
        self._lsn += size
        self._now += 1000
        return self.lsn

    def create_table(
        self,
        name: str,
        columns: Mapping[str, pa.DataType],
        key: Sequence[str] = ("id",),
        toasted: Sequence[str] = (),
        schema: str = "public",
        identity: ReplicaIdentity | None = None,
        labels: Sequence[str] = (),
    ) -> int:
        """Create a table; without a key its replica identity is FULL, if not given. Its oid.

        `labels` are those texts of its columns that stand for labels of an enum.
        """
        self._oid += 1
        self.schemas.add(schema)
        relation = Relation(
            oid=self._oid,
            table=TableName(schema, name),
            columns=tuple(
                Column(column, type_, _type_oid(type_), attnum=number)
                for number, (column, type_) in enumerate(columns.items(), start=1)
            ),
            identity=identity or (ReplicaIdentity.DEFAULT if key else ReplicaIdentity.FULL),
            key=tuple(key),
        )
        self.tables[self._oid] = Table(
            relation,
            labels={number: (label, "new") for number, label in enumerate(labels)},
            toasted=frozenset(toasted),
        )
        self.write_wal()
        return self._oid

    def drop_table(self, oid: int) -> None:
        del self.tables[oid]
        self.published.discard(oid)
        self.write_wal()

    def rename_table(self, oid: int, name: str) -> None:
        table = self.tables[oid]
        named = TableName(table.relation.table.schema, name)
        table.relation = replace(table.relation, table=named)
        self.write_wal()

    def set_identity(self, oid: int, identity: ReplicaIdentity) -> None:
        table = self.tables[oid]
        table.relation = replace(table.relation, identity=identity)
        self.write_wal()

    def add_column(self, oid: int, name: str, type_: pa.DataType, default: Any = None) -> None:
        table = self.tables[oid]
        attnum = 1 + max(column.attnum for column in self._all_columns(table))
        column = Column(
            name, type_, _type_oid(type_), attnum=attnum, has_default=default is not None
        )
        self._redefine(table, (*table.relation.columns, column))
        for row in table.rows:
            row[name] = default

    def drop_column(self, oid: int, name: str) -> None:
        table = self.tables[oid]
        self._redefine(table, tuple(c for c in table.relation.columns if c.name != name))
        for row in table.rows:
            del row[name]

    def rename_column(self, oid: int, old: str, new: str) -> None:
        table = self.tables[oid]
        columns = tuple(
            replace(c, name=new) if c.name == old else c for c in table.relation.columns
        )
        key = tuple(new if name == old else name for name in table.relation.key)
        self._redefine(table, columns)
        table.relation = replace(table.relation, key=key)
        table.rows = [{new if k == old else k: v for k, v in row.items()} for row in table.rows]

    def rewrite(self, oid: int, name: str, type_: pa.DataType, using: Any) -> None:
        """ALTER COLUMN ... TYPE ... USING: every row changes without an event."""
        table = self.tables[oid]
        columns = tuple(
            replace(c, arrow_type=type_, type_oid=_type_oid(type_)) if c.name == name else c
            for c in table.relation.columns
        )
        self._redefine(table, columns)
        table.storage += 1
        table.rewritten_at = self.lsn
        for row in table.rows:
            row[name] = using(row[name])

    def vacuum_full(self, oid: int) -> None:
        """The same rows in another file."""
        self.tables[oid].storage += 1
        self.write_wal()

    def unlogged(self, oid: int, *rows: Row) -> None:
        """SET UNLOGGED, inserts, SET LOGGED, all without an event."""
        table = self.tables[oid]
        table.storage += 2
        table.rewritten_at = self.write_wal()
        table.rows += rows

    def rename_label(self, oid: int, name: str, old: str, new: str) -> None:
        """ALTER TYPE ... RENAME VALUE: rows get another text without an event."""
        table = self.tables[oid]
        number = next(n for n, (label, _) in table.labels.items() if label == old)
        table.labels[number] = new, str(self.write_wal())
        for row in table.rows:
            row[name] = new if row[name] == old else row[name]
        self.write_wal()

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        before = {oid: [dict(row) for row in table.rows] for oid, table in self.tables.items()}
        writer = Writer(self)
        try:
            yield writer
        except BaseException:
            for oid, rows in before.items():
                self.tables[oid].rows = rows
            raise
        commit_lsn = self.write_wal(8)
        end_lsn = self.write_wal(56)
        if writer.events:
            xid = 700 + len(self.wal)
            self.wal.append(Transaction(commit_lsn, end_lsn, self.now, tuple(writer.events), xid))

    def fingerprint(self, oid: int) -> Fingerprint:
        table = self.tables[oid]
        return Fingerprint(
            storage=str(table.storage),
            definition=str(table.definition),
            labels=tuple(
                Label(number, text, oid, mark) for number, (text, mark) in table.labels.items()
            ),
            last_column=max(column.attnum for column in self._all_columns(table)),
        )

    def _redefine(self, table: Table, columns: tuple[Column, ...]) -> None:
        seen = self._all_columns(table)
        table.relation = replace(table.relation, columns=columns)
        self._dropped.setdefault(table.relation.oid, []).extend(
            column for column in seen if column not in columns
        )
        table.definition += 1
        self.write_wal()

    def _all_columns(self, table: Table) -> list[Column]:
        return [*table.relation.columns, *self._dropped.get(table.relation.oid, ())]


@dataclass
class Writer:
    """The statements of one transaction."""

    database: InMemoryPostgres
    events: list[Event] = field(default_factory=list)

    def insert(self, oid: int, **row: Any) -> None:
        table = self.database.tables[oid]
        full = {name: row.get(name) for name in table.relation.column_names}
        key = table.relation.key
        if key and any(all(r[k] == full[k] for k in key) for r in table.rows):
            raise ValueError("duplicate key")
        table.rows.append(full)
        self._event(Event(oid, table.relation, Op.INSERT, dict(full)))

    def update(self, oid: int, row: Row, **changes: Any) -> None:
        """Change one row, given as it is (any row equal to it)."""
        table = self._table_to_change(oid)
        found = next(r for r in table.rows if all(r[k] == v for k, v in row.items()))
        old = dict(found)
        found.update(changes)
        key = table.relation.key
        unchanged = frozenset(
            name for name in table.toasted if name not in changes and key and old[name] is not None
        )
        moved = not key or any(old[k] != found[k] for k in key)
        self._event(
            Event(oid, table.relation, Op.UPDATE, dict(found), unchanged, old if moved else None)
        )

    def delete(self, oid: int, **match: Any) -> None:
        table = self._table_to_change(oid)
        found = next(r for r in table.rows if all(r[k] == v for k, v in match.items()))
        table.rows.remove(found)
        key = table.relation.key
        row = {name: found[name] for name in key} if key else dict(found)
        self._event(Event(oid, table.relation, Op.DELETE, row))

    def truncate(self, oid: int) -> None:
        table = self.database.tables[oid]
        table.rows.clear()
        self._event(Event(oid, table.relation, Op.TRUNCATE, {}))

    def _table_to_change(self, oid: int) -> Table:
        """Refused as PostgreSQL refuses it, for that would make an application's write fail."""
        table = self.database.tables[oid]
        if oid in self.database.published and not table.relation.publishes_updates:
            raise ValueError(f"{table.relation.table} has no replica identity and is published")
        return table

    def _event(self, event: Event) -> None:
        if event.oid in self.database.published:
            self.events.append(event)


def _type_oid(type_: pa.DataType) -> int:
    """Any number that differs where the type does."""
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(str(type_)))
