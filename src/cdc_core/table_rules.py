"""What would go wrong with a table: rights, streaming, names and types; facts in, findings out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.findings import Finding, fail, ok, warn
from cdc_core.naming import ANY_DESTINATION, TableNaming, map_columns, natural_name
from cdc_core.source_rules import quote
from cdc_core.target_names import target_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdc_core.checkpoint import TableState
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.source_inspector import SourceFacts, TableFacts
    from cdc_core.relation import Column, TableName

#: What separates sentence and cure in `SourceTable.not_streamed`.
_RUN = "; run: "

#: Types whose text names other objects as they are called now. Manual: "Object Identifier Types".
_NAMES_OF_OTHERS = frozenset({
    "aclitem", "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper",
    "regoperator", "regproc", "regprocedure", "regrole", "regtype",
})  # fmt: skip


def tables_findings(
    tables: Sequence[SourceTable],
    facts: SourceFacts,
    first_schema: str,
    states: Mapping[int, TableState],
    naming: TableNaming = ANY_DESTINATION,
) -> Iterator[Finding]:
    """At least one finding a table, in their order; `states` are what the checkpoint knows."""
    if not tables:
        yield fail(
            "tables",
            "none found",
            "set sources.pg_replication.schemas, include and exclude so that tables are chosen",
        )
    names = {table.relation.oid: table.relation.table for table in tables}
    targets = target_names(names, states, first_schema, naming)
    for table in tables:
        name = table.relation.table
        target = targets[table.relation.oid]
        known = facts.tables.get(table.relation.oid)
        found = [*(_rights(table, known, facts) if known else ()), *_shape(table)]
        found += _name(name, target, first_schema)
        if known:
            found += _left_out(name, known)
        yield from found or [ok(str(name), _streams(table, target))]


def qualified(table: TableName) -> str:
    return f"{quote(table.schema)}.{quote(table.name)}"


def _streams(table: SourceTable, target: str) -> str:
    key = ", ".join(table.relation.key)
    how = f"by key ({key})" if key else "without key, as a multiset of rows"
    return f"streams {how}, to {target}"


def _rights(table: SourceTable, known: TableFacts, facts: SourceFacts) -> Iterator[Finding]:
    name = table.relation.table
    role = quote(facts.role.name)
    if not known.schema_usage:
        yield fail(
            str(name),
            f"the role {facts.role.name} may not use its schema",
            f"GRANT USAGE ON SCHEMA {quote(name.schema)} TO {role}",
        )
    if not known.select:
        yield fail(
            str(name),
            f"the role {facts.role.name} may not read it",
            f"GRANT SELECT ON {qualified(name)} TO {role}",
        )
    if known.hidden_rows:
        yield fail(
            str(name),
            f"row level security hides rows from the role {facts.role.name}",
            f"ALTER ROLE {role} BYPASSRLS",
        )
    # A standby publishes nothing, whoever owns the table.
    if table.published or known.owner or table.not_streamed or facts.standby:
        return
    publication = quote(facts.publication.name)
    statement = (
        f"ALTER PUBLICATION {publication} ADD TABLE {qualified(name)}"
        if facts.publication.exists
        else f"ALTER TABLE {qualified(name)} OWNER TO {role}, or let the owner run: "
        f"CREATE PUBLICATION {publication} FOR TABLE {qualified(name)} "
        "WITH (publish_via_partition_root = true)"
    )
    yield fail(
        str(name),
        f"the role {facts.role.name} does not own it, so it cannot publish it",
        statement,
    )


def _shape(table: SourceTable) -> Iterator[Finding]:
    name = str(table.relation.table)
    if table.not_streamed:
        sentence, _, cure = table.not_streamed.partition(_RUN)
        yield warn(name, f"not streamed, equal after a snapshot only: {sentence}", cure)
    names = map_columns(table.relation.column_names)
    renamed = [f"{old} becomes {new}" for old, new in names.items() if old != new]
    if renamed:
        yield warn(
            name,
            f"column names the destination cannot hold as they are: {'; '.join(renamed)}",
            f"none needed; or ALTER TABLE {qualified(table.relation.table)} RENAME COLUMN ...",
        )
    as_text = [column for column in table.relation.columns if _wide_numeric(column)]
    if as_text:
        columns = ", ".join(f"{c.name} {c.pg_type}" for c in as_text)
        alter = f"ALTER COLUMN {quote(as_text[0].name)} TYPE numeric(38, 10)"
        yield warn(
            name,
            f"kept as STRING, since no DECIMAL holds every digit: {columns}",
            f"none needed; or ALTER TABLE {qualified(table.relation.table)} {alter}",
        )
    of_others = [
        c for c in table.relation.columns if c.pg_type.removesuffix("[]") in _NAMES_OF_OTHERS
    ]
    if of_others:
        columns = ", ".join(f"{c.name} {c.pg_type}" for c in of_others)
        yield warn(
            name,
            f"columns whose text changes without an event if what they name is renamed: {columns}",
            f"none needed; after a rename: wal2delta verify --tables {name} --repair",
        )


def _wide_numeric(column: Column) -> bool:
    return (
        column.pg_type.startswith("numeric")
        and column.arrow_type == pa.string()
        and (not column.pg_type.endswith("[]"))
    )


def _name(table: TableName, target: str, first_schema: str) -> Iterator[Finding]:
    wanted = natural_name(table, first_schema)
    if target != wanted:
        yield warn(
            str(table),
            f"its name cannot be kept as {wanted}: it becomes {target}",
            f"none needed; or ALTER TABLE {qualified(table)} RENAME TO ...",
        )


def _left_out(table: TableName, known: TableFacts) -> Iterator[Finding]:
    if known.generated_columns:
        yield warn(
            str(table),
            "generated columns are not sent and left out of the destination: "
            + ", ".join(known.generated_columns),
            "PostgreSQL 18 sends stored ones (publish_generated_columns = stored); "
            "else compute them in a view of the destination",
        )
