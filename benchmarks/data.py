"""Tables, rows and changes of the cases, as SQL. The server generates all data."""

from __future__ import annotations

from dataclasses import dataclass

#: Ten columns of the common types; about 150 bytes per row.
ORDERS = """
CREATE TABLE {table} (
  id bigint PRIMARY KEY, quantity int, customer text, price numeric(12,2), status int,
  created_at timestamptz, note text, paid boolean, weight float8, attributes jsonb)
"""
ORDERS_ROWS = """
  SELECT i, (i % 1000)::int, 'customer ' || i % 10000, (i % 100000) / 100.0, (i % 7)::int,
    timestamptz '2024-01-01' + i * interval '1 second', 'note number ' || i, i % 2 = 0, i * 0.1,
    jsonb_build_object('a', i % 10, 'b', 'x' || i % 100)
  FROM generate_series({first}::bigint, {last}::bigint) AS i
"""
HOT_KEYS = 10_000
WIDE_COLUMNS = 100
TEXT_BYTES = 2_000
TABLES = 50
MIXED_TABLES = 10


@dataclass(frozen=True)
class Workload:
    """Changes of some tables, and how many they are.

    `before` is there when the snapshot is taken, `changes` come after. `total` gives, asked of a
    table at either side, the count of rows and a sum that lost, doubled or stale rows would change.
    """

    tables: tuple[str, ...]
    before: tuple[str, ...]
    changes: tuple[str, ...]
    count: int
    total: str = "SELECT count(*), sum(quantity) FROM {table}"


def orders_rows(first: int | str, last: int | str, table: str = "orders") -> str:
    return f"INSERT INTO {table}" + ORDERS_ROWS.format(first=first, last=last)


def inserts(rows: int, transaction_rows: int = 0) -> Workload:
    """`rows` inserts, in one transaction or in transactions of `transaction_rows`."""
    step = transaction_rows or max(1, rows)
    changes = tuple(
        orders_rows(first, min(first + step - 1, rows)) for first in range(1, rows + 1, step)
    )
    return Workload(("orders",), (ORDERS.format(table="orders"),), changes, rows)


