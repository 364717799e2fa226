"""Columns of a message are found as by a search of every way to read it, and in no more time than
the widest table needs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_core.tables.message_columns import resolve_columns
from cdc_core.values.checkpoint import ColumnState, FormerColumns, TableState
from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

INTEGER, TEXT, VARCHAR = 23, 25, 1043


def message(columns: Sequence[tuple[str, int]]) -> Relation:
    found = tuple(Column(name, pa.string(), type_oid) for name, type_oid in columns)
    return Relation(1, TableName("public", "t"), found, ReplicaIdentity.FULL)


def table(
    types: Mapping[int, int], now: Mapping[int, str], last: int, unsent: tuple[int, ...] = ()
) -> TableState:
    """Columns by number: their types, and names of those that are there now."""
    return TableState(
        1,
        TableName("public", "t"),
        "t",
        tuple(
            ColumnState(
                n, now.get(n, f"c{n}"), f"c{n}", types[n], -1, pa.string(), dropped=n not in now
            )
            for n in sorted(types)
        ),
        (),
        Lsn(1),
        fingerprint=Fingerprint(last_column=last, unsent=unsent),
    )


def searched(
    relation: Relation, state: TableState, former: Sequence[FormerColumns]
) -> tuple[ColumnState, ...] | None:
    """What `resolve_columns` is to give, by looking at every option of every place."""
    moments = [*(moment.names for moment in former), state.names]
    columns = {column.attnum: column for column in state.columns}
    readings = {
        tuple(moment) for moment in moments if tuple(moment.values()) == relation.column_names
    }
    if former:
        known = {attnum for moment in moments for attnum in moment}
        fingerprint = state.fingerprint
        unknown = {*range(former[0].last + 1, fingerprint.last_column + 1)}
        unknown -= known | {*fingerprint.unsent}
        always = moments[0].keys() & moments[-1].keys()
        options = [
            {attnum for attnum in known if any(m.get(attnum) == column.name for m in moments)}
            | {
                n
                for n in known
                if column.type_oid == columns[n].type_oid
                or {column.type_oid, columns[n].type_oid} <= {TEXT, VARCHAR}
            }
            | unknown
            for column in relation.columns
        ]
        readings |= rising(options, {*moments[-1]}, always)
    if len(readings) != 1:
        return None
    resolved = [columns.get(attnum) for attnum in readings.pop()]
    return None if None in resolved else tuple(resolved)  # type: ignore[arg-type]


def rising(
    options: Sequence[AbstractSet[int]], now: AbstractSet[int], always: AbstractSet[int]
) -> set[tuple[int, ...]]:
    found: set[tuple[int, ...]] = {()}
    for choices in options:
        found = {
            (*numbers, attnum)
            for numbers in found
            for attnum in choices
            for last in (numbers[-1] if numbers else 0,)
            if attnum > last and not any(last < between < attnum for between in now)
        }
    return {
        numbers
        for numbers in found
        if not any(attnum > (numbers[-1] if numbers else 0) for attnum in always)
    }


@st.composite
def histories(draw: st.DrawFn) -> tuple[Relation, TableState, list[FormerColumns]]:
    """Moments of a table that mostly follow from one another, and a message mostly of one."""
    names, types = st.sampled_from("abcd"), st.sampled_from([INTEGER, TEXT, VARCHAR])
    last = draw(st.integers(1, 3))
    moment = {n: draw(names) for n in range(1, last + 1)}
    moments, lasts = [dict(moment)], [last]
    for _ in range(draw(st.integers(0, 3))):
        for attnum in list(moment):
            match draw(st.sampled_from(["stays", "stays", "dropped", "renamed"])):
                case "dropped":
                    del moment[attnum]
                case "renamed":
                    moment[attnum] = draw(names)
        for _ in range(draw(st.integers(0, 2))):
            last += 1
            if draw(st.booleans()):  # else it was dropped again before anybody looked
                moment[last] = draw(names)
        moments.append(dict(moment))
        lasts.append(last)
    known = {attnum for found in moments for attnum in found}
    of_numbers = {attnum: draw(types) for attnum in known}
    unsent = tuple(draw(st.sets(st.integers(1, last), max_size=1)))
    state = table(of_numbers, moments[-1], last, unsent)
    former = [
        FormerColumns(found, its_last, Lsn(9))
        for found, its_last in zip(moments[:-1], lasts[:-1], strict=True)
    ]
    base = draw(st.sampled_from(moments))
    columns = [
        (name if draw(st.integers(0, 3)) else draw(names), of_numbers[attnum])
        for attnum, name in base.items()
        if draw(st.integers(0, 5))
    ]
    columns += draw(st.lists(st.tuples(names, types), max_size=2))
    return message(columns), state, former


@given(histories())
def test_columns_are_those_of_a_search_of_every_way(
    history: tuple[Relation, TableState, list[FormerColumns]],
) -> None:
    assert resolve_columns(*history) == searched(*history)


#: Columns of a message, types and names by number, the greatest number; earlier sets of names, each
#: with the greatest number of its time.
Case = tuple[
    Sequence[tuple[str, int]], Mapping[int, int], Mapping[int, str], int,
    Sequence[tuple[Mapping[int, str], int]],
]  # fmt: skip
#: Each needs a line of the search that random histories seldom reach.
RARE: dict[str, Case] = {
    "two ways to read two columns": (
        [("c", TEXT), ("c", TEXT)],
        {1: TEXT, 2: TEXT, 3: TEXT},
        {3: "b"},
        3,
        [({1: "c", 2: "a", 3: "b"}, 3)],
    ),
    "two ways that end with the same number": (
        [("c", INTEGER), ("b", INTEGER)],
        {1: INTEGER, 2: INTEGER},
        {},
        3,
        [({1: "b", 2: "b"}, 2)],
    ),
    "no column came": ([("d", TEXT)], {1: TEXT}, {}, 1, [({1: "a"}, 1)]),
    "a column that came and went": ([("b", INTEGER)], {1: INTEGER}, {}, 2, [({1: "c"}, 1)]),
    "no column, and one that came later": (
        [],
        {1: INTEGER, 4: INTEGER},
        {4: "c"},
        4,
        [({1: "a"}, 1), ({1: "a"}, 3)],
    ),
    "no column, between two columns": (
        [], {1: TEXT, 2: TEXT}, {2: "d"}, 3, [({1: "d"}, 1)],
    ),
    "columns that leave one by one": (
        [("b", INTEGER), ("c", VARCHAR), ("b", INTEGER)],
        {1: INTEGER, 2: VARCHAR, 3: INTEGER},
        {3: "b"},
        6,
        [({1: "c", 2: "b", 3: "b"}, 3), ({2: "b", 3: "b"}, 4), ({3: "b"}, 6)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RARE.values(), ids=RARE.keys())
def test_rare_messages_are_read_as_by_a_search_of_every_way(case: Case) -> None:
    columns, types, now, last, moments = case
    former = [FormerColumns(names, its_last, Lsn(9)) for names, its_last in moments]
    relation, state = message(columns), table(types, now, last)
    assert resolve_columns(relation, state, former) == searched(relation, state, former)


def test_the_widest_table_costs_next_to_nothing() -> None:
    """A search took two minutes: each place was tried with each of the other columns."""
    width = 1600
    types = dict.fromkeys(range(1, width + 1), TEXT)
    before = {n: f"c{n}" for n in types}
    now = {n: name for n, name in before.items() if n % 400}
    state = table(types, now, width)
    former = [FormerColumns(before, width, Lsn(9))]
    started = time.process_time()
    for names in (before, now):
        found = resolve_columns(message([(n, TEXT) for n in names.values()]), state, former)
        assert found is not None
        assert [column.attnum for column in found] == list(names)
    assert time.process_time() - started < 5
