"""Random statements on rows: inserts, updates, keys that change and swap, deletes, truncates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak.world import value

if TYPE_CHECKING:
    import random

    from tests.soak.world import Table, World

KEYS = 40
REGIONS = ("a", "b", "c", "d")


def statements(world: World, chance: random.Random) -> list[str]:
    """What one random action on one table takes."""
    table = chance.choice(world.tables)
    if not table.key:
        return _keyless(table, chance)
    kind = chance.random()
    if kind < 0.40:
        return [_insert(table, chance)]
    if kind < 0.62:
        return [_update(table, chance)]
    if kind < 0.72:
        return _move(table, chance)
    if kind < 0.78:
        return _swap(table, chance)
    if kind < 0.96:
        return [f"DELETE FROM {table.sql} WHERE {_one_row(table, chance)}"]
    if kind < 0.98:
        return [f"DELETE FROM {table.sql} WHERE {table.key[0]} % 3 = 0"]
    return [_truncate(world, table, chance)]


def many(world: World, chance: random.Random, rows: int) -> list[str]:
    """A transaction's worth of rows in and, for the greater part, out again."""
    table = chance.choice(world.tables)
    names, values = _assigned(table, chance)
    fixed = [_fixed(table, name, "g", chance) for name in table.key]
    columns, given = ", ".join([*table.key, *names]), ", ".join([*fixed, *values])
    first = 1000
    inserted = (
        f"INSERT INTO {table.sql} ({columns}) SELECT {given} "
        f"FROM generate_series({first}, {first + rows}) AS g ON CONFLICT DO NOTHING"
    )
    found = [inserted]
    if table.key:
        if names:
            found.append(
                f"UPDATE {table.sql} SET {names[0]} = {values[0]} WHERE {table.key[0]} > {first}"
            )
        key = table.key[0]
        found.append(f"DELETE FROM {table.sql} WHERE {key} > {first + rows // 20}")
    return found


def _fixed(table: Table, name: str, number: str, chance: random.Random) -> str:
    if table.column(name).type == "text":
        return f"'{chance.choice(REGIONS)}'"
    return number


def _assigned(table: Table, chance: random.Random) -> tuple[list[str], list[str]]:
    """Some columns and values for them."""
    chosen = [c for c in table.written if chance.random() < 0.8]
    return [c.name for c in chosen], [value(c, chance) for c in chosen]


def _insert(table: Table, chance: random.Random) -> str:
    names, values = _assigned(table, chance)
    numbers = [str(chance.randrange(KEYS)) for _ in table.key]
    fixed = [_fixed(table, n, number, chance) for n, number in zip(table.key, numbers, strict=True)]
    columns = ", ".join([*table.key, *names])
    action = "NOTHING"
    if names and chance.random() < 0.5:
        action = f"UPDATE SET {names[0]} = excluded.{names[0]}"
    conflict = f"({', '.join(table.key)})" if action != "NOTHING" else ""
    return (
        f"INSERT INTO {table.sql} ({columns}) VALUES ({', '.join([*fixed, *values])}) "
        f"ON CONFLICT {conflict} DO {action}"
    )


def _one_row(table: Table, chance: random.Random) -> str:
    number = str(chance.randrange(KEYS))
    return f"{table.key[0]} = {_fixed(table, table.key[0], number, chance)}"


def _update(table: Table, chance: random.Random) -> str:
    chosen = [c for c in table.written if chance.random() < 0.4] or table.written[:1]
    if not chosen:
        return _insert(table, chance)
    sets = ", ".join(f"{c.name} = {value(c, chance)}" for c in chosen)
    where = _one_row(table, chance) if chance.random() < 0.85 else "true"
    return f"UPDATE {table.sql} SET {sets} WHERE {where}"


def _move(table: Table, chance: random.Random) -> list[str]:
    """Change keys, one or a chain of them, at times with another column in the same update."""
    key = table.key[0]
    if table.by_index and chance.random() < 0.5:
        return [f"UPDATE {table.sql} SET alt = alt + 100000 WHERE {_one_row(table, chance)}"]
    if table.partitions is not None and chance.random() < 0.6:
        region = next(c.name for c in table.columns if c.fixed and c.type == "text")
        to = chance.choice(REGIONS)
        return [f"UPDATE {table.sql} SET {region} = '{to}' WHERE {_one_row(table, chance)}"]
    if chance.random() < 0.3:
        return [
            f"UPDATE {table.sql} SET {key} = {key} + 500 WHERE {key} BETWEEN 5 AND 9",
            f"UPDATE {table.sql} SET {key} = {key} - 499 WHERE {key} BETWEEN 505 AND 509",
        ]
    more = ""
    if table.written and chance.random() < 0.4:
        column = chance.choice(table.written)
        more = f", {column.name} = {value(column, chance)}"
    to = str(chance.randrange(KEYS))
    return [f"UPDATE {table.sql} SET {key} = {to}{more} WHERE {_one_row(table, chance)}"]


def _swap(table: Table, chance: random.Random) -> list[str]:
    key = table.key[0]
    one, two = chance.sample(range(KEYS), 2)
    steps = ((one, -1), (two, one), (-1, two))
    return [f"UPDATE {table.sql} SET {key} = {new} WHERE {key} = {old}" for old, new in steps]


def _keyless(table: Table, chance: random.Random) -> list[str]:
    kind = chance.random()
    one = f"ctid = (SELECT ctid FROM {table.sql} ORDER BY {table.columns[0].name} LIMIT 1)"
    names, values = _assigned(table, chance)
    if kind < 0.5 and names:
        insert = f"INSERT INTO {table.sql} ({', '.join(names)}) VALUES ({', '.join(values)})"
        return [insert] * chance.choice([1, 1, 3])
    if kind < 0.75 and names:
        return [f"UPDATE {table.sql} SET {names[0]} = {values[0]} WHERE {one}"]
    if kind < 0.98:
        return [f"DELETE FROM {table.sql} WHERE {one}"]
    return [f"TRUNCATE {table.sql}"]


def _truncate(world: World, table: Table, chance: random.Random) -> str:
    also = chance.choice(world.tables)
    both = f"{table.sql}, {also.sql}" if also is not table and chance.random() < 0.3 else table.sql
    return f"TRUNCATE {both}{chance.choice(['', ' RESTART IDENTITY', ' CASCADE'])}"
