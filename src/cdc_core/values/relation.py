"""Tables as the source knows them: names, columns, replica identity.

A table is the user's object. A `Relation` describes it at one moment, and comes from the catalog or
a Relation message. Column types are Arrow's; the source adapter maps PostgreSQL types to them.

Source: PostgreSQL manual, "Logical Replication Message Formats", `pg_class`, `pg_attribute`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from glob import escape
from typing import TYPE_CHECKING, Literal

from cdc_core.values.table_rules import ColumnRule

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from cdc_core.values.table_rules import ColumnRules


class ReplicaIdentity(Enum):
    """`pg_class.relreplident`: which old columns an UPDATE or DELETE carries."""

    DEFAULT = "d"
    NOTHING = "n"
    FULL = "f"
    INDEX = "i"


@dataclass(frozen=True, order=True)
class TableName:
    """A schema-qualified name, as stored in the catalog (unquoted, case kept)."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    def matches(self, globs: Iterable[str]) -> bool:
        """Whether any glob matches `schema.table`, or the bare table for a glob without a dot."""
        return any(fnmatchcase(str(self) if "." in g else self.name, g) for g in globs)


def tables_option(tables: Iterable[str]) -> str:
    """The option of the command line that names exactly these tables (`schema.table`), for a shell:
    a name may have a space in it, or what a glob takes for a pattern."""
    return f"--tables {shlex.join(escape(table) for table in sorted(tables))}"


@dataclass(frozen=True)
class Column:
    """One column.

    `attnum` is PostgreSQL's column number; 0 if it is not known (a Relation message does not
    contain it). `pg_type` is the type as `format_type` prints it. `arrow_type` is the type of
    decoded values. `has_default`: the column has a default (a constant, an expression, identity),
    or had one when it was added, so that older rows may have a value. A relation does not contain
    generated columns that the stream omits.

    `rule` says how its values are read and stored; `arrow_type` is then the type of what is stored.
    `logical` is what its text means to a destination with a type for it, `element_type` the type of
    an array's elements there.
    """

    name: str
    arrow_type: pa.DataType
    type_oid: int
    typmod: int = -1
    attnum: int = 0
    pg_type: str = ""
    has_default: bool = False
    rule: ColumnRule = ColumnRule.KEEP
    logical: Literal["json"] | None = None
    element_type: pa.DataType | None = None


@dataclass(frozen=True)
class Relation:
    """A table's shape at one moment.

    `key` names the columns that identify a row in the stream, in column order: the replica
    identity's
    columns, or the primary key where the identity is FULL; empty where no column set does (rows are
    then a multiset).
    """

    oid: int
    table: TableName
    columns: tuple[Column, ...]
    identity: ReplicaIdentity
    key: tuple[str, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def columns_read(self) -> tuple[Column, ...]:
        """The columns whose values are read."""
        return tuple(column for column in self.columns if column.rule.is_read)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def under(self, rules: ColumnRules) -> Relation:
        """Return this relation with these rules for its columns, whose values are read so."""
        return replace(self, columns=tuple(_under(c, rules) for c in self.columns))

    @property
    def publishes_updates(self) -> bool:
        """Whether PostgreSQL accepts UPDATE and DELETE once the table is published."""
        match self.identity:
            case ReplicaIdentity.FULL:
                return True
            case ReplicaIdentity.DEFAULT | ReplicaIdentity.INDEX:
                return bool(self.key)
            case ReplicaIdentity.NOTHING:
                return False


def _under(column: Column, rules: ColumnRules) -> Column:
    rule = rules.get(column.name, ColumnRule.KEEP)
    arrow_type = column.arrow_type
    if rule is ColumnRule.KEEP:
        return column if column.rule is rule else replace(column, rule=rule)
    import pyarrow as pa  # here, because messages of `--help` need this module

    if rule.reads_text:
        arrow_type = pa.string()
    elif rule is ColumnRule.ARRAY and column.element_type is not None:
        arrow_type = pa.list_(column.element_type)
    return replace(column, rule=rule, arrow_type=arrow_type)
