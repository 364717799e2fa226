"""Following a definition: what is taken over in place, and what asks for a reading."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from cdc_core.ports.catalog import SourceTable
from cdc_core.tables.message_columns import has_names, resolve_columns
from cdc_core.tables.schema_change import (
    evolve,
    first_state,
    hides_more,
    masked_otherwise,
    redefined,
    rules_changed,
    state_when_read,
    widens,
)
from cdc_core.values.checkpoint import FormerColumns, TableStatus
from cdc_core.values.fingerprint import Fingerprint
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import ColumnRename
from cdc_core.values.relation import Column, Relation, ReplicaIdentity, TableName
from cdc_core.values.table_rules import ColumnRule, TableRules

if TYPE_CHECKING:
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.table_rules import History

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


def text(name: str, attnum: int, rule: ColumnRule = ColumnRule.KEEP) -> Column:
    return Column(name, pa.string(), TEXT, attnum=attnum, rule=rule)


def loaded(*columns: Column, **changes: Any) -> TableState:
    return replace(first_state(table(*columns), "t", Lsn(1)), **changes)


def test_a_table_that_is_not_streamed_says_why() -> None:
    assert first_state(table(), "t", Lsn(1)).status is TableStatus.STREAMING
    state = first_state(replace(table(), not_streamed="it has no key"), "t", Lsn(1))
    assert (state.status, state.reason) == (TableStatus.NOT_STREAMED, "it has no key")


@pytest.mark.parametrize(
    ("history", "key", "reread"),
    [
        (("log",), (), "a column was dropped"),
        (("log",), ("id",), ""),
        ((), (), ""),
        (("scd2",), ("id",), ""),
    ],
)
def test_a_dropped_column_of_a_table_whose_log_has_no_key(
    history: tuple[History, ...], key: tuple[str, ...], reread: str
) -> None:
    rules = TableRules(history=history)

    def described(*columns: Column) -> SourceTable:
        found = replace(table(*columns), rules=rules)
        return replace(found, relation=replace(found.relation, key=key))

    before = first_state(described(text("a", 2)), "t", Lsn(1))
    evolution = evolve(before, described())
    assert evolution.changes == ("column a dropped",)
    assert evolution.reread == reread
    # Later comparisons do not report it again.
    again = evolve(evolution.state, described(text("b", 3)))
    assert (again.changes, again.reread) == (("column b added",), "")


def test_an_added_column_that_is_not_read_needs_no_values() -> None:
    hidden = replace(text("g", 2, ColumnRule.NULL), has_default=True)
    before = first_state(table(unsent=(2, 3)), "t", Lsn(1))
    assert evolve(before, table(hidden)).reread == ""
    evolution = evolve(before, table(hidden, text("h", 3)))
    assert evolution.reread == "column h was not sent before"


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("last_column", [2, 3])
def test_a_dropped_columns_name_may_have_been_borrowed(unseen: bool, last_column: int) -> None:
    before = first_state(table(text("a", 2), last_column=2), "t", Lsn(1))
    now = table(last_column=last_column)
    borrowed = unseen and last_column == 3
    reread = "another column may have had the name a for a while" if borrowed else ""
    assert evolve(before, now, unseen_rows=unseen).reread == reread
    assert evolve(before, now).reread == ""
    # Nothing has been dropped, or it was before.
    kept = table(text("a", 2), text("b", 3), last_column=3)
    assert evolve(before, kept, unseen_rows=True).reread == ""
    dropped = evolve(before, table(last_column=2)).state
    assert evolve(dropped, table(last_column=3), unseen_rows=True).reread == ""


def test_a_dropped_columns_name_that_another_has_now() -> None:
    before = evolve(loaded(text("a", 2)), table()).state
    evolution = evolve(before, table(text("a", 3)))
    assert evolution.reread == "column a was dropped, and another one has its name"
    assert [column.target for column in evolution.state.columns] == ["id", "a", "a_2"]


def test_two_columns_that_get_names_of_each_other_do_not_share_one() -> None:
    evolution = evolve(loaded(text("a", 2), text("b", 3)), table(text("b", 2), text("A", 3)))
    assert [column.target for column in evolution.state.columns] == ["id", "b", "A"]
    assert evolution.reread == "columns took one another's names"
    added = evolve(loaded(), table(text("a", 2), text("A", 3)))
    assert [column.target for column in added.state.columns] == ["id", "a", "A_2"]


def test_a_renamed_column_is_renamed_in_the_table_and_its_history() -> None:
    before = loaded(text("a", 2), rules=TableRules(history=("log", "scd2")))
    after = replace(table(text("b", 2)), rules=before.rules)
    evolution = evolve(before, after)
    assert evolution.renames == tuple(
        ColumnRename(name, "a", "b") for name in ("t", "t_history", "t_scd2")
    )
    assert evolution.reread == ""
    excluded = loaded(text("a", 2, ColumnRule.EXCLUDE))
    assert evolve(excluded, table(text("b", 2, ColumnRule.EXCLUDE))).renames == ()


def test_a_table_that_is_read_again_follows_its_columns() -> None:
    state, renames = state_when_read(None, table(text("a", 2)), "new", Lsn(5))
    assert (state.target, state.snapshot_lsn, renames) == ("new", Lsn(5), ())
    before = loaded(text("a", 2), text("b", 3), text("c", 4), next_image=7)
    # `a` is dropped, and `b` gets its name; `c` is dropped; `d` is new.
    state, renames = state_when_read(before, table(text("a", 3), text("d", 5)), "moved", Lsn(5))
    assert (state.target, state.snapshot_lsn, state.next_image) == ("moved", Lsn(5), 7)
    columns = [(column.attnum, column.target, column.dropped) for column in state.columns]
    assert columns == [(1, "id", False), (3, "a", False), (4, "c", True), (5, "d", False)]
    # The table still has the former `a`, so `b` cannot be renamed to it; all values are replaced.
    assert renames == ()
    _, renames = state_when_read(loaded(text("b", 3)), table(text("a", 3)), "t", Lsn(5))
    assert renames == (ColumnRename("t", "b", "a"),)


KEEP, HASH, LAST4 = ColumnRule.KEEP, ColumnRule.HASH, ColumnRule.LAST4
NULL, EXCLUDE = ColumnRule.NULL, ColumnRule.EXCLUDE


@pytest.mark.parametrize(
    ("before", "now", "hides", "otherwise"),
    [
        (KEEP, KEEP, False, False),
        (KEEP, HASH, True, True),
        (KEEP, NULL, True, True),
        (KEEP, EXCLUDE, True, False),
        (HASH, KEEP, False, True),
        (HASH, HASH, False, False),
        (HASH, LAST4, False, True),
        (LAST4, LAST4, False, False),
        (EXCLUDE, KEEP, False, False),
        (EXCLUDE, HASH, False, False),
        (KEEP, ColumnRule.VARIANT, False, False),
    ],
)
def test_rules_that_hide_more_or_show_values_otherwise(
    before: ColumnRule, now: ColumnRule, hides: bool, otherwise: bool
) -> None:
    one, other = loaded(text("a", 2, before), text("z", 3)), loaded(text("a", 2, now), text("z", 3))
    assert hides_more(one, other) is hides
    assert masked_otherwise(one, other) == ({"a"} if otherwise else set())
    # A column that was not there before.
    assert masked_otherwise(loaded(), loaded(text("a", 2, now))) == set()
    assert not hides_more(loaded(), loaded(text("a", 2, now)))


@pytest.mark.parametrize("rule", [KEEP, HASH, NULL, LAST4, EXCLUDE, ColumnRule.VARIANT])
def test_rules_hide_what_they_can_if_nobody_knows_those_before(rule: ColumnRule) -> None:
    now = loaded(text("a", 2, rule), text("z", 3))
    assert hides_more(None, now) is (rule in (HASH, NULL, LAST4, EXCLUDE))
    assert masked_otherwise(None, now) == ({"a"} if rule in (HASH, NULL, LAST4) else set())


def test_another_mask_key_shows_hashes_otherwise_and_nothing_else() -> None:
    columns = text("a", 2, HASH), text("b", 3, LAST4), text("c", 4)
    one = loaded(*columns, rules=TableRules(key_mark="one"))
    other = loaded(*columns, rules=TableRules(key_mark="other"))
    assert masked_otherwise(one, other) == {"a"}
    assert masked_otherwise(one, one) == set()


def test_a_mask_follows_a_column_by_number_and_counts_for_the_name_it_takes() -> None:
    before = loaded(text("a", 2, HASH), text("b", 3))
    # `a` was renamed to `b` and shows its values; the former `b` is gone.
    renamed = replace(loaded(text("B", 2)), oid=before.oid)
    assert masked_otherwise(before, renamed) == {"B"}
    # Of another table in this place, only the names are the same.
    another = replace(loaded(text("x", 2), text("b", 3, HASH)), oid=99)
    assert masked_otherwise(before, another) == {"b"}
    assert masked_otherwise(before, replace(loaded(text("x", 2)), oid=99)) == set()


@pytest.mark.parametrize(
    ("stored", "rule", "changed"),
    [
        (KEEP, KEEP, False),
        (KEEP, NULL, True),
        (HASH, KEEP, False),
        (HASH, NULL, True),
        (EXCLUDE, KEEP, False),
        (EXCLUDE, HASH, False),
    ],
)
def test_rules_of_a_column_that_the_source_has_dropped(
    stored: ColumnRule, rule: ColumnRule, changed: bool
) -> None:
    """Its values cannot be read again: only a rule that hides them more changes anything."""
    before = evolve(loaded(text("a", 2, stored)), table()).state
    now = replace(table(), rules=TableRules(rule_for=lambda _: rule))
    assert rules_changed(before, now) is changed
    assert rules_changed(loaded(), now) is False


def test_the_mask_key_counts_for_columns_that_can_be_hashed_again() -> None:
    one = TableRules(key_mark="one")
    before = loaded(text("a", 2, HASH), rules=one)
    assert rules_changed(before, replace(table(text("a", 2, HASH)), rules=TableRules()))
    dropped = evolve(before, replace(table(), rules=one)).state
    assert not rules_changed(dropped, replace(table(), rules=TableRules()))


def test_masked_columns_where_the_earlier_rules_are_not_known() -> None:
    now = loaded(text("a", 2, HASH), text("b", 3), text("c", 4, EXCLUDE), text("d", 5, NULL))
    assert masked_otherwise(None, now) == {"a", "d"}
    assert hides_more(None, now) is True
    assert hides_more(None, loaded(text("b", 3))) is False


@pytest.mark.parametrize(("settled", "kept"), [((100,), (101, 100)), ((), (101,))])
def test_a_partition_that_is_gone_is_kept_until_its_rows_are_removed(
    settled: tuple[int, ...], kept: tuple[int, ...]
) -> None:
    leaves = {oid: (oid, False, oid) for oid in (100, 101)}
    both = replace(table(), fingerprint=Fingerprint(partitions=(leaves[100], leaves[101])))
    one = replace(table(), fingerprint=Fingerprint(partitions=(leaves[101],)))
    evolution = evolve(first_state(both, "t", Lsn(1)), one, settled=settled)
    assert tuple(oid for oid, *_ in evolution.state.fingerprint.partitions) == kept
    assert bool(evolution.reread) is not bool(settled)
