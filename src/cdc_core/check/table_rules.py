"""Rules of `check` for tables: privileges, streaming, names and types; facts in, findings out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.check.findings import Finding, fail, fine_table, ok, warn
from cdc_core.check.source_rules import quote, too_many_locks
from cdc_core.ports.catalog import Reason
from cdc_core.tables.history_conflicts import history_conflicts
from cdc_core.tables.losses import is_wide_numeric, names_other_objects
from cdc_core.tables.target_names import target_names
from cdc_core.values.errors import CdcError, OperatorNeeded
from cdc_core.values.naming import ANY_DESTINATION, TableNaming, map_columns, natural_name
from cdc_core.values.relation import tables_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cdc_core.ports.catalog import PassedOver, SourceTable
    from cdc_core.ports.source_inspector import SourceFacts, TableFacts
    from cdc_core.tables.table_rules import RuleSet
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.relation import TableName

    _Rights = Callable[[SourceTable, TableFacts, SourceFacts], Iterator[Finding]]

#: The first version (`server_version_num`) that can publish generated columns.
SENDS_GENERATED = 180_000

#: Separates sentence and cure in `SourceTable.not_streamed`.
_RUN = "; run: "

#: Types whose text contains the current names of other objects. Manual: "Object Identifier Types".
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
    """Yield at least one finding per table, in their order; `states` come from the checkpoint."""
    if not tables:
        yield warn(
            "tables",
            "none found: there is nothing to replicate yet",
            "set sources.pg_replication.schemas, include and exclude so that they match tables",
        )
    yield from _unpublished(tables, facts)
    names = {table.relation.oid: table.relation.table for table in tables}
    targets = target_names(names, states, first_schema, naming)
    conflicts = history_conflicts(tables, targets, states)
    for table in tables:
        name = table.relation.table
        target = targets[table.relation.oid]
        known = facts.tables.get(table.relation.oid)
        found = [*(_rights(table, known, facts) if known else ()), *_shape(table)]
        found += _name(name, target, first_schema)
        if conflict := conflicts.get(table.relation.oid):
            found.append(fail(str(name), conflict.what, conflict.cure))
        if known:
            found += _left_out(name, known, facts)
            found += _locks(name, known, facts)
        yield from found or [fine_table(str(name), _streams(table, target))]


def qualified(table: TableName) -> str:
    return f"{quote(table.schema)}.{quote(table.name)}"


def _streams(table: SourceTable, target: str) -> str:
    key = ", ".join(table.relation.key)
    how = f"by key ({key})" if key else "without key, as a multiset of rows"
    return f"streams {how}, to {target}"


def read_refusals(tables: Iterable[SourceTable], facts: SourceFacts) -> dict[int, CdcError]:
    """Return the errors of the tables that the role may not read, by oid."""
    return _errors(tables, facts, _read_rights)


def publish_refusals(tables: Iterable[SourceTable], facts: SourceFacts) -> dict[int, CdcError]:
    """Return the errors of the tables that the role may not publish, by oid."""
    return _errors(tables, facts, _publish_rights)


def _errors(
    tables: Iterable[SourceTable], facts: SourceFacts, rights: _Rights
) -> dict[int, CdcError]:
    found: dict[int, CdcError] = {}
    for table in tables:
        known = facts.tables.get(table.relation.oid)
        for finding in rights(table, known, facts) if known else ():
            error = OperatorNeeded(finding.sentence, finding.cure)
            found.setdefault(table.relation.oid, error)
    return found


def _rights(table: SourceTable, known: TableFacts, facts: SourceFacts) -> Iterator[Finding]:
    yield from _read_rights(table, known, facts)
    if facts.publication.exists:  # else all tables share one finding
        yield from _publish_rights(table, known, facts)


def _read_rights(table: SourceTable, known: TableFacts, facts: SourceFacts) -> Iterator[Finding]:
    name = table.relation.table
    role = quote(facts.role.name)
    if not known.schema_usage:
        yield fail(
            str(name),
            f"the role {facts.role.name} has no USAGE privilege on its schema",
            f"GRANT USAGE ON SCHEMA {quote(name.schema)} TO {role}",
        )
    if not known.select:
        yield fail(
            str(name),
            f"the role {facts.role.name} has no SELECT privilege on it",
            f"GRANT SELECT ON {qualified(name)} TO {role}",
        )
    if known.hidden_rows:
        yield fail(
            str(name),
            f"row level security hides rows from the role {facts.role.name}",
            f"ALTER ROLE {role} BYPASSRLS",
        )


def _publish_rights(
    table: SourceTable,
    known: TableFacts,  # noqa: ARG001 - as `_read_rights`
    facts: SourceFacts,
) -> Iterator[Finding]:
    if _not_ours_to_publish(table, facts):
        name = table.relation.table
        yield fail(
            str(name),
            f"the role {facts.role.name} does not own it, so it cannot publish it",
            f"ALTER PUBLICATION {quote(facts.publication.name)} ADD TABLE ONLY {qualified(name)}",
        )


def _unpublished(tables: Sequence[SourceTable], facts: SourceFacts) -> Iterator[Finding]:
    """Yield one statement for all tables of other roles, if there is no publication yet."""
    publication = facts.publication
    names = [str(table.relation.table) for table in tables if _not_ours_to_publish(table, facts)]
    if names and not publication.exists and facts.role.create_publications:
        yield fail(
            f"publication {publication.name}",
            f"the role {facts.role.name} cannot create it, as it does not own {', '.join(names)} "
            "(their owner may)",
            publication.statement,
        )


def _not_ours_to_publish(table: SourceTable, facts: SourceFacts) -> bool:
    known = facts.tables.get(table.relation.oid)
    if known is None or table.published or known.owner or table.not_streamed:
        return False
    return not facts.standby  # a standby publishes nothing, whoever owns the table


def passed_over_findings(passed_over: Sequence[PassedOver]) -> Iterator[Finding]:
    """Yield one line per reason for tables that no run reads. Tables with dlt's names get a line
    each, because somebody may miss one of them."""
    names: dict[Reason, list[str]] = {}
    for one in passed_over:
        if one.reason is Reason.RESERVED:
            yield warn(
                str(one.table),
                f"passed over: {one.reason.value}",
                "none needed if dlt created it; to replicate it, rename it",
            )
        else:
            names.setdefault(one.reason, []).append(str(one.table))
    for reason, found in names.items():
        yield ok("passed over", f"{reason.value}: {', '.join(found)}")


def rules_findings(rules: RuleSet, tables: Sequence[SourceTable]) -> Iterator[Finding]:
    """A glob of the settings' rules that matches no table has no effect yet."""
    for rule, glob in rules.unmatched(table.relation.table for table in tables):
        yield warn(
            rule,
            f"no table matches {glob!r} yet",
            "none needed if such a table will be created; otherwise correct the glob",
        )