def hot_updates(rows: int) -> Workload:
    """`rows` updates of up to 10,000 keys, a transaction each time that all were updated."""
    keys = min(HOT_KEYS, rows)
    rounds = max(1, rows // keys)
    changes = tuple(f"UPDATE orders SET quantity = quantity + {n}" for n in range(1, rounds + 1))
    before = (ORDERS.format(table="orders"), orders_rows(1, keys))
    return Workload(("orders",), before, changes, rounds * keys)


def tiny_transactions(count: int) -> Workload:
    """`count` transactions of one insert."""
    loop = f"FOR n IN 1..{count} LOOP {orders_rows('n', 'n')}; COMMIT; END LOOP"
    changes = ("SET synchronous_commit = off", f"DO $$ BEGIN {loop}; END $$")
    return Workload(("orders",), (ORDERS.format(table="orders"),), changes, count)


def wide_rows(rows: int) -> Workload:
    """Inserts of 100 columns of five types."""
    types = ("int", "text", "numeric(12,2)", "timestamptz", "float8")
    values = (
        "(i % 1000)::int", "'value ' || i % 10000", "(i % 100000) / 100.0",
        "timestamptz '2024-01-01' + i * interval '1 second'", "i * 0.1",
    )  # fmt: skip
    kinds = [n % len(types) for n in range(WIDE_COLUMNS - 2)]
    columns = ", ".join(f"c{n} {types[kind]}" for n, kind in enumerate(kinds))
    row = ", ".join(values[kind] for kind in kinds)
    return Workload(
        ("wide",),
        (f"CREATE TABLE wide (id bigint PRIMARY KEY, quantity int, {columns})",),
        (f"INSERT INTO wide SELECT i, (i % 1000)::int, {row} FROM generate_series(1, {rows}) i",),
        rows,
    )


def long_texts(rows: int) -> Workload:
    """Inserts of a text of 2,000 bytes: too short to be stored out of line."""
    text = f"left(repeat(md5(i::text), {TEXT_BYTES // 32 + 1}), {TEXT_BYTES})"
    return Workload(
        ("texts",),
        (
            "CREATE TABLE texts (id bigint PRIMARY KEY, quantity int, body text)",
            "ALTER TABLE texts ALTER body SET STORAGE PLAIN",
        ),
        (f"INSERT INTO texts SELECT i, i % 1000, {text} FROM generate_series(1, {rows}) i",),
        rows,
    )


def many_tables(rows: int) -> Workload:
    """Inserts into 50 tables by turns, a transaction of 1,000 rows each."""
    tables = tuple(f"orders_{n:02}" for n in range(TABLES))
    each = max(1, rows // TABLES)
    changes = tuple(
        orders_rows(first, min(first + 999, each), table)
        for first in range(1, each + 1, 1000)
        for table in tables
    )
    return Workload(
        tables, tuple(ORDERS.format(table=table) for table in tables), changes, each * TABLES
    )


def mixed(commits: int) -> Workload:
    """Commits of one row each in ten tables: a fifth inserts, three fifths updates, a fifth
    deletes.

    Updates are spread over the first half of the rows that were there, deletes take the second.
    """
    tables = tuple(f"orders_{n}" for n in range(MIXED_TABLES))
    rounds = max(10, commits // MIXED_TABLES)
    held = 2 * (rounds // 10 + 1)
    before = [
        statement
        for table in tables
        for statement in (ORDERS.format(table=table), orders_rows(1, 2 * held, table))
    ]
    steps = " ".join(_mixed_step(table, shift, held) for shift, table in enumerate(tables))
    changes = (
        "SET synchronous_commit = off",
        f"DO $$ BEGIN FOR n IN 0..{rounds - 1} LOOP {steps} END LOOP; END $$",
    )
    return Workload(tables, tuple(before), changes, rounds * MIXED_TABLES)


def _mixed_step(table: str, shift: int, held: int) -> str:
    """The commit in one table of round `n`. `shift` gives each table another turn."""
    turn = f"(n + {shift})"
    insert = orders_rows(f"{2 * held + 1} + n", f"{2 * held + 1} + n", table)
    update = f"UPDATE {table} SET quantity = quantity + 1 WHERE id = 1 + n::bigint * 7919 % {held}"
    # Turns 8 and 9 of each ten.
    delete = f"DELETE FROM {table} WHERE id = {held + 1} + {turn} / 10 * 2 + {turn} % 2"
    return (
        f"CASE WHEN {turn} % 10 < 2 THEN {insert}; WHEN {turn} % 10 < 8 THEN {update}; "
        f"ELSE {delete}; END CASE; COMMIT;"
    )


def scattered_updates(rows: int, part: int) -> Workload:
    """An update of every `part`th of `rows` rows."""
    return Workload(
        ("orders",),
        (ORDERS.format(table="orders"), orders_rows(1, rows)),
        (f"UPDATE orders SET quantity = quantity + 1 WHERE id % {part} = 0",),
        rows // part,
    )


#: Rows of each of many small tables.
SMALL_ROWS = 2


def small_table(number: int) -> str:
    return f"small_{number:05}"


def small_tables(count: int) -> str:
    """Create and fill them in groups, because locks per transaction are limited."""
    return _for_small_tables(
        count,
        "CREATE TABLE %1$I (id bigint PRIMARY KEY, quantity int, name text, price numeric(12,2), "
        "created_at timestamptz, paid boolean)",
        "INSERT INTO %1$I SELECT i, i, ''name '' || i, i / 100.0, now(), true "
        f"FROM generate_series(1, {SMALL_ROWS}) AS i",
    )


def change_small_tables(count: int) -> str:
    """A row of each, each in a transaction of its own."""
    return _for_small_tables(count, "UPDATE %1$I SET quantity = quantity + 1 WHERE id = 1", each=1)


def without_small_tables(count: int) -> str:
    return _for_small_tables(count, "DROP TABLE IF EXISTS %1$I")


def _for_small_tables(count: int, *statements: str, each: int = 100) -> str:
    """`each`: tables in a transaction."""
    table = "'small_' || lpad(n::text, 5, '0')"
    body = " ".join(f"EXECUTE format('{statement}', {table});" for statement in statements)
    return (
        f"DO $$ BEGIN FOR n IN 1..{count} LOOP {body} "
        f"IF n % {each} = 0 THEN COMMIT; END IF; END LOOP; END $$"
    )
