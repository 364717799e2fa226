"""Following a definition: what is taken over in place, and what asks for a reading."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from cdc_core.ports.catalog import SourceTable
from cdc_core.tables.message_columns import has_names, resolve_columns
from cdc_core.tables.schema_change import (
    evolve,
    first_state,
    redefined,
    widens,
)
from cdc_core.values.checkpoint import FormerColumns
from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName

ID = Column("id", pa.int64(), 20, attnum=1)
TEXT, CIDR, INET, VARCHAR, DOMAIN = 25, 650, 869, 1043, 16400


def table(*columns: Column, unsent: tuple[int, ...] = (), last_column: int = 0) -> SourceTable:
    relation = Relation(
        1, TableName("public", "t"), (ID, *columns), ReplicaIdentity.DEFAULT, ("id",)
    )
    return SourceTable(
        relation, Fingerprint(unsent=unsent, last_column=last_column), published=True
    )


@pytest.mark.parametrize(
    ("old", "new", "reread"),
    [
        (VARCHAR, TEXT, False),
        (TEXT, VARCHAR, False),
        (CIDR, INET, True),
        (DOMAIN, INET, True),
        (TEXT, DOMAIN, True),
        (CIDR, CIDR, False),
    ],
)
def test_a_type_that_may_print_differently_is_read_again(old: int, new: int, reread: bool) -> None:
    before = first_state(table(Column("c", pa.string(), old, 5, attnum=2)), "t", Lsn(1))
    evolution = evolve(before, table(Column("c", pa.string(), new, 9, attnum=2)))
    assert evolution.reread == ("type of column c changed" if reread else "")


@pytest.mark.parametrize(("unsent", "reason"), [((2,), "column g was not sent before"), ((), "")])
def test_a_column_that_was_not_sent_has_values_already(
    unsent: tuple[int, ...], reason: str
) -> None:
    before = first_state(table(unsent=unsent), "t", Lsn(1))
    evolution = evolve(before, table(Column("g", pa.int32(), 23, attnum=2)))
    assert evolution.reread == reason


@pytest.mark.parametrize(
    ("moments", "message", "numbers"),
    [
        # Exactly the names of a moment.
        ("id1 a2 | id1 b2", "id a", [1, 2]),
        ("id1 a2 | id1 b2 a3", "id a", [1, 2]),
        ("id1 b2 a3 | id1 a3", "id a", [1, 3]),
        # Of two moments, with other columns.
        ("id1 a2 | id1 b2 a3 | id1 a3", "id a", None),
        # Dropped before another one was added; the one or the other, under the former's name; of
        # no moment that is known.
        ("id1 a2 b3 | id1 a2 c4", "id a", [1, 2]),
        ("id1 a2 b3 | id1 a2 c4", "id a b", None),
        ("id1 a2 b3 | id1 a2 c4", "id a b c", [1, 2, 3, 4]),
        ("id1 a2 b3 | id1 a2 i4", "id a b", [1, 2, 3]),
        ("id1 a2 | id1 a2 -3", "id a x", None),
        ("id1 a2 | id1 a2", "id a x", None),
        # Added, dropped and added again; a name that was lent to another column for a time.
        ("id1 a2 | id1 a2 -3 x4", "id a x", None),
        ("id1 a2 b3 | id1 a2 b3 -4", "id a z b", None),
        # RENAME b TO c; the message; RENAME c TO d; ADD c.
        ("id1 b2 | id1 d2 c3", "id c", [1, 2]),
        ("id1 d2 c3", "id c", None),
        # One column before the one that stayed, or one behind it.
        ("id1 a2 b3 c4 | id1 b3", "id b a", None),
        # DROP a; DROP b; ADD a; the message; RENAME a TO c.
        ("id1 a2 b3 | id1 c4", "id a", None),
        # DROP a; RENAME b TO a; the message; RENAME a TO c.
        ("id1 a2 b3 | id1 c3", "id a", [1, 3]),
        # A single moment is the message's own.
        ("id1 a2 b3", "id a", None),
        # Names that other columns had before, in another order.
        ("id1 a2 b3 | id1 b2 c3", "id b a", [1, 2, 3]),
    ],
)
def test_names_that_are_columns_of_a_moment_in_between(
    moments: str, message: str, numbers: list[int] | None
) -> None:
    """`-4` is a column that was added and dropped; `i` is an integer, others are texts."""

    def described(columns: str) -> SourceTable:
        given = [c for c in columns.split()[1:] if c[0] != "-"]
        found = (
            Column(c[:-1], pa.string(), 23 if c[0] == "i" else TEXT, attnum=int(c[-1]))
            for c in given
        )
        return table(*found, last_column=max(int(c[-1]) for c in columns.split()))

    first, *later = map(described, moments.split("|"))
    state, former = first_state(first, "t", Lsn(1)), []
    for moment in later:
        former.append(FormerColumns(state.names, state.fingerprint.last_column, until=Lsn(9)))
        state = evolve(state, moment).state
    columns = [Column(name, pa.string(), TEXT) for name in message.split()[1:]]
    found = resolve_columns(table(*columns).relation, state, former)
    assert (found and [c.attnum for c in found]) == numbers


def decimal(precision: int, scale: int) -> pa.DataType:
    return pa.decimal128(precision, scale)


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        (pa.string(), pa.string(), True),
        (pa.int16(), pa.int32(), True),
        (pa.int16(), pa.int64(), True),
        (pa.int32(), pa.int64(), True),
        (pa.int32(), pa.int16(), False),
        (pa.int64(), pa.int32(), False),
        (pa.int32(), pa.float64(), False),
        (pa.int32(), decimal(10, 0), False),
        (decimal(10, 2), decimal(12, 2), True),
        (decimal(10, 2), decimal(10, 2), True),
        (decimal(12, 2), decimal(10, 2), False),
        (decimal(10, 2), decimal(12, 4), False),
        (decimal(10, 2), pa.string(), False),
        (pa.float32(), pa.float64(), True),
        (pa.float64(), pa.float32(), False),
        (pa.float32(), pa.string(), False),
        (pa.date32(), pa.timestamp("us"), False),
    ],
    ids=str,
)
def test_a_type_that_holds_every_value_of_another(
    old: pa.DataType, new: pa.DataType, fits: bool
) -> None:
    assert widens(old, new) is fits


def test_tables_that_the_catalog_describes_otherwise() -> None:
    one = table(Column("c", pa.string(), TEXT, attnum=2))
    assert redefined([one], [one]) == set()
    assert redefined([one], []) == {1}
    assert redefined([one], [table()]) == {1}
    moved = replace(one, fingerprint=Fingerprint(storage="2"))
    assert redefined([one], [moved]) == {1}
    assert redefined([], [one]) == set()


@pytest.mark.parametrize(
    ("key", "columns", "changed"),
    [
        (("id",), (), False),
        (("other",), (Column("other", pa.int64(), 20, attnum=2),), True),
        (("id", "other"), (Column("other", pa.int64(), 20, attnum=2),), True),
        ((), (), True),
    ],
)
def test_another_key_is_read_again(
    key: tuple[str, ...], columns: tuple[Column, ...], changed: bool
) -> None:
    before = first_state(table(Column("other", pa.int64(), 20, attnum=2)), "t", Lsn(1))
    now = table(*(columns or (Column("other", pa.int64(), 20, attnum=2),)))
    evolution = evolve(before, replace(now, relation=replace(now.relation, key=key)))
    assert evolution.reread == ("its key changed" if changed else "")
    assert ("key changed" in evolution.changes) is changed


def test_a_key_column_that_is_renamed_is_the_same_key() -> None:
    before = first_state(table(), "t", Lsn(1))
    renamed = replace(
        table().relation, columns=(Column("number", pa.int64(), 20, attnum=1),), key=("number",)
    )
    evolution = evolve(before, replace(table(), relation=renamed))
    assert evolution.reread == ""
    assert list(evolution.changes) == ["column id renamed to number"]


def test_a_message_has_the_names_of_now_or_of_a_moment_before() -> None:
    state = first_state(table(Column("new", pa.string(), TEXT, attnum=2)), "t", Lsn(1))
    former = FormerColumns({1: "id", 2: "old"}, 2, until=Lsn(9))
    for name, known in (("new", True), ("old", True), ("other", False)):
        relation = table(Column(name, pa.string(), TEXT, attnum=2)).relation
        assert has_names(relation, state, [former]) is known
    assert not has_names(table(Column("old", pa.string(), TEXT, attnum=2)).relation, state, [])
