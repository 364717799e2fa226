"""The application at the source: random transactions and DDL, and a record of every commit."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.fakes import InMemoryPostgres
from tests.simulation.ruled_tables import HEAP
from tests.support.fake_world import row_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from adapters.fakes.postgres import Row, Table, Writer

KEYS = range(7)
TEXTS = ("a", "b", None, "z" * 9)
TABLES = ("orders", "items", "events", "notes", "stock")
EXTRA_COLUMNS = ("n", "big", "extra", "more")


class RolledBack(Exception):
    """The application gives a transaction up."""


class RecordedPostgres(InMemoryPostgres):
    """Remembers the rows of every table after each commit."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[int] = []
        self._states: list[dict[int, list[Row]]] = []
        #: Every row that a commit made visible, by table.
        self.versions: dict[int, set[tuple[Any, ...]]] = {}
        #: Where the definition of a table last changed; those of new tables are not listed.
        self.redefined_at: dict[int, int] = {}

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        with super().transaction() as writer:
            yield writer
        self.remember()

    def remember(self) -> None:
        state = {oid: [dict(row) for row in table.rows] for oid, table in self.tables.items()}
        self._ends.append(int(self.lsn))
        self._states.append(state)
        for oid, rows in state.items():
            self.versions.setdefault(oid, set()).update(map(row_of, rows))

    def at(self, lsn: int) -> dict[int, list[Row]]:
        """The rows of each table after the last commit that ends at or before `lsn`."""
        return self._states[bisect_right(self._ends, lsn) - 1]


