"""Merges into Delta tables, one commit each.

delta-rs writes. If a merge needs values from its target first, DuckDB runs the same SQL as for the
other stores over the table's files. Source: delta-rs documentation, "Merging a table".
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from adapters.dlt_destination.delta import queries
from adapters.dlt_destination.delta.folders import open_table
from adapters.dlt_destination.delta.parquet_rows import (
    as_reader,
    bytes_of,
    row_groups,
    writer_properties,
)
from adapters.dlt_destination.delta.upkeep import keep_up
from adapters.dlt_destination.sql import history_sql, merge_sql, unrepresentable_sql
from adapters.dlt_destination.sql.dialect import DATAFUSION, DUCKDB
from adapters.dlt_destination.table_steps import StagedHistory, StagedMerge, StagedUnrepresentable
from cdc_core.values.merges import KeyedMerge, MultisetMerge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from adapters.dlt_destination.sql.merge_sql import MergeRules
    from cdc_core.values.history import HistoryStep
    from cdc_core.values.merges import Replacement

#: Larger merges are streamed, not read into memory.
STREAMED_ROWS = 2_000_000
STREAMED_BYTES = 256 << 20


def merge_step(
    client: Any,
    table: str,
    step: StagedMerge | StagedHistory | StagedUnrepresentable,
    held: Sequence[str],
) -> None:
    """Merge the rows of a step. `held` are the table's columns; none: it does not exist."""
    match step:
        case StagedHistory(part, paths):
            _merge_history(client, part, paths, held)
        case StagedMerge(KeyedMerge() as merge):
            merge_difference(client, merge, step.paths, {})
            _merge_keyed(client, table, merge, step)
        case StagedMerge(MultisetMerge() as merge):
            _merge_multiset(client, table, merge, step.paths)
        case StagedUnrepresentable():
            sql = unrepresentable_sql.source(DUCKDB, queries.STAGED)
            _merge_result(client, table, sql, unrepresentable_sql.rules(DATAFUSION), step.paths)


def _merge_history(
    client: Any, step: HistoryStep, paths: Sequence[Path], held: Sequence[str]
) -> None:
    rules, query = (
        history_sql.step_merge(dialect, step, queries.STAGED, queries.relation, held)
        for dialect in (DATAFUSION, DUCKDB)
    )
    names = [step.name, *([step.table.name] if held else [])]
    _merge_result(client, step.name, query.source, rules.rules, paths, names)


def merge_difference(
    client: Any,
    step: Replacement | KeyedMerge,
    paths: Sequence[Path],
    relations: Mapping[str, Any],
) -> None:
    """Bring the history of a table to rows that were read: staged, or in these relations."""
    rows = queries.STAGED if paths else queries.union(relations)
    merges, found = (
        history_sql.difference_merges(dialect, step, rows, queries.relation)
        for dialect in (DATAFUSION, DUCKDB)
    )
    for merge, query in zip(merges, found, strict=True):
        _merge_result(client, merge.name, query.source, merge.rules, paths, [merge.name], relations)


def _merge_result(
    client: Any,
    table: str,
    sql: str,
    rules: MergeRules,
    paths: Sequence[Path],
    tables: Sequence[str] = (),
    relations: Mapping[str, Any] | None = None,
) -> None:
    """Merge the result of a query over these Delta tables."""
    datasets = {queries.of(name): open_table(client, name).to_pyarrow_dataset() for name in tables}
    folder = client.current_run.folder
    file = queries.result_file(sql, folder, paths, {**datasets, **(relations or {})})
    try:
        rows = pq.ParquetFile(file)
        small = rows.metadata.num_rows <= STREAMED_ROWS and bytes_of([file]) <= STREAMED_BYTES
        schema = rows.schema_arrow
        source = pq.read_table(file) if small else as_reader(row_groups(file), schema)
        _merge(client, table, source, rules)
    finally:
        file.unlink()


def _merge_keyed(client: Any, table: str, merge: KeyedMerge, step: StagedMerge) -> None:
    rules = merge_sql.keyed_rules(DATAFUSION, merge)
    if merge.has_hops:
        target = queries.relation(table)
        sql = merge_sql.keyed_source(DUCKDB, merge, queries.STAGED, target)
        _merge_result(client, table, sql, rules, step.paths, [table])
        return
    if step.rows > STREAMED_ROWS or bytes_of(step.paths) > STREAMED_BYTES:
        source = as_reader(_staged(step), merge.rows.schema)
    else:
        source = pa.concat_tables([pq.read_table(path) for path in step.paths])
    _merge(client, table, source, rules)


def _merge_multiset(client: Any, table: str, merge: MultisetMerge, paths: Sequence[Path]) -> None:
    sql = merge_sql.multiset_source(DUCKDB, merge, queries.STAGED, queries.relation(table))
    rules = merge_sql.multiset_rules(DATAFUSION, merge)
    _merge_result(client, table, sql, rules, paths, [table])


def _merge(
    client: Any, table: str, source: pa.Table | pa.RecordBatchReader, rules: MergeRules
) -> None:
    """Merge in one commit; without changes there is no commit.

    delta-rs skips files by the key range of a source in memory. Large sources are streamed; so
    are those with decimals, because delta-rs keeps their range as inexact doubles.
    """
    in_memory = isinstance(source, pa.Table) and not any(map(_inexact, source.schema.types))
    delta = open_table(client, table)
    before = delta.version()
    merger = delta.merge(
        source,
        rules.on,
        source_alias="s",
        target_alias="t",
        streamed_exec=not in_memory,
        writer_properties=writer_properties(),
    )
    if rules.delete_if:
        merger = merger.when_matched_delete(rules.delete_if)
    if rules.update_if:
        merger = merger.when_matched_update(_quoted(rules.update), rules.update_if)
    if rules.mark_if:
        merger = merger.when_matched_update(_quoted(rules.mark), rules.mark_if)
    merger = merger.when_not_matched_insert(_quoted(rules.insert), rules.insert_if)
    if rules.unmatched_if and rules.unmatched:
        changes = _quoted(rules.unmatched)
        merger = merger.when_not_matched_by_source_update(changes, rules.unmatched_if)
    elif rules.unmatched_if:
        merger = merger.when_not_matched_by_source_delete(rules.unmatched_if)
    merger.execute()
    keep_up(delta, before)


def _staged(step: StagedMerge) -> Iterator[pa.Table]:
    for path in step.paths:
        for group in row_groups(path):
            yield group.cast(step.merge.rows.schema)


def _inexact(data_type: pa.DataType) -> bool:
    """Whether a double cannot represent every value of the type."""
    return bool(pa.types.is_decimal(data_type)) and data_type.precision > sys.float_info.dig


def _quoted(assignments: Mapping[str, str]) -> dict[str, str]:
    return {DATAFUSION.quote(name): value for name, value in assignments.items()}
