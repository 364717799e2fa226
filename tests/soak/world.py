"""What the soak knows of its tables without asking: names, columns and keys, by its own statements.

Only statements that are sure to succeed change it, so that the seed alone tells what is to come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    Value = Callable[[random.Random], str]


def _text(chance: random.Random) -> str:
    short = ["''", "'ä 🐘'", "E'x\\ty\\n'", "'it''s'", "'\\N'"]
    long = f"repeat('{chance.randrange(10**6):06}', {chance.choice([400, 900])})"
    return chance.choice([*short, long])


def _word(chance: random.Random) -> str:
    return chance.choice(["''", "'ß'", "'twenty letters long.'", f"'{chance.randrange(99)}'"])


#: A random SQL expression for each type.
VALUES: dict[str, Value] = {
    "smallint": lambda chance: str(chance.randrange(-300, 300)),
    "integer": lambda chance: str(chance.choice([chance.randrange(999), 2**31 - 1])),
    "bigint": lambda chance: str(chance.choice([chance.randrange(999), -(2**63) + 1])),
    "numeric(10,2)": lambda chance: chance.choice(["1.50", "-99999999.99", "'NaN'", "7"]),
    "numeric(14,2)": lambda chance: chance.choice(["0.01", "-99999999999.99", "'NaN'"]),
    "numeric": lambda chance: chance.choice(["1.10", "1e40", "'NaN'", "'-Infinity'", "0.00"]),
    "varchar(20)": _word,
    "varchar(60)": _word,
    "text": _text,
    "boolean": lambda chance: chance.choice(["true", "false"]),
    "real": lambda chance: chance.choice(["0.1", "'NaN'", "1e30", "'-0'"]),
    "double precision": lambda chance: chance.choice(["0.1", "'Infinity'", "1e300", "'-0'"]),
    "date": lambda chance: chance.choice(["'2020-02-29'", "'infinity'", "'0044-03-15 BC'"]),
    "timestamp": lambda chance: chance.choice(["localtimestamp", "'-infinity'", "'1999-01-01'"]),
    "timestamptz": lambda chance: chance.choice(["now()", "'infinity'", "'1970-01-01 00:00Z'"]),
    "jsonb": lambda chance: chance.choice(["'{\"a\": [1, null]}'", "'null'", "'\"ü\"'"]),
    "bytea": lambda chance: chance.choice(["'\\x'", "'\\x00ff'"]),
    "integer[]": lambda chance: chance.choice(["'{}'", "'{1,NULL,3}'", "'{{1},{2}}'"]),
    "uuid": lambda chance: f"md5('{chance.randrange(99)}')::uuid",
    "interval": lambda chance: chance.choice(["'1 day 2:03'", "'-1 mon'"]),
    "mood": lambda chance: chance.choice(["'sad'", "'happy'"]),
}

#: Changes of a type that the stream can follow; the contract promises those of integer and varchar.
WIDER = {
    "smallint": "integer",
    "integer": "bigint",
    "varchar(20)": "varchar(60)",
    "varchar(60)": "text",
    "numeric(10,2)": "numeric(14,2)",
    "real": "double precision",
}

#: Changes of a type that read the table again: the new type, and the expression that never fails.
OTHER = {
    "smallint": ("text", "{}::text"),
    "integer": ("text", "{}::text"),
    "bigint": ("integer", "({} % 1000)::integer"),
    "numeric(10,2)": ("numeric", "{}"),
    "numeric(14,2)": ("text", "{}::text"),
    "varchar(60)": ("varchar(20)", "left({}, 20)"),
    "varchar(20)": ("bytea", "convert_to({}, 'UTF8')"),
    "text": ("varchar(60)", "left({}, 60)"),
    "boolean": ("integer", "{}::integer"),
    "date": ("text", "{}::text"),
    "timestamp": ("timestamptz", "{} AT TIME ZONE 'UTC'"),
    "timestamptz": ("timestamp", "{} AT TIME ZONE 'UTC'"),
    "jsonb": ("text", "{}::text"),
    "bytea": ("text", "encode({}, 'hex')"),
    "integer[]": ("text", "{}::text"),
    "uuid": ("text", "{}::text"),
    "mood": ("text", "{}::text"),
}


@dataclass
class Column:
    """`fixed` columns are keys of something: written by their own statements, kept for ever.

    `former` are the names it had in this round.
    """

    name: str
    type: str
    fixed: bool = False
    generated: bool = False
    former: set[str] = field(default_factory=set)


@dataclass
class Table:
    """`key` are the names of the primary key's columns, empty for a keyless table.

    `by_index`: the replica identity is a unique index on the column `alt`. `partitions`: region of
    each, by name, of a partitioned table.
    """

    schema: str
    name: str
    columns: list[Column]
    key: list[str]
    constraint: str = ""
    partitions: dict[str, str] | None = None
    by_index: bool = False
    #: Names that a column had that was dropped.
    dropped: set[str] = field(default_factory=set)

    @property
    def sql(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def target(self) -> str:
        return self.name if self.schema == "public" else f"{self.schema}__{self.name}"

    @property
    def written(self) -> list[Column]:
        """Columns that statements give values to, the fixed ones left out."""
        return [c for c in self.columns if not c.fixed and not c.generated]

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)


@dataclass
class World:
    """Every table, in the order of their making."""

    tables: list[Table] = field(default_factory=list)
    _names: int = 0

    def name(self, prefix: str) -> str:
        """A name that was never used."""
        self._names += 1
        return f"{prefix}_{self._names}"

    def ordinary(self) -> list[Table]:
        return [table for table in self.tables if table.partitions is None]

    def partitioned(self) -> Iterator[Table]:
        return (table for table in self.tables if table.partitions is not None)


def value(column: Column, chance: random.Random) -> str:
    if chance.random() < 0.15:
        return "NULL"
    return VALUES[column.type](chance)
