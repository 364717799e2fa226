"""How source names become destination names: kept where possible, never merged.

The same names in the same order give the same mapping. Two names that differ at the source differ
at the destination, even if it ignores case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cdc_core.values.history import BASE_COLUMN, END_LSN_COLUMN
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    DELETED_AT_COLUMN,
    LSN_COLUMN,
    OP_COLUMN,
    REF_COLUMN,
    UNCHANGED_COLUMN,
    UNREPRESENTABLE_TABLE,
)
from cdc_core.values.runs import RUN_TABLES_TABLE, RUNS_TABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Sequence

    from cdc_core.values.relation import TableName

    Key = TypeVar("Key", bound=Hashable)

#: Columns that a merge computes. All begin with `_cdc_`.
MERGE_COLUMNS = tuple(
    f"_cdc_{name}"
    for name in (
        "after", "applied_lsn", "base_of", "before", "change", "copy", "copy_number", "has_events",
        "hop_of", "hop_rank", "last_committed_at", "last_lsn", "last_steps", "live", "new_count",
        "next_at", "next_lsn", "rank", "removal", "side", "state", "there",
    )
)  # fmt: skip
#: Names that a table's own columns must not have.
RESERVED_COLUMNS = (
    LSN_COLUMN,
    COMMITTED_AT_COLUMN,
    OP_COLUMN,
    UNCHANGED_COLUMN,
    REF_COLUMN,
    DELETED_AT_COLUMN,
    END_LSN_COLUMN,
    BASE_COLUMN,
    *MERGE_COLUMNS,
)
RESERVED_TABLES = (UNREPRESENTABLE_TABLE, RUNS_TABLE, RUN_TABLES_TABLE)

#: Table names are used as folder and file names: no path separators, no dots.
FORBIDDEN_IN_TABLES = "./\\\0"
FORBIDDEN_IN_COLUMNS = "\0"


@dataclass(frozen=True)
class TableNaming:
    """Characters and names that a kind of destination does not accept for a table."""

    forbidden: str = FORBIDDEN_IN_TABLES
    reserved: tuple[str, ...] = RESERVED_TABLES


ANY_DESTINATION = TableNaming()


def map_names(
    names: Iterable[str], reserved: Collection[str] = (), forbidden: str = ""
) -> dict[str, str]:
    """Return the destination name of each name, in the order of the names.

    A name stays if possible. Forbidden characters become `_`. A name that clashes with a reserved
    name or another name (ignoring case) gets `_2`, `_3`, ... A name that needs no change always
    keeps it.
    """
    return _assign([(name, name) for name in dict.fromkeys(names)], reserved, forbidden)


def map_columns(
    names: Iterable[str],
    reserved: Collection[str] = RESERVED_COLUMNS,
    forbidden: str = FORBIDDEN_IN_COLUMNS,
) -> dict[str, str]:
    """Return the destination column of each column of a table."""
    return map_names(names, reserved, forbidden)


def map_tables(
    tables: Iterable[TableName],
    first_schema: str,
    reserved: Collection[str] = RESERVED_TABLES,
    forbidden: str = FORBIDDEN_IN_TABLES,
) -> dict[TableName, str]:
    """Return the destination table of each table: its bare name in `first_schema`, otherwise
    `<schema>__<table>`.

    If two tables want the same name (`a__b` of the first schema, `b` of schema `a`), the bare name
    wins.
    """
    tables = list(dict.fromkeys(tables))
    # Tables of the first schema first.
    tables_in_turn = sorted(tables, key=lambda table: table.schema != first_schema)
    wanted = [(table, _shown(natural_name(table, first_schema))) for table in tables_in_turn]
    mapping = _assign(wanted, reserved, forbidden)
    return {table: mapping[table] for table in tables}


def natural_name(table: TableName, first_schema: str) -> str:
    """Return the table's name at a destination that accepts every name."""
    return table.name if table.schema == first_schema else f"{table.schema}__{table.name}"


def is_name_of(
    target: str, table: TableName, first_schema: str, naming: TableNaming = ANY_DESTINATION
) -> bool:
    """Whether the target is the table's natural name, or that name made valid or distinct.

    A name given before it was known to be invalid counts too.
    """
    natural = _shown(natural_name(table, first_schema))
    names = (_possible(natural, f) for f in (naming.forbidden, FORBIDDEN_IN_TABLES))
    return any(re.fullmatch(re.escape(name) + r"(_\d+)?", target) for name in names)


def _possible(name: str, forbidden: str) -> str:
    return name.translate({ord(character): "_" for character in forbidden})


def _shown(table: str) -> str:
    """Return a name unlike those of dlt's own tables, which readers are not shown."""
    return f"_{table}" if table.casefold().startswith("_dlt") else table


def _assign(
    wanted: Sequence[tuple[Key, str]], reserved: Collection[str], forbidden: str
) -> dict[Key, str]:
    taken = {name.casefold() for name in reserved}
    kept: dict[Key, str] = {}
    for key, name in wanted:
        if name == _possible(name, forbidden) and name.casefold() not in taken:
            kept[key] = name
            taken.add(name.casefold())
    mapping: dict[Key, str] = {}
    for key, name in wanted:
        possible, number = _possible(name, forbidden), 1
        candidate = kept.get(key, possible)
        while key not in kept and candidate.casefold() in taken:
            number += 1
            candidate = f"{possible}_{number}"
        taken.add(candidate.casefold())
        mapping[key] = candidate
    return mapping
