"""Changes and snapshots as plain Python, for comparing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdc_core.values.changes import Op

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdc_core.values.changes import ChangeBatch, TableChanges


def events(batches: Iterable[ChangeBatch]) -> list[tuple[str, str, dict[str, Any]]]:
    """Every change as (table, operation, row), by table; commit order within a table."""
    return [event for batch in batches for table in batch.tables for event in _events(table)]


def _events(changes: TableChanges) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for op, row in zip(changes.op.tolist(), changes.rows.to_pylist(), strict=True):
        yield str(changes.relation.table), Op(op).name, row


def stream(batches: Iterable[ChangeBatch]) -> list[tuple[Any, ...]]:
    """Every change with its commit LSN, in an order that does not depend on how batches are cut."""
    told = [
        (str(table.relation.table), lsn, Op(op).name, tuple(row.values()))
        for batch in batches
        for table in batch.tables
        for op, lsn, row in zip(
            table.op.tolist(), table.commit_lsn.tolist(), table.rows.to_pylist(), strict=True
        )
    ]
    return sorted(told, key=lambda event: (event[0], event[1]))
