"""The MERGE statements of a step on Databricks, over the staged files.

Source: Databricks SQL reference, "MERGE INTO".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.columns import JSON, row_fields
from adapters.dlt_destination.databricks import variants
from adapters.dlt_destination.databricks.definitions import qualified
from adapters.dlt_destination.sql import history_sql, merge_sql, unrepresentable_sql
from adapters.dlt_destination.sql.dialect import SPARK
from adapters.dlt_destination.table_steps import (
    StagedHistory,
    StagedMerge,
    StagedUnrepresentable,
    staged_schema,
)
from cdc_core.values.history import LogAppend
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA, KeyedMerge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from adapters.dlt_destination.databricks.definitions import Definitions
    from cdc_core.values.merges import Replacement, TargetTable

#: The name of a table, and a statement that changes its rows.
Statement = tuple[str, str]


def typed(fields: Iterable[pa.Field], files: str) -> str:
    """Return the staged rows, cast to the intended types."""
    return f"(SELECT {SPARK.casts(fields)} FROM {files})"


def comparable_table(definitions: Definitions, client: Any, table: str) -> str:
    """Return a table to read from, with JSON as text: a VARIANT cannot be compared."""
    held, name = definitions.current(client, table), qualified(client, table)
    if held is None or JSON not in held.types:
        return name
    return f"(SELECT {', '.join(map(variants.readable, held))} FROM {name})"


def step_statements(
    definitions: Definitions,
    client: Any,
    table: str,
    step: StagedMerge | StagedHistory | StagedUnrepresentable,
    files: str,
) -> Iterator[Statement]:
    """Yield the statements of a step whose rows are in `files`. Its history is first."""
    target = qualified(client, table)
    match step:
        case StagedHistory(part, paths):
            staged = typed(staged_schema(part), files) if paths else ""
            looks_up = isinstance(part, LogAppend) and part.unchanged_columns
            held = definitions.current(client, table) if looks_up else None
            columns = [] if held is None else held.names
            relation = _relation(definitions, client, part.table)
            yield _history(client, history_sql.step_merge(SPARK, part, staged, relation, columns))
        case StagedMerge(merge):
            staged = typed(merge.rows.schema, files)
            compared = variants.comparable(staged, merge.rows.schema, merge.target)
            read = _relation(definitions, client, merge.target)
            if isinstance(merge, KeyedMerge):
                yield from difference_statements(definitions, client, merge, compared)
                rules = merge_sql.keyed_rules(SPARK, merge)
                source = merge_sql.keyed_source(SPARK, merge, staged, read(table))
            else:
                rules = merge_sql.multiset_rules(SPARK, merge)
                source = merge_sql.multiset_source(SPARK, merge, compared, read(table))
            yield table, rules.statement(SPARK, source, target)
        case StagedUnrepresentable():
            source = unrepresentable_sql.source(SPARK, typed(UNREPRESENTABLE_SCHEMA, files))
            yield table, unrepresentable_sql.rules(SPARK).statement(SPARK, source, target)


def replaced_history(
    definitions: Definitions, client: Any, step: Replacement, files: str
) -> Iterator[Statement]:
    """Yield the statements that bring the history of a table to its new rows."""
    fields = row_fields(step.target)
    rows = variants.comparable(typed(fields, files), fields, step.target)
    return difference_statements(definitions, client, step, rows)


def difference_statements(
    definitions: Definitions, client: Any, step: Replacement | KeyedMerge, rows: str
) -> Iterator[Statement]:
    relation = _relation(definitions, client, step.target)
    for merge in history_sql.difference_merges(SPARK, step, rows, relation):
        yield _history(client, merge)


def _history(client: Any, merge: history_sql.HistoryMerge) -> Statement:
    target = qualified(client, merge.name)
    return merge.name, merge.rules.statement(SPARK, merge.source, target)


def _relation(definitions: Definitions, client: Any, target: TargetTable) -> Callable[[str], str]:
    """Return the function that gives the relation to read a table or its history from."""
    if target.variants:
        return partial(comparable_table, definitions, client)
    return partial(qualified, client)
