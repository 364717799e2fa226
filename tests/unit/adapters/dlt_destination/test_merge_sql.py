"""The SQL of merges, run by DuckDB in memory, against the meaning that the fake destination has."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.dlt_destination.sql import merge_sql, unrepresentable_sql
from adapters.dlt_destination.sql.dialect import DUCKDB
from adapters.fakes.merges import marked_as_deleted, merge_keyed, merge_multiset
from cdc_core.values.history import Moment
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import (
    DELETED_AT_FIELD,
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
    UNREPRESENTABLE_SCHEMA,
    ColumnRename,
    KeyedMerge,
    MultisetMerge,
    Replacement,
    TableRename,
    TargetTable,
)
from tests.support.merge_cases import (
    BAG,
    KEYED,
    THEN,
    bag_merges,
    bag_rows,
    comparable,
    keyed_merges,
    keyed_rows,
    stamped,
)

if TYPE_CHECKING:
    from adapters.dlt_destination.sql.merge_sql import MergeRules
    from tests.support.merge_cases import Row

budget = settings(max_examples=25, deadline=None)


class Database:
    """DuckDB in memory with a table `target`, which gets the `staged` rows."""

    def __init__(self, schema: pa.Schema, rows: list[Row]) -> None:
        self.connection = duckdb.connect(config={"threads": 1})
        self.connection.execute("SET TimeZone = 'UTC'")
        self.put("target", pa.Table.from_pylist(rows, schema))

    def put(self, name: str, rows: pa.Table) -> None:
        self.connection.register("given", rows)
        self.connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM given")
        self.connection.unregister("given")

    def merge(self, rules: MergeRules, source: str) -> list[Row]:
        self.connection.execute(rules.statement(DUCKDB, source, "target"))
        return self.rows("SELECT * FROM target")

    def rows(self, query: str) -> list[Row]:
        return self.connection.sql(query).to_arrow_table().to_pylist()

    def value(self, expression: str) -> Any:
        (row,) = self.connection.execute(f"SELECT {expression}").fetchall()
        return row[0]


def full(schema: pa.Schema, *more: pa.Field) -> pa.Schema:
    """A table's columns as somebody else may have filled them."""
    return pa.schema([f.with_nullable(True) for f in (*schema, *METADATA_FIELDS, *more)])


@budget
@given(st.data())
@pytest.mark.parametrize("soft", [False, True])
def test_a_keyed_merge(soft: bool, data: st.DataObject) -> None:
    rows = data.draw(keyed_rows())
    fields = [DELETED_AT_FIELD] if soft else []
    if soft:
        rows = [
            {**row, DELETED_AT_FIELD.name: data.draw(st.sampled_from([None, THEN]))} for row in rows
        ]
    database = Database(full(KEYED, *fields), rows)
    for merge in data.draw(st.lists(keyed_merges(soft_deletes=soft), min_size=1, max_size=2)):
        database.put("staged", merge.rows)
        rules = merge_sql.keyed_rules(DUCKDB, merge)
        source = merge_sql.keyed_source(DUCKDB, merge, "staged", "target")
        rows = merge_keyed(rows, merge)
        names = [field.name for field in full(KEYED, *fields)]
        rows = [{name: row.get(name) for name in names} for row in rows]
        assert comparable(database.merge(rules, source)) == comparable(rows)


@budget
@given(rows=bag_rows(), merges=st.lists(bag_merges(), min_size=1, max_size=2))
def test_a_multiset_merge(rows: list[Row], merges: list[MultisetMerge]) -> None:
    database = Database(full(BAG), rows)
    for merge in merges:
        database.put("staged", merge.rows)
        rules = merge_sql.multiset_rules(DUCKDB, merge)
        source = merge_sql.multiset_source(DUCKDB, merge, "staged", "target")
        rows = merge_multiset(rows, merge)
        assert comparable(database.merge(rules, source)) == comparable(rows)


def test_a_merge_of_rows_without_columns_counts_them() -> None:
    rows = [stamped({"_cdc_lsn": 1}), stamped({"_cdc_lsn": 1})]
    database = Database(full(pa.schema([])), rows)
    events = [stamped({"_cdc_lsn": 2, "_cdc_op": op, "_cdc_ref": n}) for n, op in enumerate("UDU")]
    schema = pa.schema([*METADATA_FIELDS, ("_cdc_op", pa.string()), ("_cdc_ref", pa.int64())])
    merge = MultisetMerge(TargetTable("", pa.schema([])), pa.Table.from_pylist(events, schema), ())
    database.put("staged", merge.rows)
    found = database.merge(
        merge_sql.multiset_rules(DUCKDB, merge),
        merge_sql.multiset_source(DUCKDB, merge, "staged", "target"),
    )
    assert [row["_cdc_lsn"] for row in found] == [2, 2, 2]


AT = Moment(Lsn(50), 1_700_000_000_000_000)

FLOATS = (0.0, -0.0, 1.5, math.nan, None)


