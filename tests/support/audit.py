"""Tables whose every change the database itself records, by triggers, and random work on them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.history_model import as_of_each, assert_chained, images_of, in_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from tests.support.lakes import Lake

#: Columns and key of each table.
COLUMNS = {
    "prices": ("id", "name", "price", "doc"),
    "lines": ("no", "part", "amount", "doc"),
    "bag": ("what", "amount"),
}
KEYS: dict[str, tuple[str, ...]] = {"prices": ("id",), "lines": ("no", "part"), "bag": ()}

TABLES = """
CREATE TABLE prices (id int PRIMARY KEY, name text, price numeric(12,2), doc text);
ALTER TABLE prices ALTER doc SET STORAGE EXTERNAL;
CREATE TABLE lines (no int, part text, amount numeric, doc text, PRIMARY KEY (part, no));
ALTER TABLE lines ALTER doc SET STORAGE EXTERNAL;
ALTER TABLE lines REPLICA IDENTITY FULL;
CREATE TABLE bag (what text, amount numeric);
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE SCHEMA audit;
CREATE SEQUENCE audit.n;
CREATE FUNCTION audit.changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    EXECUTE format('INSERT INTO audit.%1$I SELECT nextval(''audit.n''), %2$s, ''delete'', t.*
                    FROM public.%1$I t', TG_TABLE_NAME, txid_current());
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    EXECUTE format('INSERT INTO audit.%I SELECT nextval(''audit.n''), %s, %L, $1.*', TG_TABLE_NAME,
      txid_current(), CASE TG_OP WHEN 'DELETE' THEN 'delete' ELSE 'update_preimage' END) USING OLD;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    EXECUTE format('INSERT INTO audit.%I SELECT nextval(''audit.n''), %s, %L, $1.*', TG_TABLE_NAME,
      txid_current(), CASE TG_OP WHEN 'INSERT' THEN 'insert' ELSE 'update_postimage' END) USING NEW;
  END IF;
  RETURN NULL;
END $$;
DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['prices', 'lines', 'bag'] LOOP
    EXECUTE format('CREATE TABLE audit.%1$I AS
                    SELECT 0::bigint n, 0::bigint xid, ''''::text kind, t.*
                    FROM public.%1$I t WITH NO DATA', t);
    EXECUTE format('CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON public.%I FOR EACH ROW
                    EXECUTE FUNCTION audit.changed()', t);
    EXECUTE format('CREATE TRIGGER b BEFORE TRUNCATE ON public.%I EXECUTE FUNCTION audit.changed()',
                   t);
  END LOOP;
END $$
"""

#: The rules of these tables, as the setting in the environment.
RULES = (
    '[{"match": ["public.prices", "public.lines"], "history": ["log", "scd2"],'
    ' "deletes": "soft"}, {"match": "public.bag", "history": ["log"]}]'
)

STATEMENTS = (
    """INSERT INTO prices VALUES (%(key)s, 'n', %(amount)s, %(doc)s)
    ON CONFLICT (id) DO UPDATE SET price = excluded.price, name = excluded.name""",
    "UPDATE prices SET price = price + 1 WHERE id %% 3 = %(key)s %% 3",
    "UPDATE prices SET doc = %(doc)s WHERE id = %(key)s",
    """UPDATE prices SET id = id + 20 WHERE id = %(key)s
    AND NOT EXISTS (SELECT FROM prices p WHERE p.id = prices.id + 20)""",
    """UPDATE prices SET id = id - 20, price = %(amount)s WHERE id > 19
    AND NOT EXISTS (SELECT FROM prices p WHERE p.id = prices.id - 20)""",
    "DELETE FROM prices WHERE id = %(key)s",
    """INSERT INTO lines VALUES (%(key)s, %(part)s, %(amount)s, %(doc)s)
    ON CONFLICT DO NOTHING""",
    "UPDATE lines SET amount = amount * 1.50 WHERE part = %(part)s AND amount < 1000000",
    """UPDATE lines SET part = part || 'x' WHERE no = %(key)s AND part = %(part)s
    AND NOT EXISTS (SELECT FROM lines l WHERE l.no = lines.no AND l.part = lines.part || 'x')""",
    "DELETE FROM lines WHERE no = %(key)s",
    "INSERT INTO bag SELECT %(part)s, %(key)s %% 4 FROM generate_series(1, 3)",
    """UPDATE bag SET amount = amount + 1
    WHERE ctid = (SELECT min(ctid) FROM bag WHERE what = %(part)s)""",
    "DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE what = %(part)s LIMIT 2)",
)

LONG = "long " * 800


@dataclass
class AuditedWork:
    """Random transactions of one session, and copies of the tables that it took."""

    connection: psycopg.Connection
    seed: int
    #: By table: the LSN of the copy and its rows.
    copies: dict[str, list[tuple[int, Counter[tuple[Any, ...]]]]] = field(default_factory=dict)
    #: Of each table's audit: the last entry before the snapshot.
    began: int = 0
    #: Each row once, since thousands of copies hold the same ones.
    _known: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def begin(self) -> None:
        """The snapshot is about to be taken; nothing is written meanwhile."""
        self.began = self._value("SELECT last_value FROM audit.n")

    def run(self, transactions: int) -> None:
        for _ in range(transactions):
            self._transaction()
            self._copy()

    def _transaction(self) -> None:
        chance = self.random
        with self.connection.transaction(force_rollback=chance.random() < 0.1):
            for _ in range(chance.choice([1, 1, 2, 5])):
                with self.connection.transaction(force_rollback=chance.random() < 0.1):
                    self._statement(chance)

    def _statement(self, chance: random.Random) -> None:
        amount = chance.randrange(100)
        values = {
            "key": chance.randrange(12),
            "amount": amount,
            "doc": chance.choice([LONG + str(amount), "short", None]),
            "part": chance.choice(["a", "b", "ß"]),
        }
        if chance.random() < 0.02:
            self.connection.execute(f"TRUNCATE {chance.choice([*COLUMNS, 'prices, bag'])}")
            return
        self.connection.execute(chance.choice(STATEMENTS), values)

    def _copy(self) -> None:
        lsn = self._value("SELECT pg_current_wal_insert_lsn() - '0/0'")
        for table, columns in COLUMNS.items():
            rows = self._rows(f"SELECT {_shown(columns)} FROM public.{table}")
            shared = (self._known.setdefault(row, row) for row in rows)
            self.copies.setdefault(table, []).append((lsn, Counter(shared)))

    def assert_history(self, lake: Lake) -> None:
        """Every image in order, and the table as of every copy."""
        for table, columns in COLUMNS.items():
            log = lake.read(f"{table}_history").to_pylist()
            found = images_of(log, columns)
            first = next((n for n, image in enumerate(found) if image[2] is not None), len(found))
            wanted = self._rows(
                f"SELECT kind, xid, {_shown(columns)} FROM audit.{table} "
                f"WHERE n > {self.began} ORDER BY n"
            )
            assert all(image[0] == "insert" for image in found[:first])
            # The commit LSN is checked by its order alone: triggers do not know it.
            lsns = [image[1] for image in found]
            assert lsns == sorted(lsns)
            shown = [(kind, 0, xid, values) for kind, _, xid, values in found[first:]]
            expected = [(kind, 0, xid & 0xFFFFFFFF, tuple(v)) for kind, xid, *v in wanted]
            assert in_blocks(shown) == in_blocks(expected), table
            left = assert_chained(found, columns, KEYS[table])
            rows = Counter(self._rows(f"SELECT {_shown(columns)} FROM public.{table}"))
            assert left == rows, table
            if KEYS[table]:
                versions = lake.read(f"{table}_scd2").to_pylist()
                # No transaction commits between copies with one LSN, so they are equal.
                copies = dict(self.copies.get(table, ()))
                for lsn, shown_then in as_of_each(versions, copies, columns):
                    assert shown_then == copies[lsn], (table, lsn)
                live = [
                    tuple(row[name] for name in columns)
                    for row in lake.read(table).to_pylist()
                    if row["_cdc_deleted_at"] is None
                ]
                assert Counter(live) == rows, table

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return list(self.connection.execute(query))

    def _value(self, query: str) -> Any:
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def _shown(columns: Sequence[str]) -> str:
    """The columns as the destination has them: a numeric without precision is text."""
    return ", ".join(f"{name}::text" if name == "amount" else name for name in columns)
