"""A merge as deletes and inserts of one transaction, for DuckDB.

DuckDB's MERGE updates rows in place, which takes seconds for a few hundred rows scattered over
millions. To delete and insert them takes a hundredth of the time, and less memory. The result is
the same as with `merge_sql`, which supplies the parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.dlt_destination.columns import all_fields
from adapters.dlt_destination.sql import history_sql, merge_sql, unrepresentable_sql
from adapters.dlt_destination.table_steps import StagedHistory, StagedMerge, StagedUnrepresentable
from cdc_core.values.merges import (
    DELETE,
    DELETED_AT_COLUMN,
    DELETED_AT_FIELD,
    HOP,
    LSN_COLUMN,
    OP_COLUMN,
    UNCHANGED_COLUMN,
    UNREPRESENTABLE_TABLE,
    KeyedMerge,
    MultisetMerge,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import pyarrow as pa

    from adapters.dlt_destination.sql.dialect import Dialect
    from adapters.dlt_destination.sql.merge_sql import MergeRules
    from cdc_core.values.merges import Replacement

#: Temporary tables: rows that are needed after a delete, keys that stay, and target rows that are
#: updated: DuckDB deletes and inserts them faster than it updates them.
SCRATCH = "_cdc_scratch"
HELD = "_cdc_held"
MARKED = "_cdc_marked"


def statements_of(
    dialect: Dialect,
    step: StagedMerge | StagedHistory | StagedUnrepresentable,
    staged: str,
    relation: Callable[[str], str],
    held: Collection[str],
) -> list[str]:
    """Return the statements of a step. `staged` is the relation of its rows, `relation` gives that
    of a table by its name; `held` are the columns of the step's table, if it exists."""
    match step:
        case StagedMerge(KeyedMerge() as merge):
            target = relation(merge.target.name)
            changes = difference(dialect, merge, staged, relation)
            return [*changes, *keyed(dialect, merge, staged, target)]
        case StagedMerge(MultisetMerge() as merge):
            return multiset(dialect, merge, staged, relation(merge.target.name))
        case StagedHistory(part):
            found = history_sql.step_merge(dialect, part, staged, relation, held)
            return history(dialect, found.rules, found.source, relation(found.name))
        case StagedUnrepresentable():
            return unrepresentable(dialect, staged, relation(UNREPRESENTABLE_TABLE))
    raise AssertionError(step)


def difference(
    dialect: Dialect, step: Replacement | KeyedMerge, rows: str, relation: Callable[[str], str]
) -> list[str]:
    """Return the statements that bring the history of a table to rows that were read."""
    return [
        statement
        for merge in history_sql.difference_merges(dialect, step, rows, relation)
        for statement in history(dialect, merge.rules, merge.source, relation(merge.name))
    ]


def content(dialect: Dialect, step: Replacement, rows: str, target: str, held: pa.Schema) -> str:
    """Return a query for the content of a replaced table, whose columns are `held` (none: it does
    not exist): the new rows, and with soft deletes those that stay. `rows` is a relation."""
    values = [dialect.column("n", field.name) for field in all_fields(step.target)]
    if step.soft_deletes is not None:
        no_time = f"CAST(NULL AS {dialect.sql_type(DELETED_AT_FIELD.type)})"
        values.append(f"{no_time} AS {dialect.quote(DELETED_AT_COLUMN)}")
    fresh = f"SELECT {', '.join(values)} FROM {rows} AS n"
    others = [dialect.column("t", name) for name in held.names if step.keeps(name)]
    if step.keeps_rows and len(held):
        return f"{fresh} UNION ALL BY NAME {kept(dialect, step, rows, target, held)}"
    if others:  # no rows, but their columns
        none = f"SELECT {', '.join(others)} FROM {target} AS t WHERE 1 = 0"
        return f"{fresh} UNION ALL BY NAME {none}"
    return fresh


def kept(dialect: Dialect, step: Replacement, rows: str, target: str, held: pa.Schema) -> str:
    """Return a query for the rows that a replacement with soft deletes keeps, marked."""
    values = merge_sql.kept_values(dialect, step, held)
    columns = [f"{value} AS {dialect.quote(name)}" for name, value in values.items()]
    columns += [dialect.column("t", name) for name in held.names if step.keeps(name)]
    return f"SELECT {', '.join(columns)} {merge_sql.kept_from(dialect, step, held, target, rows)}"