@pytest.mark.parametrize("one", FLOATS)
@pytest.mark.parametrize("other", FLOATS)
def test_keys_and_contents_that_are_equal(one: float | None, other: float | None) -> None:
    """-0.0 is 0.0 as a key, and another content; NaN equals NaN; NULL is in no key."""
    schema = pa.schema([("n", pa.int64()), ("f", pa.float64())])
    database = Database(schema, [{"n": 1, "f": one}])
    database.put("staged", pa.Table.from_pylist([{"n": 1, "f": other}], schema))
    there = "(SELECT COUNT(*) FROM target AS t JOIN staged AS s ON {})"
    both_nan = bool(one and other and math.isnan(one) and math.isnan(other))
    same = database.value(there.format(merge_sql.same_key(DUCKDB, schema, ["n", "f"], "t", "s")))
    assert same == (both_nan or (one is not None and one == other))
    values = (merge_sql.key_values(DUCKDB, schema, ["n", "f"], alias) for alias in "ts")
    rows = " UNION ALL ".join(
        f"SELECT {', '.join(v)} FROM {name} AS {alias}"
        for v, name, alias in zip(values, ("target", "staged"), "ts", strict=True)
    )
    groups = len(database.rows(f"SELECT DISTINCT * FROM ({rows})"))
    assert groups == (1 if same or one is other is None else 2)
    content = merge_sql.same_content(DUCKDB, schema, ["n", "f"], "t", "s")
    assert database.value(there.format(content)) == (repr(one) == repr(other))


def test_integers_beyond_doubles_are_different_keys() -> None:
    schema = pa.schema([("n", pa.int64()), *METADATA_FIELDS])
    numbers = (2**53, 2**53 + 1)
    rows = [stamped({"n": number, "_cdc_lsn": 1}) for number in numbers]
    database = Database(full(pa.schema([schema.field("n")])), rows)
    (value,) = merge_sql.key_values(DUCKDB, schema, ["n"], "t")
    assert len(database.rows(f"SELECT DISTINCT {value} FROM target AS t")) == 2

    database.put("new", pa.table({"n": [numbers[0]]}))
    target = TargetTable("t", pa.schema([schema.field("n")]))
    step = Replacement(target, (), ("n",), frozenset(), soft_deletes=AT)
    kept = merge_sql.kept_from(DUCKDB, step, schema, "target", "new")
    assert [row["n"] for row in database.rows(f"SELECT t.n {kept}")] == [numbers[1]]


#: A type for JSON that is no text.
WITH_JSON = replace(DUCKDB, parse_json="'<' || {} || '>'", json_text="trim({}, '<>')")


def test_json_in_a_type_of_its_own_is_parsed_when_it_is_stored() -> None:
    database = Database(full(KEYED), [stamped({"a": 1, "b": "k", "x": "<1>", "_cdc_lsn": 1})])
    schema = pa.schema([*KEYED, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])
    rows = [
        stamped({"a": a, "b": "k", "x": x, "_cdc_lsn": 2, "_cdc_op": "U"})
        for a, x in ((1, "2"), (2, "3"))
    ]
    target = TargetTable("", KEYED, frozenset({"x"}))
    merge = KeyedMerge(target, ("a", "b"), pa.Table.from_pylist(rows, schema))
    database.put("staged", merge.rows)
    source = merge_sql.keyed_source(WITH_JSON, merge, "staged", "target")
    found = database.merge(merge_sql.keyed_rules(WITH_JSON, merge), source)
    assert sorted((row["a"], row["b"], row["x"]) for row in found) == [
        (1, "k", "<2>"),
        (2, "k", "<3>"),
    ]


def test_json_in_a_type_of_its_own_is_compared_as_text() -> None:
    held = [stamped({"x": x, "_cdc_lsn": 1}) for x in ("<1>", "<2>")]
    database = Database(full(BAG), held)
    schema = pa.schema([*BAG, *METADATA_FIELDS, *MULTISET_CONTROL_FIELDS])
    events = [
        stamped({"x": x, "_cdc_lsn": 2, "_cdc_op": op, "_cdc_ref": ref})
        for ref, (x, op) in enumerate((("1", "D"), ("3", "U")))
    ]
    target = TargetTable("", BAG, frozenset({"x"}))
    merge = MultisetMerge(target, pa.Table.from_pylist(events, schema), ("x", "y", "z"))
    database.put("staged", merge.rows)
    # As text, like the staged rows.
    text = f"(SELECT * REPLACE ({WITH_JSON.json_text.format('x')} AS x) FROM target)"
    source = merge_sql.multiset_source(WITH_JSON, merge, "staged", text)
    found = database.merge(merge_sql.multiset_rules(WITH_JSON, merge), source)
    assert sorted(row["x"] for row in found) == ["<2>", "<3>"]


