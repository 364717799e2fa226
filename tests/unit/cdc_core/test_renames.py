"""Renames in place: only into names that are free, in an order that can be repeated."""

from __future__ import annotations

import pytest

from cdc_core.renames import in_order
from cdc_core.staging import TableRename

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
    "a name kept in another case": ("a>b", "B", "", "a>b"),
}


@pytest.mark.parametrize(("renames", "held", "possible", "blocked"), CASES.values(), ids=CASES)
def test_order(renames: str, held: str, possible: str, blocked: str) -> None:
    found = in_order([TableRename(*r.split(">")) for r in renames.split()], held.split())
    assert [f"{r.old}>{r.new}" for r in found.possible] == possible.split()
    assert [f"{r.old}>{r.new}" for r in found.blocked] == blocked.split()
