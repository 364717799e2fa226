"""Renames in place: only into names that are free, in an order that can be repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_core.tables.renames import in_order
from cdc_core.values.merges import TableRename

CASES = {
    "one": ("a>b", "", "a>b", ""),
    "none": ("", "", "", ""),
    "a chain, its end first": ("a>b b>c", "", "b>c a>b", ""),
    "a circle": ("a>b b>a", "", "", "a>b b>a"),
    "a circle and one beside it": ("a>b b>a x>y", "", "x>y", "a>b b>a"),
    "into a circle": ("a>b b>a x>a", "", "", "a>b b>a x>a"),
    "a name that another keeps": ("a>b", "b", "", "a>b"),
    "behind one that is blocked": ("a>b c>a", "b", "", "a>b c>a"),
    "only its own case": ("a>A", "", "a>A", ""),
    "a name that another has too": ("t>y", "t", "", "t>y"),
    "a name that two claim": ("a>b a>c x>a", "", "", "x>a a>b a>c"),
    "a name kept in another case": ("a>b", "B", "", "a>b"),
}


@pytest.mark.parametrize(("renames", "held", "possible", "blocked"), CASES.values(), ids=CASES)
def test_order(renames: str, held: str, possible: str, blocked: str) -> None:
    found = in_order([TableRename(*r.split(">")) for r in renames.split()], held.split())
    assert [f"{r.old}>{r.new}" for r in found.possible] == possible.split()
    assert [f"{r.old}>{r.new}" for r in found.blocked] == blocked.split()


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("ABCDEF")),
    st.sets(st.sampled_from("ABCDEF")),
)
def test_each_name_is_free_when_it_is_taken_and_what_is_blocked_never_is(
    news: dict[str, str], held: set[str]
) -> None:
    renames = [TableRename(old, new) for old, new in news.items()]
    found = in_order(renames, held)
    assert sorted(found.possible + found.blocked, key=renames.index) == renames
    kept = {name.casefold() for name in held}
    pending = set(news) - kept

    def is_free(rename: TableRename) -> bool:
        return rename.new.casefold() not in kept | (pending - {rename.old})

    for rename in found.possible:
        assert is_free(rename)
        pending.remove(rename.old)
    assert not any(is_free(rename) for rename in found.blocked if rename.old in pending)


def test_a_schema_of_many_tables_is_renamed_in_time() -> None:
    renames = [TableRename(f"t{n}", f"t{n + 1}") for n in range(20_000)]
    assert in_order(renames).possible == tuple(reversed(renames))
