"""The statements of a merge with soft deletes: random changes, cut and sent again in any way, leave
in DuckDB what the changes leave one by one."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.dlt_destination.duckdb import transaction_sql
from adapters.dlt_destination.sql.dialect import DUCKDB
from cdc_core.fold.fold import fold
from cdc_core.values.merges import DELETED_AT_FIELD, METADATA_FIELDS, KeyedMerge
from tests.support.random_changes import COLUMNS, KEYS, history
from tests.support.soft_delete_model import METADATA, SoftDeletes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.random_changes import History

NAMES = (*COLUMNS, *METADATA)
TABLE = pa.schema([*COLUMNS.items(), *METADATA_FIELDS, DELETED_AT_FIELD])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**9),
    key=st.sampled_from(KEYS[:-1]),
    transactions=st.integers(1, 8),
    truncates=st.booleans(),
)
def test_rows_are_marked_as_by_one_change_at_a_time(
    seed: int, key: tuple[str, ...], transactions: int, truncates: bool
) -> None:
    told, chance = history(seed, key, transactions, truncates), random.Random(seed)
    if told.changes is None:
        return
    model = SoftDeletes(key, told.states[0], int(told.start), 0)
    merges: list[KeyedMerge] = []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        connection.register("held", pa.Table.from_pylist([*model.rows.values()], schema=TABLE))
        connection.execute("CREATE TABLE t AS SELECT * FROM held")
        for start, stop in cuts(told, chance):
            first = sum(map(len, told.each[:start]))
            changes = told.changes.between(first, first + sum(map(len, told.each[start:stop])))
            merge = fold(changes, told.target, key, soft_deletes=True)
            assert isinstance(merge, KeyedMerge)
            merges.append(merge)
            for transaction in told.transactions[start:stop]:
                model.apply(transaction, changes.relation.oid)
            for sent in (merge, chance.choice(merges)):
                run(connection, sent)
                found = connection.sql("SELECT * FROM t").to_arrow_table()
                assert rows_of(found.to_pylist()) == rows_of(model.rows.values())


def cuts(told: History, chance: random.Random) -> Iterable[tuple[int, int]]:
    """Ranges of transactions that are a batch each."""
    start = 0
    while start < len(told.each):
        stop = chance.randint(start + 1, len(told.each))
        yield start, stop
        start = stop


def run(connection: duckdb.DuckDBPyConnection, merge: KeyedMerge) -> None:
    connection.register("staged", merge.rows)
    for statement in transaction_sql.keyed(DUCKDB, merge, "staged", "t"):
        connection.execute(statement)


def rows_of(rows: Iterable[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row[name] for name in NAMES) for row in rows)
