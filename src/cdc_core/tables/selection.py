"""Which of the tables found a command applies to."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from cdc_core.ports.catalog import Reason
from cdc_core.tables.history_conflicts import history_conflicts
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cdc_core.ports.catalog import Schemas, SourceTable
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.errors import CdcError
    from cdc_core.values.relation import TableName

#: Tables that dlt created, in a database that was once a destination.
DLT_PREFIX = "_dlt"

#: An error lists up to this many schemas to choose from.
_NAMED = 20


def require_schemas(
    schemas: Schemas,
    states: Mapping[int, TableState],
    names: Callable[[Collection[int]], Mapping[int, TableName]],
) -> None:
    """Raise `SettingsError` if a chosen schema does not exist; `names` returns table names by oid.

    A schema that was dropped is no error: the checkpoint knows its tables, and they are followed
    like any dropped table. A schema that was renamed still has them.
    """
    absent = [name for name in schemas.chosen if name not in schemas.there]
    if not absent:
        return
    known = {oid: s.table.schema for oid, s in states.items() if s.table.schema in absent}
    now = names(known)
    for name in absent:
        oids = [oid for oid, schema in known.items() if schema == name]
        elsewhere = {now[oid].schema for oid in oids if oid in now} - {*schemas.chosen}
        if len(elsewhere) == 1:
            (new,) = elsewhere
            wanted = [new if each == name else each for each in schemas.chosen]
            raise SettingsError(
                f"sources.pg_replication.schemas names {name!r}, which was renamed to {new!r}",
                f"set sources.pg_replication.schemas = {json.dumps(wanted, ensure_ascii=False)}; "
                "its tables are then followed further, without being read again",
            )
        if not oids:
            there = ", ".join(schemas.there[:_NAMED]) or "none"
            more = ", …" if len(schemas.there) > _NAMED else ""
            unknown = [each for each in absent if each not in known.values()]
            raise SettingsError(
                f"sources.pg_replication.schemas names {', '.join(map(repr, unknown))}, which the "
                "source does not have",
                f"it has these schemas: {there}{more}",
            )


def left_out(
    table: TableName, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> Reason | None:
    """Return why a table is passed over; None if it is not."""
    if table.name.startswith(DLT_PREFIX):
        return Reason.RESERVED
    if not table.matches(include) or table.matches(exclude):
        return Reason.EXCLUDED
    return None


def choose_tables(found: Sequence[SourceTable], globs: Sequence[str]) -> list[SourceTable]:
    """Return the tables that match the globs; all tables without globs.

    Raises `SettingsError` for a glob that matches none.
    """
    vain = [glob for glob in globs if not any(t.relation.table.matches((glob,)) for t in found)]
    if vain:
        raise SettingsError(
            f"--tables {shlex.join(vain)} matches none of the {len(found)} tables found",
            "globs match schema.table, or the bare name; pgbronze check lists the tables",
        )
    return [table for table in found if not globs or table.relation.table.matches(globs)]


def refused_tables(
    found: Sequence[SourceTable], targets: Mapping[int, str], states: Mapping[int, TableState]
) -> dict[int, CdcError]:
    """Return the tables that cannot be read, by oid, each with the reason. Arguments as in
    `history_conflicts`."""
    refused = {table.relation.oid: table.refused for table in found if table.refused}
    return {**refused, **history_conflicts(found, targets, states)}
