"""A random workload on a real PostgreSQL: key changes, swaps, TOAST, truncates, keyless tables.

Seeded, so that a seed reproduces a failure.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support import oracle

if TYPE_CHECKING:
    import psycopg

TABLES = """
CREATE TABLE plain (
  id bigint PRIMARY KEY, n int, label text, price numeric(12,2), seen_at timestamptz,
  local_at timestamp,
  ok boolean, weight float8, small real, doc jsonb, raw bytea, day date, tags int[]);
CREATE TABLE toasted (a int, b text, big text, other text, n int, PRIMARY KEY (a, b));
ALTER TABLE toasted ALTER COLUMN big SET STORAGE EXTERNAL, ALTER COLUMN other SET STORAGE EXTERNAL;
CREATE TABLE heap (kind int, label text, amount numeric);
ALTER TABLE heap REPLICA IDENTITY FULL;
CREATE TABLE measured (id int, region text, value float8, PRIMARY KEY (id, region))
  PARTITION BY LIST (region);
CREATE TABLE measured_north PARTITION OF measured FOR VALUES IN ('north');
CREATE TABLE measured_south PARTITION OF measured FOR VALUES IN ('south');
"""

NAMES = ("plain", "toasted", "heap", "measured")


def assert_equal(connection: psycopg.Connection[tuple[object, ...]], lake: oracle.Lake) -> None:
    """Every table of the workload, cell by cell."""
    oracle.assert_equal(connection, lake, NAMES)


@dataclass
class Workload:
    """Random transactions on the tables of `TABLES`; what fails on a constraint is rolled back."""

    connection: psycopg.Connection[tuple[object, ...]]
    seed: int
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def run(self, transactions: int) -> None:
        import psycopg

        for _ in range(transactions):
            try:
                with self.connection.transaction():
                    for _ in range(self.random.randint(1, 8)):
                        self._statement()
                    if self.random.random() < 0.1:
                        raise psycopg.Rollback
            except psycopg.errors.IntegrityError:
                pass

    def _statement(self) -> None:
        statement = self.random.choice(
            (self._plain, self._plain, self._toasted, self._toasted, self._heap, self._measured)
        )
        statement()

    def _do(self, sql: str, *values: object) -> None:
        self.connection.execute(sql, values)  # type: ignore[call-overload]

    def _plain(self) -> None:
        chance = self.random
        key = chance.randrange(40)
        kind = chance.random()
        if kind < 0.45:
            self._do(
                "INSERT INTO plain VALUES (%s,%s,%s,%s, now(), localtimestamp,%s,%s,%s,%s,%s,"
                "date '2000-01-01' + %s, %s) ON CONFLICT (id) DO UPDATE SET n = excluded.n + 1",
                key, chance.randrange(9), chance.choice(["ä", "", "x\ty\\n\n", None, "🐘"]),
                chance.choice([None, "1.50", "-9999999999.99"]), chance.choice([True, False, None]),
                chance.choice([0.1, -0.0, 1e300, None]), chance.choice([0.1, None, 16777216.0]),
                chance.choice([None, '{"a": [1, null, "ü"]}']),
                chance.choice([None, b"", b"\x00\xff"]),
                chance.randrange(9999), chance.choice([None, [], [1, None, 3]]),
            )  # fmt: skip
        elif kind < 0.65:
            self._do("UPDATE plain SET n = n + 1, label = 'u' WHERE id = %s", key)
        elif kind < 0.80:
            self._do("UPDATE plain SET id = %s WHERE id = %s", chance.randrange(40), key)
        elif kind < 0.97:
            self._do("DELETE FROM plain WHERE id = %s", key)
        else:
            self._do("TRUNCATE plain")

    def _toasted(self) -> None:
        chance = self.random
        key = (chance.randrange(6), chance.choice("xy"))
        kind = chance.random()
        if kind < 0.35:
            self._do(
                "INSERT INTO toasted VALUES (%s, %s, %s, %s, 0) ON CONFLICT DO NOTHING",
                *key, str(chance.random()) * 400, chance.choice([None, "z" * 5000]),
            )  # fmt: skip
        elif kind < 0.6:
            self._do("UPDATE toasted SET n = n + 1 WHERE a = %s AND b = %s", *key)
        elif kind < 0.7:
            big = chance.choice(["s", str(chance.random()) * 300])
            self._do("UPDATE toasted SET big = %s WHERE a = %s AND b = %s", big, *key)
        elif kind < 0.9:
            self._do(
                "UPDATE toasted SET a = %s, b = %s WHERE a = %s AND b = %s",
                chance.randrange(6), chance.choice("xy"), *key,
            )  # fmt: skip
        else:
            self._do("DELETE FROM toasted WHERE a = %s AND b = %s", *key)

    def _heap(self) -> None:
        chance = self.random
        kind = chance.random()
        one = "ctid = (SELECT ctid FROM heap WHERE kind = %s LIMIT 1)"
        if kind < 0.5:
            amount = chance.choice([None, "1.10", "NaN"])
            self._do("INSERT INTO heap VALUES (%s, %s, %s)", chance.randrange(3), "same", amount)
        elif kind < 0.7:
            self._do(f"UPDATE heap SET kind = %s WHERE {one}", *chance.choices(range(3), k=2))
        elif kind < 0.98:
            self._do(f"DELETE FROM heap WHERE {one}", chance.randrange(3))
        else:
            self._do("TRUNCATE heap")

    def _measured(self) -> None:
        chance = self.random
        key = (chance.randrange(8), chance.choice(["north", "south"]))
        kind = chance.random()
        if kind < 0.4:
            insert = "INSERT INTO measured VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            self._do(insert, *key, chance.random())
        elif kind < 0.8:
            region = chance.choice(["north", "south"])
            self._do("UPDATE measured SET region = %s WHERE id = %s AND region = %s", region, *key)
        else:
            self._do("DELETE FROM measured WHERE id = %s AND region = %s", *key)
