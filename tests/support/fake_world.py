"""A source, a destination and random work for the use cases on the fakes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.fakes import (
    FaultPlan,
    InjectedCrash,
    InMemoryDestination,
    InMemoryPostgres,
    InMemorySource,
    Lake,
)
from cdc_core.tables.catalog_with_rules import CatalogWithRules
from cdc_core.tables.table_rules import RuleSet
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.use_cases.verify_parity import VerifyParity
from cdc_core.values.masks import Hasher
from tests.support.mask_model import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.ports.destination import Destination
    from cdc_core.values.table_rules import Rule

COLUMNS = {"id": pa.int64(), "n": pa.int32(), "big": pa.string()}


@dataclass
class World:
    postgres: InMemoryPostgres = field(
        default_factory=lambda: InMemoryPostgres(schemas=("public", "a__b"))
    )
    lake: Lake = field(default_factory=Lake)
    random: random.Random = field(default_factory=lambda: random.Random(0))
    batch_transactions: int = 1000
    part_events: int | None = None
    range_rows: int | None = None
    faults: FaultPlan = field(default_factory=FaultPlan)
    exclude: Sequence[str] = ()

    def source(self) -> InMemorySource:
        return InMemorySource(
            self.postgres,
            schemas=("public", "a__b"),
            faults=self.faults,
            batch_transactions=self.batch_transactions,
            part_events=self.part_events,
            chunk_rows=3,
            range_rows=self.range_rows,
            exclude=self.exclude,
        )

    def snapshot(self, *globs: str) -> None:
        source = self.source()
        TakeSnapshot(source, source, source, InMemoryDestination(self.lake, self.faults)).run(globs)

    def cdc(self, *, freeze: bool = False) -> None:
        source = self.source()
        destination = InMemoryDestination(self.lake, self.faults)
        StreamChanges(source, source, source, destination, freeze_schema=freeze).run()

    def crashing(self, call: int, action: str) -> bool:
        """Run with a crash at a port call; whether it was reached."""
        self.faults = FaultPlan(at={call: InjectedCrash()})
        try:
            getattr(self, action)()
        except InjectedCrash:
            self.postgres.writer = None
            return True
        finally:
            self.faults = FaultPlan()
        return False

    def assert_equal(self) -> None:
        for table in self.postgres.tables.values():
            target = table.relation.table.name
            wanted = Counter(row_of(row) for row in table.rows)
            names = table.relation.column_names
            found = Counter(row_of(row) for row in self.lake.rows(target, *names))
            assert found == wanted, target


@dataclass
class RuledWorld(World):
    """A world whose tables have rules; `notes` are what its runs report."""

    rules: tuple[Rule, ...] = ()
    key: bytes = KEY
    notes: list[str] = field(default_factory=list)

    def destination(self) -> Destination:
        return InMemoryDestination(self.lake, self.faults)

    def parts(self) -> dict[str, Any]:
        source = self.source()
        return {
            "source": source,
            "catalog": CatalogWithRules(source, RuleSet(self.rules, Hasher(self.key))),
            "snapshots": source,
            "destination": self.destination(),
        }

    def snapshot(self, *globs: str) -> None:
        TakeSnapshot(**self.parts(), progress=self).run(globs)

    def cdc(self, *, freeze: bool = False) -> None:
        StreamChanges(**self.parts(), freeze_schema=freeze, progress=self).run()

    def verify(self, *, repair: bool = False) -> Any:
        return VerifyParity(**self.parts()).run(repair=repair)

    def emit(self, event: object) -> None:
        self.notes.append(str(event))


def row_of(row: dict[str, object]) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(row.items()))


def build(seed: int, batch_transactions: int = 1000) -> tuple[World, list[int]]:
    world = World(random=random.Random(seed), batch_transactions=batch_transactions)
    oids = [
        world.postgres.create_table("keyed", COLUMNS, toasted=("big",), labels=("y",)),
        world.postgres.create_table("other", COLUMNS, toasted=("big",)),
        world.postgres.create_table("heap", COLUMNS, key=(), labels=("y",)),
    ]
    world.postgres.published.update(oids)
    work(world, oids, 5)
    return world, oids


def work(world: World, oids: list[int], transactions: int) -> None:
    """Random transactions: inserts, updates, TOAST, key changes and swaps, deletes, truncates."""
    chance = world.random
    for _ in range(transactions):
        with world.postgres.transaction() as tx:
            for _ in range(chance.randint(1, 6)):
                one_statement(world, tx, chance.choice(oids))
        if chance.random() < 0.2:
            world.postgres.write_wal()


def one_statement(world: World, tx, oid: int) -> None:
    chance = world.random
    table = world.postgres.tables[oid]
    keyed = bool(table.relation.key)
    row = chance.choice(table.rows) if table.rows else None
    free = [n for n in range(8) if not any(r["id"] == n for r in table.rows)]
    kind = chance.random()
    if row is None or kind < 0.35:
        if keyed and not free:
            return
        key = chance.choice(free) if keyed else chance.randrange(3)
        tx.insert(oid, id=key, n=chance.randrange(3), big=chance.choice(["x" * 9, "y", None]))
    elif kind < 0.55:
        tx.update(oid, dict(row), n=chance.randrange(3))
    elif kind < 0.65:
        tx.update(oid, dict(row), big=chance.choice(["z" * 9, None]))
    elif kind < 0.80 and free:
        tx.update(oid, dict(row), id=chance.choice(free))
    elif kind < 0.97:
        tx.delete(oid, **row)
    else:
        tx.truncate(oid)


CHANGES = (
    "add", "add with default", "drop", "rename", "rename key", "widen", "rewrite",
    "rewrite in place", "rename label", "rename table", "drop and add", "drop and rename", "swap",
)  # fmt: skip


def change_schema(world: World, oid: int, change: str) -> None:
    postgres = world.postgres
    match change:
        case "add":
            postgres.add_column(oid, "extra", pa.string())
        case "add with default":
            postgres.add_column(oid, "extra", pa.string(), default="d")
        case "drop":
            postgres.drop_column(oid, "n")
        case "rename":
            postgres.rename_column(oid, "big", "large")
            postgres.tables[oid].toasted = frozenset({"large"})
        case "rename key":
            postgres.rename_column(oid, "id", "key")
        case "widen":
            postgres.rewrite(oid, "n", pa.int64(), lambda n: n)
        case "rewrite":
            postgres.rewrite(oid, "n", pa.string(), lambda n: f"<{n}>")
        case "rewrite in place":
            postgres.rewrite(oid, "n", pa.int32(), lambda n: None if n is None else n * 10)
        case "rename label":
            postgres.rename_label(oid, "big", "y", "why")
        case "rename table":
            postgres.rename_table(oid, "renamed")
        case "drop and add":
            postgres.drop_column(oid, "big")
            postgres.add_column(oid, "big", pa.string())
            postgres.tables[oid].toasted = frozenset()
        case "drop and rename":
            postgres.drop_column(oid, "n")
            postgres.rename_column(oid, "big", "n")
            postgres.tables[oid].toasted = frozenset({"n"})
        case "swap":
            postgres.rename_column(oid, "n", "spare")
            postgres.rename_column(oid, "big", "n")
            postgres.rename_column(oid, "spare", "big")
            postgres.tables[oid].toasted = frozenset({"n"})


NAME_CHANGES = (
    "swap tables", "follow on", "take a dropped table's name", "replace by a new table",
    "rename and rewrite", "rename", "swap", "rename table", "rename key", "drop and rename",
)  # fmt: skip


def change_names(world: World, oids: list[int], change: str) -> None:
    """Renames of tables and columns, also into names that others had."""
    keyed, other, _ = oids
    postgres = world.postgres
    match change:
        case "swap tables":
            postgres.rename_table(keyed, "spare")
            postgres.rename_table(other, "keyed")
            postgres.rename_table(keyed, "other")
        case "follow on":
            postgres.rename_table(other, "further")
            postgres.rename_table(keyed, "other")
        case "take a dropped table's name":
            postgres.drop_table(other)
            postgres.rename_table(keyed, "other")
        case "replace by a new table":
            postgres.rename_table(keyed, "keyed_old")
            new = postgres.create_table("keyed", COLUMNS, toasted=("big",))
            postgres.published.add(new)
        case "rename and rewrite":
            postgres.rename_column(keyed, "big", "large")
            postgres.tables[keyed].toasted = frozenset({"large"})
            postgres.rewrite(keyed, "n", pa.string(), lambda n: f"<{n}>")
        case _:
            change_schema(world, keyed, change)


def touch(world: World, tx, oid: int) -> None:
    """A statement that fits whatever columns the table has."""
    table = world.postgres.tables[oid]
    if table.rows:
        tx.delete(oid, **table.rows[0])
    key = table.relation.key[0] if table.relation.key else table.relation.column_names[0]
    types = {c.name: c.arrow_type for c in table.relation.columns}
    row = {name: "v" if t == pa.string() else 1 for name, t in types.items()}
    row[key] = 90 + len(world.postgres.wal)
    tx.insert(oid, **row)


def assert_no_column_is_doubled(world: World) -> None:
    for table in world.postgres.tables.values():
        stored = world.lake.tables[table.relation.table.name].columns
        assert {*stored} == {*table.relation.column_names, "_cdc_lsn", "_cdc_committed_at"}
