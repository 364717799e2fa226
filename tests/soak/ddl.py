"""Random changes of definition, each a transaction that is sure to succeed; the world follows."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from tests.soak.dml import REGIONS
from tests.soak.world import OTHER, VALUES, WIDER, Column, Table, World, value

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    #: None where the action has nothing to act on.
    Action = Callable[[World, random.Random], list[str] | None]

MOST_TABLES, FEWEST_TABLES = 10, 5
MOST_COLUMNS = 12


def first_tables() -> tuple[World, list[str]]:
    """The tables with which a soak begins."""
    world = World()
    made = ["CREATE SCHEMA side", "CREATE TYPE mood AS ENUM ('sad', 'happy')"]
    wide = ["smallint", "numeric(10,2)", "timestamptz", "jsonb", "bytea", "integer[]", "real"]
    made += _create(world, "public", "wide", wide)
    made += _create(world, "public", "toasted", ["text", "text", "smallint"])
    made += _create(world, "side", "elsewhere", ["varchar(20)", "date", "boolean"])
    made += _create_keyless(world, "heap", ["integer", "text", "numeric"])
    made += _create_partitioned(world, "measured")
    return world, made


def change(world: World, chance: random.Random) -> list[str]:
    """The statements of one random change."""
    while True:
        action = chance.choices(_ACTIONS, _WEIGHTS)[0]
        found = action(world, chance)
        if found is not None:
            return found


def maintenance(world: World, chance: random.Random) -> str:
    """New files for a table whose rows stay; not to be done in a transaction."""
    return f"VACUUM FULL {chance.choice(world.tables).sql}"


def _definition(column: Column) -> str:
    return f"{column.name} {column.type}"


def _columns(world: World, types: list[str]) -> list[Column]:
    return [Column(world.name("c"), type_) for type_ in types]


def _stored_apart(table: Table, columns: list[Column]) -> list[str]:
    """Long texts out of line, so that updates do not send them."""
    return [
        f"ALTER TABLE {table.sql} ALTER {column.name} SET STORAGE EXTERNAL"
        for column in columns
        if column.type == "text"
    ]


def _create(world: World, schema: str, name: str, types: list[str]) -> list[str]:
    columns = _columns(world, types)
    table = Table(
        schema, name, [Column("id", "integer", fixed=True), *columns], ["id"], world.name("pk")
    )
    world.tables.append(table)
    listed = ", ".join(_definition(column) for column in table.columns)
    return [
        f"CREATE TABLE {table.sql} ({listed}, CONSTRAINT {table.constraint} PRIMARY KEY (id))",
        *_stored_apart(table, columns),
    ]


def _create_keyless(world: World, name: str, types: list[str]) -> list[str]:
    table = Table("public", name, _columns(world, types), [])
    world.tables.append(table)
    return [
        f"CREATE TABLE {table.sql} ({', '.join(map(_definition, table.columns))})",
        f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL",
        *_stored_apart(table, table.columns),
    ]


def _create_partitioned(world: World, name: str) -> list[str]:
    columns = _columns(world, ["text", "double precision", "varchar(20)"])
    key = [Column("id", "integer", fixed=True), Column("region", "text", fixed=True)]
    table = Table(
        "public", name, [*key, *columns], ["id", "region"], world.name("pk"), partitions={}
    )
    world.tables.append(table)
    listed = ", ".join(_definition(column) for column in table.columns)
    made = [
        (
            f"CREATE TABLE {table.sql} ({listed}, CONSTRAINT {table.constraint} "
            "PRIMARY KEY (id, region)) PARTITION BY LIST (region)"
        ),
        *_stored_apart(table, columns),
    ]
    for region in REGIONS[:2]:
        made += _new_partition(world, table, region)
    return made


def _new_partition(world: World, table: Table, region: str) -> list[str]:
    name = world.name("part")
    assert table.partitions is not None
    table.partitions[name] = region
    return [f"CREATE TABLE {name} PARTITION OF {table.sql} FOR VALUES IN ('{region}')"]


def _some_types(chance: random.Random) -> list[str]:
    return chance.choices(list(VALUES), k=chance.randint(1, 5))


def _new_table(world: World, chance: random.Random) -> list[str] | None:
    if len(world.tables) >= MOST_TABLES:
        return None
    if chance.random() < 0.25:
        made = _create_keyless(world, world.name("heap"), _some_types(chance))
        return [*made, *_rows(world.tables[-1], chance)]
    schema = chance.choice(["public", "public", "side"])
    made = _create(world, schema, world.name("t"), _some_types(chance))
    return [*made, *_rows(world.tables[-1], chance)]


def _rows(table: Table, chance: random.Random) -> list[str]:
    """Rows that are there before the table joins the publication."""
    names = [*table.key, *(c.name for c in table.written)]
    values = ["g" for _ in table.key] + [value(c, chance) for c in table.written]
    count = chance.choice([0, 1, 30])
    return [
        (
            f"INSERT INTO {table.sql} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM generate_series(1, {count}) AS g"
        )
    ]


def _drop_table(world: World, chance: random.Random) -> list[str] | None:
    droppable = world.ordinary()
    if len(world.tables) <= FEWEST_TABLES or not droppable:
        return None
    table = chance.choice(droppable)
    world.tables.remove(table)
    return [f"DROP TABLE {table.sql}"]


def _recreate(world: World, chance: random.Random) -> list[str] | None:
    table = chance.choice(world.ordinary())
    world.tables.remove(table)
    made = _create(world, table.schema, table.name, _some_types(chance))
    return [f"DROP TABLE {table.sql}", *made, *_rows(world.tables[-1], chance)]


def _copy_and_replace(world: World, chance: random.Random) -> list[str] | None:
    """What tools do that change a big table: a copy with more columns takes its name."""
    keyed = [t for t in world.ordinary() if t.key and not t.by_index]
    if not keyed:
        return None
    table = chance.choice(keyed)
    copy, table.constraint = world.name("copy"), world.name("pk")
    for column in table.columns:
        column.generated = False
    table.dropped.clear()
    return [
        f"CREATE TABLE {table.schema}.{copy} AS SELECT * FROM {table.sql}",
        (
            f"ALTER TABLE {table.schema}.{copy} ADD CONSTRAINT {table.constraint} "
            f"PRIMARY KEY ({', '.join(table.key)})"
        ),
        f"DROP TABLE {table.sql}",
        f"ALTER TABLE {table.schema}.{copy} RENAME TO {table.name}",
    ]


def _take_name(world: World, chance: random.Random) -> list[str] | None:
    """A table that was followed under another name takes that of one that goes."""
    ordinary = [t for t in world.ordinary() if t.schema == "public"]
    if len(world.tables) <= FEWEST_TABLES or len(ordinary) < 2:
        return None
    gone, heir = chance.sample(ordinary, 2)
    world.tables.remove(gone)
    done = [f"DROP TABLE {gone.sql}", f"ALTER TABLE {heir.sql} RENAME TO {gone.name}"]
    heir.name = gone.name
    return done


def _unpublish(world: World, chance: random.Random) -> list[str] | None:
    """Rows change while the publication leaves their table out."""
    table = chance.choice(world.ordinary())
    return [
        _published(table, "ALTER PUBLICATION dlt_cdc_pub DROP TABLE ONLY %s", "EXISTS"),
        f"DELETE FROM {table.sql} WHERE ctid IN (SELECT ctid FROM {table.sql} LIMIT 3)",
        _published(table, "ALTER PUBLICATION dlt_cdc_pub ADD TABLE ONLY %s", "NOT EXISTS"),
    ]


def _published(table: Table, statement: str, condition: str) -> str:
    """A statement for a table that is in the publication, or is not; where there is one."""
    return (
        "DO $$BEGIN IF EXISTS (SELECT FROM pg_publication WHERE pubname = 'dlt_cdc_pub') "
        f"AND {condition} (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = "
        f"r.prpubid WHERE p.pubname = 'dlt_cdc_pub' AND r.prrelid = '{table.sql}'::regclass) "
        f"THEN {statement % table.sql}; END IF; END$$"
    )


def _rename_table(world: World, chance: random.Random) -> list[str] | None:
    table = chance.choice(world.tables)
    old, table.name = table.sql, world.name("renamed")
    return [f"ALTER TABLE {old} RENAME TO {table.name}"]


def _swap_tables(world: World, chance: random.Random) -> list[str] | None:
    ordinary = [t for t in world.ordinary() if t.schema == "public"]
    if len(ordinary) < 2:
        return None
    one, two = chance.sample(ordinary, 2)
    spare = world.name("spare")
    done = [
        f"ALTER TABLE {one.sql} RENAME TO {spare}",
        f"ALTER TABLE {two.sql} RENAME TO {one.name}",
        f"ALTER TABLE {spare} RENAME TO {two.name}",
    ]
    one.name, two.name = two.name, one.name
    return done


def _move_to_schema(world: World, chance: random.Random) -> list[str] | None:
    table = chance.choice(world.ordinary())
    to = "side" if table.schema == "public" else "public"
    old, table.schema = table.sql, to
    return [f"ALTER TABLE {old} SET SCHEMA {to}"]


def _add_column(world: World, chance: random.Random) -> list[str] | None:
    roomy = [t for t in world.tables if len(t.columns) < MOST_COLUMNS]
    if not roomy:
        return None
    table = chance.choice(roomy)
    column = Column(world.name("c"), chance.choice(list(VALUES)))
    if table.dropped and chance.random() < 0.3:
        column.name = chance.choice(sorted(table.dropped))
        table.dropped.remove(column.name)
    default = chance.choice(["", "", " DEFAULT {}", " DEFAULT {}"])
    table.columns.append(column)
    expression = default.format(value(column, chance))
    added = f"ALTER TABLE {table.sql} ADD COLUMN {_definition(column)}{expression}"
    if default and chance.random() < 0.5:
        return [added, f"ALTER TABLE {table.sql} ALTER {column.name} DROP DEFAULT"]
    return [added, *_stored_apart(table, [column])]


def _add_generated(world: World, chance: random.Random) -> list[str] | None:
    plain = [t for t in world.tables if t.key and not any(c.generated for c in t.columns)]
    if not plain:
        return None
    table = chance.choice(plain)
    column = Column(world.name("gen"), "integer", generated=True)
    table.columns.append(column)
    return [
        (
            f"ALTER TABLE {table.sql} ADD COLUMN {column.name} integer "
            f"GENERATED ALWAYS AS (({table.key[0]} % 1000) * 2) STORED"
        )
    ]


def _drop_column(world: World, chance: random.Random) -> list[str] | None:
    table = chance.choice(world.tables)
    droppable = [c for c in table.columns if not c.fixed]
    if len(droppable) < 2:
        return None
    column = chance.choice(droppable)
    table.columns.remove(column)
    # A run that saw neither keeps it by the name that it had before it was renamed and dropped.
    table.dropped |= {column.name, *column.former} - {c.name for c in table.columns}
    return [f"ALTER TABLE {table.sql} DROP COLUMN {column.name}"]


def _rename_column(world: World, chance: random.Random) -> list[str] | None:
    table = chance.choice(world.tables)
    column = chance.choice(table.columns)
    new = world.name("c")
    if table.dropped and chance.random() < 0.3:
        new = chance.choice(sorted(table.dropped))
        table.dropped.remove(new)
    done = [f"ALTER TABLE {table.sql} RENAME COLUMN {column.name} TO {new}"]
    table.key = [new if name == column.name else name for name in table.key]
    column.former.add(column.name)
    column.name = new
    return done


def _swap_columns(world: World, chance: random.Random) -> list[str] | None:
    table = chance.choice(world.tables)
    if len(table.written) < 2:
        return None
    one, two = chance.sample(table.written, 2)
    spare = world.name("c")
    renames = [(one.name, spare), (two.name, one.name), (spare, two.name)]
    one.name, two.name = two.name, one.name
    for column in (one, two):
        column.former |= {one.name, two.name}
    return [f"ALTER TABLE {table.sql} RENAME COLUMN {old} TO {new}" for old, new in renames]


def _widen(world: World, chance: random.Random) -> list[str] | None:
    return _retype(world, chance, {old: (new, "{}") for old, new in WIDER.items()})


def _other_type(world: World, chance: random.Random) -> list[str] | None:
    return _retype(world, chance, OTHER)


def _retype(
    world: World, chance: random.Random, types: dict[str, tuple[str, str]]
) -> list[str] | None:
    table = chance.choice(world.tables)
    open_to = [c for c in table.written if c.type in types]
    if not open_to:
        return None
    column = chance.choice(open_to)
    column.type, expression = types[column.type]
    using = "" if expression == "{}" else f" USING {expression.format(column.name)}"
    return [
        f"ALTER TABLE {table.sql} ALTER {column.name} DROP DEFAULT",
        f"ALTER TABLE {table.sql} ALTER {column.name} TYPE {column.type}{using}",
    ]


def _drop_key(world: World, chance: random.Random) -> list[str] | None:
    keyed = [
        t
        for t in world.ordinary()
        if t.key and t.constraint and not t.by_index and not any(c.generated for c in t.columns)
    ]
    if not keyed:
        return None
    table = chance.choice(keyed)
    old, table.constraint = table.constraint, ""
    for name in table.key:
        table.column(name).fixed = False
    done = [
        f"ALTER TABLE {table.sql} DROP CONSTRAINT {old}",
        f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL",
    ]
    done += [f"ALTER TABLE {table.sql} ALTER {name} DROP NOT NULL" for name in table.key]
    table.key = []
    return done


def _add_key(world: World, chance: random.Random) -> list[str] | None:
    keyless = [t for t in world.tables if not t.key]
    if not keyless:
        return None
    table = chance.choice(keyless)
    key, table.constraint = Column(world.name("k"), "bigint", fixed=True), world.name("pk")
    table.columns.append(key)
    table.key = [key.name]
    done = [
        (
            f"ALTER TABLE {table.sql} ADD COLUMN {key.name} bigserial "
            f"CONSTRAINT {table.constraint} PRIMARY KEY"
        )
    ]
    if chance.random() < 0.5:
        done.append(f"ALTER TABLE {table.sql} REPLICA IDENTITY DEFAULT")
    return done


def _identity(world: World, chance: random.Random) -> list[str] | None:
    keyed = [t for t in world.ordinary() if t.key]
    if not keyed:
        return None
    table = chance.choice(keyed)
    if any(c.name == "alt" for c in table.columns):
        table.by_index = False
        return [f"ALTER TABLE {table.sql} REPLICA IDENTITY {chance.choice(['DEFAULT', 'FULL'])}"]
    if chance.random() < 0.5:
        return [f"ALTER TABLE {table.sql} REPLICA IDENTITY {chance.choice(['DEFAULT', 'FULL'])}"]
    table.columns.append(Column("alt", "bigint", fixed=True))
    table.by_index = True
    index = world.name("alt")
    return [
        f"ALTER TABLE {table.sql} ADD COLUMN alt bigserial",
        f"CREATE UNIQUE INDEX {index} ON {table.sql} (alt)",
        f"ALTER TABLE {table.sql} REPLICA IDENTITY USING INDEX {index}",
    ]


def _partitions(world: World, chance: random.Random) -> list[str] | None:
    table = next(world.partitioned(), None)
    if table is None or table.partitions is None:
        return None
    free = [region for region in REGIONS if region not in table.partitions.values()]
    kind = chance.random()
    if free and kind < 0.25:
        return _new_partition(world, table, chance.choice(free))
    if free and kind < 0.6:
        return _attach(world, table, chance.choice(free), chance)
    if not table.partitions:
        return None
    name = chance.choice(sorted(table.partitions))
    if kind < 0.7:
        return [f"TRUNCATE {name}"]
    del table.partitions[name]
    if kind < 0.85 or len(world.tables) >= MOST_TABLES:
        return [f"DROP TABLE {name}"]
    alone = deepcopy(table)
    alone.name, alone.partitions, alone.constraint = name, None, ""
    alone.dropped = set()
    world.tables.append(alone)
    return [f"ALTER TABLE {table.sql} DETACH PARTITION {name}"]


def _attach(world: World, table: Table, region: str, chance: random.Random) -> list[str]:
    assert table.partitions is not None
    shape = {(c.name, c.type, c.generated) for c in table.columns}
    alone = [
        t
        for t in world.ordinary()
        if t.schema == "public"
        and {(c.name, c.type, c.generated) for c in t.columns} == shape
        and {*t.key} == {*table.key}
    ]
    area = next(c.name for c in table.columns if c.fixed and c.type == "text")
    if alone:
        former = chance.choice(alone)
        world.tables.remove(former)
        name = former.name
        prepared = [f"DELETE FROM {name} WHERE {area} <> '{region}'"]
    else:
        name = world.name("part")
        listed = {area: f"'{region}'", table.key[0]: "g"}
        listed |= {c.name: value(c, chance) for c in table.written}
        prepared = [
            f"CREATE TABLE {name} (LIKE {table.sql} INCLUDING GENERATED INCLUDING STORAGE)",
            (
                f"INSERT INTO {name} ({', '.join(listed)}) SELECT {', '.join(listed.values())} "
                f"FROM generate_series(1, {chance.choice([0, 3, 50])}) AS g"
            ),
        ]
    table.partitions[name] = region
    return [
        *prepared,
        f"ALTER TABLE {table.sql} ATTACH PARTITION {name} FOR VALUES IN ('{region}')",
    ]


def _nothing_much(world: World, chance: random.Random) -> list[str] | None:
    """Writes the catalog, changes no row."""
    table = chance.choice(world.tables)
    column = chance.choice(table.columns)
    if chance.random() < 0.3:
        return [f"ANALYZE {table.sql}"]
    return [f"ALTER TABLE {table.sql} ALTER {column.name} SET STATISTICS {chance.randrange(99)}"]


_WEIGHTED: tuple[tuple[int, Action], ...] = (
    (6, _add_column),
    (2, _add_generated),
    (4, _drop_column),
    (5, _rename_column),
    (1, _swap_columns),
    (6, _widen),
    (4, _other_type),
    (2, _drop_key),
    (2, _add_key),
    (3, _identity),
    (4, _new_table),
    (2, _drop_table),
    (2, _recreate),
    (1, _copy_and_replace),
    (1, _take_name),
    (2, _unpublish),
    (3, _rename_table),
    (1, _swap_tables),
    (2, _move_to_schema),
    (6, _partitions),
    (3, _nothing_much),
)
_WEIGHTS = [weight for weight, _ in _WEIGHTED]
_ACTIONS = [action for _, action in _WEIGHTED]