def test_windows_over_equal_values_or_all_rows() -> None:
    database = Database(pa.schema([("a", pa.int64())]), [{"a": 1}, {"a": 1}, {"a": 2}])
    for values, counts in ((["a"], [1, 2, 2]), ([], [3, 3, 3])):
        window = f"COUNT(*) OVER ({merge_sql.partition(values)})"
        found = database.rows(f"SELECT {window} AS n FROM target ORDER BY n")
        assert [row["n"] for row in found] == counts


# Soft deletes: rows that a replacement keeps.

HELD = pa.schema([("id", pa.float64()), ("a", pa.int32()), ("gone", pa.string())])
NOW = pa.schema(
    [("id", pa.float64()), ("a", pa.int64()), ("more", pa.string()), ("b", pa.string())]
)


@pytest.mark.parametrize("marks", [False, True])
def test_rows_that_a_replacement_keeps(marks: bool) -> None:
    fields = [DELETED_AT_FIELD] if marks else []
    held = full(pa.schema([*HELD, ("more", pa.string()), ("b", pa.string())]), *fields)
    rows = [
        stamped({"id": key, "a": 7, "gone": "g", "more": "m", "b": "b", "_cdc_lsn": 3})
        for key in (1.0, 2.0, -0.0, math.nan, None, 4.0)
    ]
    if marks:
        rows[-1][DELETED_AT_FIELD.name] = THEN
    # `more` has other values under the masks of now; `b` is not in the table yet.
    held = held.remove(held.get_field_index("b"))
    database = Database(held, rows)
    new = [{"id": key} for key in (1.0, 0.0, math.nan)]
    database.put("new", pa.Table.from_pylist(new, pa.schema([("id", pa.float64())])))
    target = TargetTable("t", NOW)
    step = Replacement(
        target, (), ("id",), frozenset(), soft_deletes=AT, emptied=frozenset({"more"})
    )
    values = merge_sql.kept_values(DUCKDB, step, held)
    kept = merge_sql.kept_from(DUCKDB, step, held, "target", "new")
    selected = ", ".join(f'{value} AS "{name}"' for name, value in values.items())
    found = database.rows(f"SELECT {selected} {kept}")
    wanted = [
        {name: row.get(name) for name in values}
        for row in marked_as_deleted([{**row, "b": None} for row in rows], new, step)
    ]
    assert comparable(found) == comparable(wanted)
    assert {row["id"] for row in found} == {2.0, 4.0}
    kinds = {
        f.name: f.type
        for f in database.connection.sql(f"SELECT {selected} {kept}").to_arrow_table().schema
    }
    assert (kinds["a"], kinds["b"]) == (pa.int64(), pa.string())


# Unrepresentable values.

CELL = {"table_name": "t", "column_name": "big", "key": '{"big": "it\'s"}', "value_text": "NaN"}


def cells(*changes: Row) -> list[Row]:
    return [{**CELL, "_cdc_lsn": 5, "_cdc_committed_at": THEN, **change} for change in changes]


def test_unrepresentable_values_are_stored_once() -> None:
    held = cells({}, {"key": "{}"})
    database = Database(UNREPRESENTABLE_SCHEMA, held)
    later = THEN + dt.timedelta(seconds=1)
    staged = cells(
        {"_cdc_committed_at": later}, {"_cdc_lsn": 6}, {"column_name": "b"}, {"table_name": "u"},
        {"value_text": "inf"}, {"value_text": "inf", "_cdc_committed_at": later},
    )  # fmt: skip
    database.put("staged", pa.Table.from_pylist(staged, UNREPRESENTABLE_SCHEMA))
    rules, source = unrepresentable_sql.rules(DUCKDB), unrepresentable_sql.source(DUCKDB, "staged")
    wanted = comparable([*held, *staged[1:4], staged[5]])
    assert comparable(database.merge(rules, source)) == wanted
    assert comparable(database.merge(rules, source)) == wanted


@pytest.mark.parametrize(
    ("rename", "changed"),
    [
        (
            TableRename("t", "it's"),
            [{"table_name": "it's"}, {"table_name": "it's", "column_name": "b"}],
        ),
        (
            ColumnRename("t", "big", 'o"dd'),
            [
                {"column_name": 'o"dd', "key": '{"o\\"dd": "it\'s"}'},
                {"column_name": "b", "key": '{"o\\"dd": "it\'s"}'},
            ],
        ),
    ],
)
def test_unrepresentable_values_follow_renames(
    rename: TableRename | ColumnRename, changed: list[Row]
) -> None:
    others = cells({"table_name": "u"})
    database = Database(UNREPRESENTABLE_SCHEMA, [*cells({}, {"column_name": "b"}), *others])
    for _ in range(2):
        database.connection.execute(unrepresentable_sql.renaming(DUCKDB, rename, "target"))
        found = database.rows("SELECT * FROM target")
        assert comparable(found) == comparable([*cells(*changed), *others])
    where = unrepresentable_sql.of_table(DUCKDB, "u")
    assert comparable(database.rows(f"SELECT * FROM target WHERE {where}")) == comparable(others)