def keyed(dialect: Dialect, merge: KeyedMerge, staged: str, target: str) -> list[str]:
    """Delete older rows of the keys, then insert only keys without a row: a row that is left is at
    least as new."""
    rules = merge_sql.keyed_rules(dialect, merge)
    older = merge_sql.older_than(f"s.{LSN_COLUMN}")
    statements = [] if merge.soft_deletes else _unmatched(dialect, rules, target)
    source = staged
    if merge.unchanged_columns:
        source = SCRATCH
        # Before the truncation too: values that were not sent are in the current rows.
        resolved = _resolved(dialect, merge, rules, staged, target)
        statements.insert(0, f"CREATE TEMP TABLE {SCRATCH} AS {resolved}")
    if merge.soft_deletes:
        marked = _updated(dialect, rules.mark)
        statements.append(
            f"CREATE TEMP TABLE {MARKED} AS SELECT {marked} FROM {target} AS t "
            f"JOIN {source} AS s ON {rules.on} WHERE {rules.mark_if}"
        )
    statements.append(
        f"DELETE FROM {target} AS t USING {source} AS s "
        f"WHERE {rules.on} AND {older} AND s.{OP_COLUMN} <> '{HOP}'"
    )
    # A table, mostly empty: DuckDB knows its size. Otherwise DuckDB builds the hash table for
    # absent keys from all columns of the batch, or from all keys of the target.
    keys = ", ".join(f"t.{dialect.quote(name)}" for name in merge.key)
    held = f"SELECT {keys} FROM {target} AS t SEMI JOIN {source} AS s ON {rules.on}"
    statements.append(f"CREATE TEMP TABLE {HELD} AS {held}")
    statements.append(
        f"{_insert(dialect, rules, target)} FROM {source} AS s WHERE {merge_sql.writes(merge)} "
        f"AND NOT EXISTS (SELECT 1 FROM {HELD} AS t WHERE {rules.on})"
    )
    statements.append(f"DROP TABLE {HELD}")
    if merge.soft_deletes:
        statements.append(f"INSERT INTO {target} BY NAME SELECT * FROM {MARKED}")
        statements.append(f"DROP TABLE {MARKED}")
        # Last: rows of the merge are not older than the truncation.
        statements += _unmatched(dialect, rules, target)
    if merge.unchanged_columns:
        statements.append(f"DROP TABLE {SCRATCH}")
    return statements


def _resolved(
    dialect: Dialect, merge: KeyedMerge, rules: MergeRules, staged: str, target: str
) -> str:
    """Return a query for the merge's rows with unchanged values looked up, without those whose
    values are not held (see `KeyedMerge`)."""
    values = ", ".join(f"{value} AS {dialect.quote(name)}" for name, value in rules.update.items())
    source = merge_sql.keyed_source(dialect, merge, staged, target)
    held = f"s.{UNCHANGED_COLUMN} IS NULL OR {dialect.column('t', merge.key[0])} IS NOT NULL"
    return (
        f"SELECT {values}, s.{OP_COLUMN} FROM ({source}) AS s "
        f"LEFT JOIN {target} AS t ON {rules.on} WHERE {held}"
    )


def multiset(dialect: Dialect, merge: MultisetMerge, staged: str, target: str) -> list[str]:
    """Delete every row whose content changed, and insert it as often as it now occurs."""
    rules = merge_sql.multiset_rules(dialect, merge)
    source = merge_sql.multiset_source(dialect, merge, staged, target)
    return [
        f"CREATE TEMP TABLE {SCRATCH} AS {source}",
        *_unmatched(dialect, rules, target),
        f"DELETE FROM {target} AS t USING {SCRATCH} AS s WHERE {rules.on}",
        f"{_insert(dialect, rules, target)} FROM {SCRATCH} AS s WHERE s.{OP_COLUMN} <> '{DELETE}'",
        f"DROP TABLE {SCRATCH}",
    ]


def unrepresentable(dialect: Dialect, staged: str, target: str) -> list[str]:
    """Insert the unrepresentable values that are not stored yet."""
    rules = unrepresentable_sql.rules(dialect)
    source = unrepresentable_sql.source(dialect, staged)
    absent = f"NOT EXISTS (SELECT 1 FROM {target} AS t WHERE {rules.on})"
    return [f"{_insert(dialect, rules, target)} FROM ({source}) AS s WHERE {absent}"]


def history(dialect: Dialect, rules: MergeRules, source: str, target: str) -> list[str]:
    """Insert rows that the history table lacks; update those that the rules name."""
    insert = _insert(dialect, rules, target)
    absent = f"NOT EXISTS (SELECT 1 FROM {target} AS t WHERE {rules.on})"
    if rules.update_if is None:
        return [f"{insert} FROM ({source}) AS s WHERE {absent}"]
    matched = f"{rules.on} AND {rules.update_if}"
    changed = f"{_updated(dialect, rules.update)} FROM {target} AS t JOIN {SCRATCH} AS s"
    unheld = f"NOT EXISTS (SELECT 1 FROM {MARKED} AS t WHERE {rules.on})"
    return [
        f"CREATE TEMP TABLE {SCRATCH} AS {source}",
        f"CREATE TEMP TABLE {MARKED} AS SELECT {changed} ON {matched}",
        f"DELETE FROM {target} AS t USING {SCRATCH} AS s WHERE {matched}",
        *_unmatched(dialect, rules, target),
        f"{insert} FROM {SCRATCH} AS s WHERE {rules.insert_if} AND {absent} AND {unheld}",
        f"INSERT INTO {target} BY NAME SELECT * FROM {MARKED}",
        f"DROP TABLE {MARKED}",
        f"DROP TABLE {SCRATCH}",
    ]


def _updated(dialect: Dialect, values: Mapping[str, str]) -> str:
    """Return the columns of target rows with new values."""
    replaced = ", ".join(f"{value} AS {dialect.quote(name)}" for name, value in values.items())
    return f"t.* REPLACE ({replaced})"


def _insert(dialect: Dialect, rules: MergeRules, target: str) -> str:
    columns = ", ".join(dialect.quote(name) for name in rules.insert)
    return f"INSERT INTO {target} ({columns}) SELECT {', '.join(rules.insert.values())}"


def _unmatched(dialect: Dialect, rules: MergeRules, target: str) -> list[str]:
    if rules.unmatched_if is None:
        return []
    if not rules.unmatched:
        return [f"DELETE FROM {target} AS t WHERE {rules.unmatched_if}"]
    values = ", ".join(f"{dialect.quote(name)} = {v}" for name, v in rules.unmatched.items())
    return [f"UPDATE {target} AS t SET {values} WHERE {rules.unmatched_if}"]
