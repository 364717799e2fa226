"""Batches of changes of an `InMemoryPostgres`, as a decoder would give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adapters.fakes.snapshot import table_of
from cdc_core.values.changes import ChangeBatch, Op, TableChanges

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapters.fakes.postgres import Event, Row, Transaction
    from cdc_core.values.relation import Relation
    from cdc_core.values.table_rules import ColumnRules


def batch_of(
    events: Sequence[tuple[Transaction, Event]],
    transactions: Sequence[Transaction],
    tables: frozenset[int],
    rules: Mapping[int, ColumnRules],
    *,
    complete: bool,
) -> ChangeBatch:
    groups: dict[tuple[int, int], list[tuple[Transaction, Event]]] = {}
    relations: dict[int, Relation] = {}
    versions: dict[int, int] = {}
    for transaction, event in events:
        if event.oid not in tables:
            continue
        if relations.get(event.oid) != event.relation:
            relations[event.oid] = event.relation
            versions[event.oid] = versions.get(event.oid, 0) + 1
        groups.setdefault((event.oid, versions[event.oid]), []).append((transaction, event))
    return ChangeBatch(
        tables=[_changes(pairs, rules.get(oid, {})) for (oid, _), pairs in groups.items()],
        end_lsn=transactions[-1].end_lsn,
        last_commit_lsn=transactions[-1].commit_lsn,
        last_committed_at=transactions[-1].committed_at,
        transactions=len(transactions) if complete else 0,
        complete=complete,
    )


def _changes(pairs: Sequence[tuple[Transaction, Event]], rules: ColumnRules) -> TableChanges:
    relation = pairs[0][1].relation.under(rules)
    rows: list[Row] = []
    ops: list[int] = []
    owners: list[Transaction] = []
    moved: list[int] = []
    unchanged: dict[str, list[int]] = {}

    def add(transaction: Transaction, op: Op, row: Row, moved_from: int = -1) -> None:
        rows.append(row)
        ops.append(op)
        owners.append(transaction)
        moved.append(moved_from)

    for transaction, event in pairs:
        op = event.op
        came_from = -1
        if event.old is not None:
            old_key = {name: event.old[name] for name in relation.key} or event.old
            add(transaction, Op.DELETE, old_key)
            came_from = len(rows) - 1
            op = op if relation.key else Op.INSERT
        for name in event.unchanged:
            unchanged.setdefault(name, []).append(len(rows))
        sent = {k: v for k, v in event.row.items() if k not in event.unchanged}
        add(transaction, op, sent, came_from)
    masks = {name: np.zeros(len(rows), np.bool_) for name in unchanged}
    for name, indexes in unchanged.items():
        masks[name][indexes] = True
    return TableChanges(
        relation=relation,
        rows=table_of(relation, rows),
        op=np.array(ops, np.uint8),
        commit_lsn=np.array([int(t.commit_lsn) for t in owners], np.uint64),
        committed_at=np.array([t.committed_at for t in owners], np.int64),
        xid=np.array([t.xid for t in owners], np.uint32),
        moved_from=np.array(moved, np.int64),
        unchanged=masks,
    )
