"""Random changes of one table, as an in-memory PostgreSQL sends them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.fakes import InMemoryPostgres, InMemorySource
from cdc_core.values.merges import TargetTable

if TYPE_CHECKING:
    from adapters.fakes.postgres import Transaction
    from cdc_core.values.changes import TableChanges
    from cdc_core.values.lsn import Lsn

Row = dict[str, Any]
COLUMNS = {
    "id": pa.int64(),
    "part": pa.string(),
    "n": pa.int32(),
    "b": pa.string(),
    "c": pa.string(),
}
KEYS: list[tuple[str, ...]] = [("id",), ("id", "part"), ("part",), ()]


@dataclass
class History:
    """A table's state before and after every transaction, and the changes between: all together,
    and of each transaction."""

    key: tuple[str, ...]
    start: Lsn
    states: list[list[Row]] = field(default_factory=list)
    changes: TableChanges | None = None
    each: list[TableChanges] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    target: TargetTable = field(
        default_factory=lambda: TargetTable("t", pa.schema(list(COLUMNS.items())))
    )


def history(seed: int, key: tuple[str, ...], transactions: int, truncates: bool) -> History:
    chance = random.Random(seed)
    postgres = InMemoryPostgres()
    oid = postgres.create_table("t", COLUMNS, key=key, toasted=("b", "c") if key else ())
    postgres.published.add(oid)
    rows = postgres.tables[oid].rows

    def fresh() -> Row:
        return {
            "id": chance.randrange(4),
            "part": chance.choice("xyz"),
            "n": chance.choice([None, 1, 2]),
            "b": chance.choice([None, "b" * 9, "bb"]),
            "c": chance.choice([None, "c" * 9]),
        }

    def taken(values: Row) -> bool:
        current = postgres.tables[oid].rows
        return bool(key) and any(all(r[k] == values[k] for k in key) for r in current)

    def statement(tx: Any) -> None:
        current, values = postgres.tables[oid].rows, fresh()
        row = chance.choice(current) if current else None
        kind = chance.random()
        if row is None or kind < 0.3:
            if not taken(values):
                tx.insert(oid, **values)
        elif kind < 0.5:
            tx.update(oid, dict(row), n=values["n"])
        elif kind < 0.65:
            tx.update(oid, dict(row), **{chance.choice("bc"): values["b"]})
        elif kind < 0.85:
            moved = {name: values[name] for name in key or ("id",)}
            if not taken(values):
                tx.update(oid, dict(row), **moved)
        elif kind < 0.97 or not truncates:
            tx.delete(oid, **row)
        else:
            tx.truncate(oid)

    with postgres.transaction() as tx:
        for _ in range(chance.randint(0, 5)):
            statement(tx)
    found = History(key, postgres.lsn, [[dict(row) for row in rows]])
    for _ in range(transactions):
        before = len(postgres.wal)
        with postgres.transaction() as tx:
            for _ in range(chance.randint(1, 5)):
                statement(tx)
        if len(postgres.wal) > before:
            found.transactions.append(postgres.wal[-1])
            found.states.append([dict(row) for row in postgres.tables[oid].rows])
    postgres.slot = found.start
    with InMemorySource(postgres) as source:
        until = source.current_lsn()
        for batch in source.read(found.start, until, {oid}):
            for table in batch.tables:
                found.changes = table
        source.batch_transactions = 1
        found.each = [t for b in source.read(found.start, until, {oid}) for t in b.tables]
    assert len(found.each) == len(found.states) - 1
    return found
