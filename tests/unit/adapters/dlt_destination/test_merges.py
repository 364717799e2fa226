"""Merges as the stores do them, against the plain-Python meaning that the fake destination has."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.dlt_destination.columns import all_fields
from adapters.dlt_destination.delta.store import DeltaStore
from adapters.dlt_destination.dlt.packages import Packages
from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.dlt_destination.files.parquet import write_table
from adapters.dlt_destination.run import Run
from adapters.dlt_destination.settings import PipelineSettings
from adapters.dlt_destination.sql import merge_sql
from adapters.dlt_destination.sql.dialect import DUCKDB
from adapters.dlt_destination.table_steps import StagedMerge
from adapters.fakes.merges import merge_keyed, merge_multiset
from cdc_core.values.history import Moment
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import (
    DELETED_AT_COLUMN,
    METADATA_FIELDS,
    KeyedMerge,
    MultisetMerge,
    Replacement,
    TargetTable,
)
from tests.support.merge_cases import (
    BAG,
    KEYED,
    bag_merges,
    bag_rows,
    comparable,
    keyed_merges,
    keyed_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from adapters.dlt_destination.table_steps import Step
    from tests.support.merge_cases import Row

NUMBERS = itertools.count()


class Table:
    """A store's table, given rows and merges without a load package around them."""

    def __init__(self, store: DuckDbStore | DeltaStore, client: Any, folder: Path) -> None:
        self.store = store
        self.client = client
        self.folder = folder

    @contextmanager
    def holding(
        self, schema: pa.Schema, rows: list[Row], *, soft_deletes: bool = False
    ) -> Iterator[TargetTable]:
        target = TargetTable(f"t{next(NUMBERS)}", schema)
        self.store.create(self.client, target.name, all_fields(target), ())
        # What somebody else wrote may lack the metadata, whatever the fields say.
        full = pa.schema([*schema, *METADATA_FIELDS])
        nullable = pa.schema([field.with_nullable(True) for field in full])
        found = pa.Table.from_arrays(pa.Table.from_pylist(rows, nullable).columns, schema=full)
        self.store.write(self.client, target.name, target, [found])
        step = Replacement(target, (target.name,))
        if soft_deletes:
            step = replace(step, key=("a", "b"), soft_deletes=Moment(Lsn(1), 0))
        self.store.apply(self.client, target.name, [step])
        self.store.forget(self.client, step.written)
        yield target

    def apply(self, merge: KeyedMerge | MultisetMerge) -> list[Row]:
        path = self.folder / f"{next(NUMBERS)}.parquet"
        write_table(merge.rows, path)
        self.store.apply(
            self.client, merge.target.name, [StagedMerge(merge, (path,), len(merge.rows))]
        )
        names = [*merge.target.schema.names, *(f.name for f in METADATA_FIELDS)]
        if isinstance(merge, KeyedMerge) and merge.soft_deletes:
            names.append(DELETED_AT_COLUMN)
        pieces = self.store.scan(self.client, merge.target.name, names)
        return [row for piece in pieces for row in piece.to_pylist()]


class MergingDuckDb(DuckDbStore):
    """Runs the MERGE that stores without transactions of several statements run."""

    def _statements(self, client: Any, table: str, step: Step) -> list[str]:
        if not isinstance(step, StagedMerge):
            return super()._statements(client, table, step)
        target = f"{client.sql_client.fully_qualified_dataset_name()}.{DUCKDB.quote(table)}"
        staged, merge = f"read_parquet('{step.paths[0]}')", step.merge
        if isinstance(merge, KeyedMerge):
            rules = merge_sql.keyed_rules(DUCKDB, merge)
            source = merge_sql.keyed_source(DUCKDB, merge, staged, target)
        else:
            rules = merge_sql.multiset_rules(DUCKDB, merge)
            source = merge_sql.multiset_source(DUCKDB, merge, staged, target)
        return [rules.statement(DUCKDB, source, target)]


STORES = {"duckdb": DuckDbStore, "merge": MergingDuckDb, "delta": DeltaStore}


@pytest.fixture(scope="module", params=list(STORES))
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Table]:
    folder = tmp_path_factory.mktemp(request.param)
    place = folder / ("lake" if request.param == "delta" else "lake.duckdb")
    store = STORES[request.param](str(place))
    plan = Run(folder=folder)
    packages = Packages(PipelineSettings("p", "bronze"), store.factory(plan), folder / "work")
    with packages.client() as client:
        client.initialize_storage()
        yield Table(store, client, folder)


budget = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@budget
@given(rows=keyed_rows(), merges=st.lists(keyed_merges(), min_size=1, max_size=3))
def test_keyed(table: Table, rows: list[Row], merges: list[KeyedMerge]) -> None:
    with table.holding(KEYED, rows) as target:
        for merge in merges:
            placed = _at(merge, target)
            rows = merge_keyed(rows, placed)
            assert comparable(table.apply(placed)) == comparable(rows)


@budget
@given(rows=keyed_rows(), merges=st.lists(keyed_merges(soft_deletes=True), min_size=1, max_size=3))
def test_keyed_with_soft_deletes(table: Table, rows: list[Row], merges: list[KeyedMerge]) -> None:
    with table.holding(KEYED, rows, soft_deletes=True) as target:
        for merge in merges:
            placed = _at(merge, target)
            rows = [{DELETED_AT_COLUMN: None, **row} for row in merge_keyed(rows, placed)]
            assert comparable(table.apply(placed)) == comparable(rows)


@budget
@given(rows=bag_rows(), merges=st.lists(bag_merges(), min_size=1, max_size=3))
def test_multiset(table: Table, rows: list[Row], merges: list[MultisetMerge]) -> None:
    with table.holding(BAG, rows) as target:
        for merge in merges:
            placed = _at(merge, target)
            rows = merge_multiset(rows, placed)
            assert comparable(table.apply(placed)) == comparable(rows)


def _at(merge: Any, target: TargetTable) -> Any:
    return type(merge)(**{**vars(merge), "target": target})
