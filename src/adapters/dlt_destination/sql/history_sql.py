"""The merges that write history tables.

As in `merge_sql`, relations can follow FROM. `cdc_core.values.history` defines what each statement
does; all are idempotent. `log_sql` has the SQL of the log, `version_sql` that of the versions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adapters.dlt_destination.sql.log_sql import (
    append_source,
    log_difference_source,
    log_rules,
    truncate_source,
)
from adapters.dlt_destination.sql.merge_sql import new_value
from adapters.dlt_destination.sql.version_sql import (
    version_difference_source,
    version_rules,
    version_source,
)
from cdc_core.values.history import LogAppend, LogTruncate, VersionMerge
from cdc_core.values.merges import OP_COLUMN, UPSERT, KeyedMerge

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from adapters.dlt_destination.sql.dialect import Dialect
    from adapters.dlt_destination.sql.merge_sql import MergeRules
    from cdc_core.values.history import HistoryStep
    from cdc_core.values.merges import Replacement, TargetTable


@dataclass(frozen=True)
class HistoryMerge:
    """A merge of `source` into the history table `name`, by `rules`."""

    name: str
    rules: MergeRules
    source: str


def step_merge(
    dialect: Dialect,
    step: HistoryStep,
    staged: str,
    relation: Callable[[str], str],
    held: Collection[str],
) -> HistoryMerge:
    """Return the merge of a step. `relation` gives the relation of a table by its name. `held` are
    the columns of the step's table; it does not exist if there are none."""
    schema = step.table.schema
    target = relation(step.name)
    match step:
        case LogAppend():
            rules = log_rules(dialect, schema.names, step.first)
            table = relation(step.table.name) if held else None
            source = append_source(dialect, step, staged, target, table, held)
        case LogTruncate():
            rules = log_rules(dialect, schema.names, step.first)
            source = truncate_source(dialect, step, target)
        case VersionMerge():
            rules = version_rules(dialect, schema, step.key, step.truncated)
            source = version_source(dialect, step, staged, target)
    return HistoryMerge(step.name, _parsing(dialect, rules, step.table), source)


def _parsing(dialect: Dialect, rules: MergeRules, table: TargetTable) -> MergeRules:
    """Return the rules, which parse the JSON that they insert."""
    parsed = {n: new_value(dialect, n, table.variants) for n in rules.insert if n in table.variants}
    return replace(rules, insert={**rules.insert, **parsed})


def difference_merges(
    dialect: Dialect,
    step: Replacement | KeyedMerge,
    rows: str,
    relation: Callable[[str], str],
) -> list[HistoryMerge]:
    """Return the merges that bring the history of a table to the rows that were read.

    `rows` is the relation of the replacement's rows, or of the merge's staged rows.
    """
    difference, schema, key = step.history, step.target.schema, step.key
    if difference is None:
        return []
    new, scope = rows, None
    if isinstance(step, KeyedMerge):
        new = f"(SELECT w.* FROM {rows} AS w WHERE w.{OP_COLUMN} = '{UPSERT}')"
        scope = rows
    at, first = difference.at, difference.first
    merges = []
    if difference.log is not None:
        log = relation(difference.log)
        source = log_difference_source(dialect, schema, key, at, first, log, new, scope)
        rules = log_rules(dialect, schema.names, first)
        merges.append(HistoryMerge(difference.log, _parsing(dialect, rules, step.target), source))
    if difference.versions is not None:
        versions = relation(difference.versions)
        source = version_difference_source(dialect, schema, key, at, versions, new, scope)
        rules = version_rules(dialect, schema, key)
        merges.append(
            HistoryMerge(difference.versions, _parsing(dialect, rules, step.target), source)
        )
    return merges
