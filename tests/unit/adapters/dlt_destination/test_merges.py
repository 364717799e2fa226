"""Merges as the stores do them, against the plain-Python meaning that the fake destination has."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import struct
from collections import Counter
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
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
    KeyedMerge,
    MultisetMerge,
    Replacement,
    TargetTable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from adapters.dlt_destination.table_steps import Step

Row = dict[str, Any]
NUMBERS = itertools.count()
THEN = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NEGATIVE_NAN = struct.unpack("<d", bytes(6) + b"\xf8\xff")[0]

KEYED = pa.schema([("a", pa.int64()), ("b", pa.string()), ("x", pa.string()), ("y", pa.float64())])
BAG = pa.schema([("x", pa.string()), ("y", pa.float64()), ("z", pa.decimal128(5, 2))])


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


lsns = st.integers(1, 12)
held_lsns = st.none() | lsns
texts = st.sampled_from([None, "", "p", "q", "it's"])
floats = st.sampled_from([None, 0.5, math.nan, math.inf])
any_floats = floats | st.sampled_from([0.0, -0.0, NEGATIVE_NAN])
keys = st.tuples(st.integers(0, 3), st.sampled_from(["k", "l"]))


def stamped(row: Row) -> Row:
    return {"_cdc_committed_at": THEN + dt.timedelta(seconds=row["_cdc_lsn"] or 0), **row}


@st.composite
def keyed_rows(draw: st.DrawFn) -> list[Row]:
    held = draw(st.dictionaries(keys, st.tuples(texts, floats, held_lsns), max_size=6))
    return [
        stamped({"a": a, "b": b, "x": x, "y": y, "_cdc_lsn": lsn})
        for (a, b), (x, y, lsn) in held.items()
    ]


@st.composite
def keyed_merges(draw: st.DrawFn, *, soft_deletes: bool = False) -> KeyedMerge:
    truncated_at = draw(st.none() | lsns)
    newer = st.integers(truncated_at or 1, 12)
    operations = st.sampled_from("UDS" if soft_deletes else "UD")
    finals = draw(st.dictionaries(keys, st.tuples(texts, floats, newer, operations), max_size=6))
    rows: list[Row] = []
    refs = itertools.count()
    unchanged: set[str] = set()
    for (a, b), (x, y, lsn, operation) in finals.items():
        row = {"a": a, "b": b, "x": x, "y": y, "_cdc_lsn": lsn, "_cdc_op": operation}
        if operation != "D" and truncated_at is None:
            left_out = draw(st.sets(st.sampled_from(["x", "y"])))
            unchanged |= left_out
            if left_out:
                positions = sorted(KEYED.get_field_index(name) for name in left_out)
                row["_cdc_unchanged"] = f".{'.'.join(map(str, positions))}."
                row |= dict.fromkeys(left_out)
                hops = draw(
                    st.lists(
                        st.tuples(keys, st.integers(0, 12)), max_size=3, unique_by=lambda h: h[1]
                    )
                )
                if hops:
                    row["_cdc_ref"] = next(refs)
                    rows += [
                        {
                            "a": c,
                            "b": d,
                            "_cdc_lsn": at,
                            "_cdc_op": "H",
                            "_cdc_ref": row["_cdc_ref"],
                        }
                        for (c, d), at in hops
                    ]
        rows.append(stamped(row))
    schema = pa.schema([*KEYED, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])
    return KeyedMerge(
        TargetTable("", KEYED),
        ("a", "b"),
        pa.Table.from_pylist(rows, schema),
        None if truncated_at is None else Lsn(truncated_at),
        tuple(sorted(unchanged)),
        has_hops=any(row["_cdc_op"] == "H" for row in rows),
        soft_deletes=soft_deletes,
        truncated_time=truncated_at,
    )


@st.composite
def bag_rows(draw: st.DrawFn) -> list[Row]:
    rows = draw(st.lists(st.tuples(texts, any_floats, held_lsns, st.integers(1, 3)), max_size=5))
    return [
        stamped({"x": x, "y": y, "z": None, "_cdc_lsn": lsn})
        for x, y, lsn, copies in rows
        for _ in range(copies)
    ]


@st.composite
def bag_merges(draw: st.DrawFn) -> MultisetMerge:
    truncated_at = draw(st.none() | lsns)
    newer = st.integers(truncated_at or 1, 12)
    events = draw(st.lists(st.tuples(texts, any_floats, newer, st.booleans()), max_size=10))
    events.sort(key=lambda event: event[2])
    rows = [
        stamped(
            {"x": x, "y": y, "_cdc_lsn": lsn, "_cdc_op": "D" if deleted else "U", "_cdc_ref": ref}
        )
        for ref, (x, y, lsn, deleted) in enumerate(events)
    ]
    schema = pa.schema([*BAG, *METADATA_FIELDS, *MULTISET_CONTROL_FIELDS])
    return MultisetMerge(
        TargetTable("", BAG),
        pa.Table.from_pylist(rows, schema),
        ("x", "y", "z"),
        None if truncated_at is None else Lsn(truncated_at),
    )


def comparable(rows: list[Row]) -> Counter[str]:
    return Counter(
        repr([(name, _plain(value)) for name, value in sorted(row.items())]) for row in rows
    )


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value


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