@dataclass
class Application:
    postgres: RecordedPostgres
    random: random.Random
    say: Callable[[str], None]
    reach: Callable[[str], None]
    #: Whether definitions of tables change; otherwise there are only new tables.
    changes_definitions: bool = True
    #: Which tables have a key; see `Rules`.
    keys: str | None = None
    _numbers: int = 0
    _new: list[int] = field(default_factory=list)

    def begin(self) -> None:
        self.create("orders", key=True)
        self.create("items", key=True)
        self.create(HEAP, key=self.keys == "all")
        self.work(3)

    # Transactions.

    def work(self, transactions: int) -> None:
        for _ in range(transactions):
            if self.random.random() < 0.1:
                self.say(f"  application: other databases write WAL up to {self._write_wal()}")
                continue
            done: list[str] = []
            with suppress(RolledBack), self.postgres.transaction() as tx:
                for _ in range(self.random.randint(1, 4)):
                    self._statement(tx, done)
                if self.random.random() < 0.08:
                    done.append("ROLLBACK")
                    raise RolledBack
            if done:
                self.say(f"  application: {'; '.join(done)} [{self.postgres.lsn}]")

    def _write_wal(self) -> str:
        return str(self.postgres.write_wal(self.random.choice([64, 4096, 20 << 20])))

    def _statement(self, tx: Writer, done: list[str]) -> None:
        chance = self.random
        if not self.postgres.tables:
            return
        table = self.postgres.tables[chance.choice([*self.postgres.tables])]
        oid, name = table.relation.oid, table.relation.table.name
        key = table.relation.key[0] if table.relation.key else None
        row = dict(chance.choice(table.rows)) if table.rows else None
        free = [n for n in KEYS if key is None or all(r[key] != n for r in table.rows)]
        others = [c.name for c in table.relation.columns if c.name != key]
        kind = chance.random()
        if row is None or kind < 0.33:
            if not free:
                return
            new = {c.name: self._value(c.arrow_type) for c in table.relation.columns}
            if key is not None:
                new[key] = chance.choice(free)
            tx.insert(oid, **new)
            done.append(f"INSERT {name} {_brief(new)}")
        elif kind < 0.6 and others:
            column = chance.choice(others)
            value = self._value(table.relation.column(column).arrow_type)
            tx.update(oid, row, **{column: value})
            done.append(f"UPDATE {name} {_brief(row)} SET {column}={_short(value)}")
        elif kind < 0.72 and key is not None and free:
            new_key = chance.choice(free)
            tx.update(oid, row, **{key: new_key})
            done.append(f"UPDATE {name} {_brief(row)} SET {key}={new_key}")
        elif kind < 0.78 and key is not None and len(table.rows) > 1:
            self._swap(tx, table, key, done)
        elif kind < 0.92:
            tx.delete(oid, **row)
            done.append(f"DELETE {name} {_brief(row)}")
        else:
            tx.truncate(oid)
            done.append(f"TRUNCATE {name}")

    def _swap(self, tx: Writer, table: Table, key: str, done: list[str]) -> None:
        """Two rows exchange their keys, by way of a third key."""
        first, second = (dict(row) for row in self.random.sample(table.rows, 2))
        oid, spare = table.relation.oid, 99
        tx.update(oid, first, **{key: spare})
        tx.update(oid, second, **{key: first[key]})
        tx.update(oid, {**first, key: spare}, **{key: second[key]})
        done.append(f"SWAP {table.relation.table.name} {key} {first[key]}, {second[key]}")
        self.reach("two rows exchange their keys in one transaction")

    def _value(self, kind: pa.DataType) -> Any:
        if pa.types.is_string(kind):
            return self.random.choice(TEXTS)
        return self.random.randrange(3)

    # Definitions.

    def create(self, name: str, *, key: bool) -> int:
        columns = {"id": pa.int64(), "n": pa.int32(), "big": pa.string()}
        oid = self.postgres.create_table(
            name, columns, key=("id",) if key else (), toasted=("big",) if key else ()
        )
        self.postgres.remember()
        return oid

    def redefine(self) -> None:
        """One random change of a definition."""
        tables = self.postgres.tables
        changes = [self._create]
        if self.changes_definitions:
            changes += [self._drop, self._rename_table, self._swap_tables]
        if tables and self.changes_definitions:
            table = tables[self.random.choice([*tables])]
            changes += 2 * [
                lambda: self._add(table), lambda: self._drop_column(table),
                lambda: self._rename_column(table), lambda: self._retype(table),
                lambda: self._copy_file(table),
            ]  # fmt: skip
        what = self.random.choice(changes)()
        if what:
            self.postgres.remember()
            self.say(f"  application: {what} [{self.postgres.lsn}]")

    def _changed(self, *tables: Table) -> None:
        for table in tables:
            self.postgres.redefined_at[table.relation.oid] = int(self.postgres.lsn)

    def _free_name(self) -> str | None:
        taken = {table.relation.table.name for table in self.postgres.tables.values()}
        free = [name for name in TABLES if name not in taken]
        return self.random.choice(free) if free else None

    def _create(self) -> str:
        name = self._free_name()
        if name is None:
            return ""
        key = self.random.random() < 0.7
        oid = self.create(
            name, key=key if self.keys is None else self.keys == "all" or name != HEAP
        )
        with self.postgres.transaction() as tx:
            tx.insert(oid, id=1, n=1, big="first")
        return f"CREATE TABLE {name}, with a row"

    def _drop(self) -> str:
        if len(self.postgres.tables) < 3:
            return ""
        oid = self.random.choice([*self.postgres.tables])
        name = self.postgres.tables[oid].relation.table.name
        self.postgres.drop_table(oid)
        if self.random.random() < 0.5:
            new = self.create(name, key=True)
            with self.postgres.transaction() as tx:
                tx.insert(new, id=2, n=2, big="new")
            return f"DROP TABLE {name}, and another one takes its name"
        return f"DROP TABLE {name}"

    def _rename_table(self) -> str:
        name = self._free_name()
        if name is None or not self.postgres.tables:
            return ""
        oid = self.random.choice([*self.postgres.tables])
        old = self.postgres.tables[oid].relation.table.name
        self.postgres.rename_table(oid, name)
        self._changed(self.postgres.tables[oid])
        return f"ALTER TABLE {old} RENAME TO {name}"

    def _swap_tables(self) -> str:
        if len(self.postgres.tables) < 2:
            return ""
        first, second = self.random.sample([*self.postgres.tables], 2)
        names = [self.postgres.tables[oid].relation.table.name for oid in (first, second)]
        for oid, name in ((first, "spare"), (second, names[0]), (first, names[1])):
            self.postgres.rename_table(oid, name)
        self._changed(*(self.postgres.tables[oid] for oid in (first, second)))
        self.reach("two tables exchange their names")
        return f"tables {names[0]} and {names[1]} exchange their names"

    def _add(self, table: Table) -> str:
        free = [name for name in EXTRA_COLUMNS if name not in table.relation.column_names]
        if not free:
            return ""
        name, default = self.random.choice(free), self.random.choice([None, "d"])
        self.postgres.add_column(table.relation.oid, name, pa.string(), default=default)
        self._changed(table)
        return f"ALTER TABLE {table.relation.table.name} ADD {name} DEFAULT {default}"

    def _own(self, table: Table) -> str | None:
        own = [name for name in table.relation.column_names if name not in table.relation.key]
        return self.random.choice(own) if own else None

    def _drop_column(self, table: Table) -> str:
        name = self._own(table)
        if name is None or len(table.relation.columns) < 3:
            return ""
        self.postgres.drop_column(table.relation.oid, name)
        table.toasted -= {name}
        self._changed(table)
        return f"ALTER TABLE {table.relation.table.name} DROP {name}"

    def _rename_column(self, table: Table) -> str:
        old = self.random.choice(table.relation.column_names)
        self._numbers += 1
        new = f"{old[:3]}_{self._numbers}"
        self.postgres.rename_column(table.relation.oid, old, new)
        table.toasted = frozenset(new if name == old else name for name in table.toasted)
        self._changed(table)
        return f"ALTER TABLE {table.relation.table.name} RENAME {old} TO {new}"

    def _retype(self, table: Table) -> str:
        name = self._own(table)
        if name is None:
            return ""
        kind = table.relation.column(name).arrow_type
        oid, where = table.relation.oid, table.relation.table.name
        if pa.types.is_string(kind):
            self.postgres.rewrite(oid, name, kind, lambda v: None if v is None else v + "!")
        elif pa.types.is_int32(kind):
            self.postgres.rewrite(oid, name, pa.int64(), lambda v: v)
        else:
            self.postgres.rewrite(oid, name, pa.string(), lambda v: None if v is None else f"<{v}>")
        self._changed(table)
        return f"ALTER TABLE {where} ALTER {name} TYPE, which rewrites its rows"

    def _copy_file(self, table: Table) -> str:
        self.postgres.vacuum_full(table.relation.oid)
        self._changed(table)
        return f"VACUUM FULL {table.relation.table.name}"


def _short(value: object) -> str:
    return "z…" if value == TEXTS[-1] else repr(value)


def _brief(row: Row) -> str:
    return "(" + ", ".join(f"{name}={_short(value)}" for name, value in row.items()) + ")"