def _shape(table: SourceTable) -> Iterator[Finding]:
    name = str(table.relation.table)
    if table.not_streamed:
        sentence, _, cure = table.not_streamed.partition(_RUN)
        cure = cure or f"to update it: pgbronze snapshot {tables_option([name])}"
        yield warn(
            name, f"not streamed, so it equals the source only after a snapshot: {sentence}", cure
        )
    names = map_columns(table.relation.column_names)
    renamed = [f"{old} becomes {new}" for old, new in names.items() if old != new]
    if renamed:
        yield warn(
            name,
            f"column names that the destination cannot hold: {'; '.join(renamed)}",
            "none needed: these names are kept from now on",
        )
    as_text = [column for column in table.relation.columns if is_wide_numeric(column)]
    if as_text:
        columns = ", ".join(f"{c.name} {c.pg_type}" for c in as_text)
        yield warn(
            name,
            f"stored as STRING, because no DECIMAL holds every digit: {columns}",
            "none needed; if you want numbers, cast it in a view at the destination",
        )
    of_others = [column for column in table.relation.columns if names_other_objects(column)]
    if of_others:
        columns = ", ".join(f"{c.name} {c.pg_type}" for c in of_others)
        yield warn(
            name,
            f"their text changes without an event when the object they name is renamed: {columns}",
            f"none needed; after a rename: pgbronze verify {tables_option([name])} --repair",
        )


def _name(table: TableName, target: str, first_schema: str) -> Iterator[Finding]:
    wanted = natural_name(table, first_schema)
    if target != wanted:
        yield warn(
            str(table),
            f"the destination cannot use the name {wanted}: the table becomes {target}",
            "none needed: this name is kept from now on",
        )


def _locks(table: TableName, known: TableFacts, facts: SourceFacts) -> Iterator[Finding]:
    if known.select and too_many_locks(facts, known.relations_locked):
        role = quote(facts.role.name)
        yield warn(
            str(table),
            f"each read of it locks {known.relations_locked} relations at a time, because the role "
            f"{facts.role.name} can read its partitions only through it",
            f"GRANT SELECT ON each of its partitions TO {role}, so that each is read separately",
        )


def _left_out(table: TableName, known: TableFacts, facts: SourceFacts) -> Iterator[Finding]:
    publication = facts.publication.name
    if known.row_filter:
        yield warn(
            str(table),
            f"publication {publication} has a row filter, which applies to the snapshot too: "
            f"WHERE {known.row_filter}",
            "none needed if that is intended",
        )
    if known.unlisted_columns:
        yield warn(
            str(table),
            f"publication {publication} has a column list that leaves out: "
            + ", ".join(known.unlisted_columns),
            "none needed if that is intended",
        )
    stored = [name for name in known.generated_columns if name not in known.virtual_columns]
    if stored:
        sends = facts.version >= SENDS_GENERATED and facts.publication.exists
        yield warn(
            str(table),
            "generated columns are not sent, so the destination does not have them: "
            + ", ".join(stored),
            f"ALTER PUBLICATION {quote(publication)} SET (publish_generated_columns = stored)"
            if sends
            else "none needed (PostgreSQL 18 can send stored ones); compute them in a view at the "
            "destination",
        )
    if known.virtual_columns:
        yield warn(
            str(table),
            "virtual generated columns are never sent, so the destination does not have them: "
            + ", ".join(known.virtual_columns),
            "none needed; compute them in a view at the destination",
        )
