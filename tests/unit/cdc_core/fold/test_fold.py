"""Folding against a plain-Python model: event by event, one row a key, every value where it is due.

The changes are those of an in-memory PostgreSQL, so that they are ones a source can send. What a
fold leaves is compared with the model's, and merged into the table as it was at every commit of the
batch: each time the table must become what the source is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import InMemoryPostgres
from adapters.fakes.merges import merge_keyed, merge_multiset
from cdc_core.fold.fold import fold
from cdc_core.values.changes import Op, TableChanges
from cdc_core.values.merges import LSN_COLUMN, KeyedMerge, MultisetMerge, TargetTable
from tests.support.random_changes import COLUMNS, KEYS, History, history
from tests.support.soft_delete_model import METADATA, SoftDeletes

Row = dict[str, Any]


@dataclass
class Last:
    """What is left of a key: its last event, the values known of its row, whether that moved."""

    delete: bool
    values: Row
    lsn: int
    committed_at: int
    moved: bool = False


def plainly(changes: TableChanges, key: tuple[str, ...]) -> tuple[dict[tuple[Any, ...], Last], int]:
    """What is left of every key, and where the last TRUNCATE was (0: nowhere)."""
    last: dict[tuple[Any, ...], Last] = {}
    gone: dict[int, Last] = {}
    nothing = Last(True, {}, 0, 0)
    truncated_at = 0
    for index, row in enumerate(changes.rows.to_pylist()):
        lsn, time = int(changes.commit_lsn[index]), int(changes.committed_at[index])
        place = tuple(row[name] for name in key)
        known = last.get(place, nothing)
        match Op(int(changes.op[index])):
            case Op.TRUNCATE:
                last.clear()
                truncated_at = lsn
            case Op.DELETE:
                gone[index] = known
                last[place] = Last(True, {}, lsn, time)
            case Op.INSERT:
                last[place] = Last(False, dict(row), lsn, time)
            case Op.UPDATE:
                origin = int(changes.moved_from[index])
                earlier = known if origin < 0 else gone[origin]
                values = {
                    name: value
                    for name, value in row.items()
                    if name not in changes.unchanged or not changes.unchanged[name][index]
                }
                missing = row.keys() - values.keys()
                kept = {n: earlier.values[n] for n in missing if n in earlier.values}
                moved = earlier.moved or origin >= 0
                last[place] = Last(False, {**values, **kept}, lsn, time, moved)
    return last, truncated_at


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10**9),
    key=st.sampled_from(KEYS),
    transactions=st.integers(1, 8),
    truncates=st.booleans(),
)
def test_a_fold_is_what_the_events_leave_one_by_one(
    seed: int, key: tuple[str, ...], transactions: int, truncates: bool
) -> None:
    told = history(seed, key, transactions, truncates)
    if told.changes is None:
        return
    merge = fold(told.changes, told.target, key)
    assert merge is not None
    if isinstance(merge, KeyedMerge):
        compare_with_the_model(told, merge)
    else:
        compare_events(told, merge)
    # A target holds whole transactions: whichever of the batch it has, merging leaves the last.
    stamp = {LSN_COLUMN: int(told.start), "_cdc_committed_at": None}
    rows = [{**row, **stamp} for row in told.states[0]]
    for changes, state in zip([None, *told.each], told.states, strict=True):
        if changes is not None:
            rows = merged(rows, fold(changes, told.target, key))
        assert content(rows) == content(state)
        assert content(merged(rows, merge)) == content(told.states[-1])


@settings(max_examples=300)
@given(
    seed=st.integers(0, 10**9),
    key=st.sampled_from(KEYS[:-1]),
    transactions=st.integers(1, 8),
    truncates=st.booleans(),
)
def test_with_soft_deletes_a_fold_marks_what_the_events_mark_one_by_one(
    seed: int, key: tuple[str, ...], transactions: int, truncates: bool
) -> None:
    told = history(seed, key, transactions, truncates)
    if told.changes is None:
        return
    merge = fold(told.changes, told.target, key, soft_deletes=True)
    assert isinstance(merge, KeyedMerge)
    (oid,) = {event.oid for tx in told.transactions for event in tx.events}
    model = SoftDeletes(key, told.states[0], int(told.start), 0)
    states = [[dict(row) for row in model.rows.values()]]
    for transaction in told.transactions:
        model.apply(transaction, oid)
        states.append([dict(row) for row in model.rows.values()])
    for number, rows in enumerate(states):
        assert whole(merged(rows, merge)) == whole(states[-1])
        if number < len(told.each):
            alone = fold(told.each[number], told.target, key, soft_deletes=True)
            assert whole(merged(rows, alone)) == whole(states[number + 1])


def whole(rows: list[Row]) -> Counter[tuple[Any, ...]]:
    """The rows with their metadata."""
    return Counter(tuple(row.get(name) for name in (*COLUMNS, *METADATA)) for row in rows)


def merged(rows: list[Row], merge: KeyedMerge | MultisetMerge | None) -> list[Row]:
    assert merge is not None
    return (merge_keyed if isinstance(merge, KeyedMerge) else merge_multiset)(rows, merge)  # type: ignore[arg-type,operator]


def content(rows: list[Row]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row[name] for name in COLUMNS) for row in rows)


def compare_with_the_model(told: History, merge: KeyedMerge) -> None:
    assert told.changes is not None
    wanted, truncated_at = plainly(told.changes, told.key)
    names = list(COLUMNS)
    rows = merge.rows.to_pylist()
    assert (merge.truncated_at or 0) == truncated_at
    final = [row for row in rows if row["_cdc_op"] != "H"]
    assert merge.has_hops == (len(final) < len(rows))
    assert len(final) == len(wanted)
    unresolved: set[str] = set()
    for row in final:
        expected = wanted[tuple(row[name] for name in told.key)]
        assert row["_cdc_op"] == ("D" if expected.delete else "U")
        assert row[LSN_COLUMN] == expected.lsn
        assert row["_cdc_committed_at"].timestamp() * 1e6 == pytest.approx(expected.committed_at)
        if expected.delete:
            assert row["_cdc_unchanged"] is None
            continue
        missing = set(names) - expected.values.keys()
        unresolved |= missing
        assert (row["_cdc_ref"] is not None) == (expected.moved and bool(missing))
        marked = {names[int(p)] for p in (row["_cdc_unchanged"] or "").split(".") if p}
        assert marked == missing
        assert {n: row[n] for n in expected.values} == expected.values
    assert set(merge.unchanged_columns) == unresolved
    # Earlier keys are looked under for what is missing of rows that moved, and only there; each at
    # another LSN, as a target holds whole transactions.
    hops: dict[int, list[int]] = {}
    for row in rows:
        if row["_cdc_op"] == "H":
            hops.setdefault(row["_cdc_ref"], []).append(row[LSN_COLUMN])
    assert {row["_cdc_ref"] for row in final} - {None} == hops.keys()
    assert all(len(lsns) == len(set(lsns)) and lsns[-1] == 0 for lsns in hops.values())


def compare_events(told: History, merge: MultisetMerge) -> None:
    changes = told.changes
    assert changes is not None
    truncations = [i for i, op in enumerate(changes.op.tolist()) if op == Op.TRUNCATE]
    start = truncations[-1] + 1 if truncations else 0
    wanted_at = int(changes.commit_lsn[truncations[-1]]) if truncations else None
    assert merge.truncated_at == wanted_at
    rows = merge.rows.to_pylist()
    assert [row["_cdc_ref"] for row in rows] == list(range(len(changes) - start))
    assert [row[LSN_COLUMN] for row in rows] == changes.commit_lsn[start:].tolist()
    ops = ["D" if op == Op.DELETE else "U" for op in changes.op[start:].tolist()]
    assert [row["_cdc_op"] for row in rows] == ops
    assert [{n: row[n] for n in COLUMNS} for row in rows] == changes.rows.to_pylist()[start:]


def table_of(ops: list[Op], ids: list[int | None], lsns: list[int]) -> TableChanges:
    postgres = InMemoryPostgres()
    oid = postgres.create_table("t", {"id": pa.int64()})
    count = len(ops)
    return TableChanges(
        postgres.tables[oid].relation,
        pa.table({"id": pa.array(ids, pa.int64())}),
        np.array(ops, np.uint8),
        np.array(lsns, np.uint64),
        np.arange(count, dtype=np.int64),
        np.zeros(count, np.uint32),
        np.full(count, -1, np.int64),
    )


TARGET = TargetTable("t", pa.schema([("id", pa.int64())]))


def test_nothing_is_left_of_nothing() -> None:
    assert fold(table_of([], [], []), TARGET, ("id",)) is None
    assert fold(table_of([], [], []), TARGET, ()) is None


def test_a_truncate_alone_leaves_where_it_was() -> None:
    for key in (("id",), ()):
        merge = fold(table_of([Op.TRUNCATE], [None], [70]), TARGET, key)
        assert merge is not None
        assert merge.rows.num_rows == 0
        assert merge.truncated_at == 70


def test_a_truncation_has_the_time_of_its_commit() -> None:
    ops = [Op.INSERT, Op.TRUNCATE, Op.INSERT]
    merge = fold(table_of(ops, [1, None, 2], [70, 80, 90]), TARGET, ("id",))
    assert isinstance(merge, KeyedMerge)
    assert (merge.truncated_at, merge.truncated_time) == (80, 1)
    assert merge.rows.column("id").to_pylist() == [2]
    merge = fold(table_of([Op.INSERT], [1], [70]), TARGET, ("id",))
    assert isinstance(merge, KeyedMerge)
    assert merge.truncated_time is None
    assert not merge.has_hops


def test_no_truncate_is_not_a_truncate_at_zero() -> None:
    merge = fold(table_of([Op.INSERT], [1], [70]), TARGET, ("id",))
    assert merge is not None
    assert merge.truncated_at is None


@pytest.mark.parametrize("ids", [[1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 2, 2], [2, 1, 2, 1]])
def test_the_last_event_of_a_key_counts_whatever_their_order(ids: list[int]) -> None:
    lsns = [10, 20, 30, 40]
    merge = fold(table_of([Op.UPDATE] * 4, [*ids], lsns), TARGET, ("id",))
    assert merge is not None
    found = {row["id"]: row[LSN_COLUMN] for row in merge.rows.to_pylist()}
    assert found == dict(zip(ids, lsns, strict=True))
    assert merge.rows.num_rows == len(set(ids))


def test_columns_that_were_dropped_are_no_content() -> None:
    schema = pa.schema([("id", pa.int64()), ("gone", pa.string())])
    changes = table_of([Op.INSERT], [1], [5])
    object.__setattr__(changes, "rows", pa.table({"id": [1], "gone": pa.nulls(1, pa.string())}))
    merge = fold(changes, TargetTable("t", schema), (), ["gone"])
    assert isinstance(merge, MultisetMerge)
    assert merge.content == ("id",)
