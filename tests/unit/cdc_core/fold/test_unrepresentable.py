"""Values that no column holds: the key of their row, and how they wait for their load."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from datetime import date

import pyarrow as pa
import pytest

from adapters.fakes import InMemoryDestination
from cdc_core.fold import unrepresentable
from cdc_core.fold.row_layout import RowLayout
from cdc_core.fold.unrepresentable import HeldUnrepresentable, unrepresentable_rows
from cdc_core.values.changes import Unrepresentable
from cdc_core.values.checkpoint import ColumnState
from cdc_core.values.masks import Hasher
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA
from cdc_core.values.table_rules import ColumnRule


def cells(table: str, text: str) -> pa.Table:
    row = {"table_name": table, "column_name": "day", "key": "{}", "value_text": text}
    rows = [row | {"_cdc_lsn": 1, "_cdc_committed_at": 0}]
    return pa.Table.from_pylist(rows, schema=UNREPRESENTABLE_SCHEMA)


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_what_memory_should_not_hold_is_staged(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrepresentable, "HELD_BYTES", held)
    waiting = HeldUnrepresentable(InMemoryDestination().stage)
    for number in range(3):
        waiting.add(1, cells("a", f"a{number}"))
        waiting.add(2, cells("b", f"b{number}"))
    waiting.discard(2)
    assert waiting.oids == {1}
    taken = waiting.take()
    assert not waiting.oids
    rows = [piece if isinstance(piece, pa.Table) else piece.read() for piece in taken]
    assert [text for piece in rows for text in piece.column("value_text").to_pylist()] == [
        "a0",
        "a1",
        "a2",
    ]
    assert sum(isinstance(piece, pa.Table) for piece in taken) == bool(held)


def layout(**targets: str) -> RowLayout:
    columns = [
        ColumnState(number, name, targets.get(name, name), 0, -1, pa.string())
        for number, name in enumerate(("day", "id", "n"), start=1)
    ]
    return RowLayout({column.name: column for column in columns}, Hasher(b"key"))


@pytest.mark.parametrize("rule", [ColumnRule.EXCLUDE, ColumnRule.NULL, ColumnRule.LAST4])
def test_a_value_that_a_rule_hides_is_not_kept(rule: ColumnRule) -> None:
    rows = pa.table({"day": pa.array([None, None], pa.string()), "id": [7, 8]})
    values = [Unrepresentable("n", 0, "NaN"), Unrepresentable("day", 1, "infinity")]
    shown = layout()
    hidden = replace(shown, columns=shown.columns | {"n": replace(shown.columns["n"], rule=rule)})
    found = unrepresentable_rows("t", hidden, ("id",), rows, values, 1, 0)
    assert found.column("value_text").to_pylist() == ["infinity"]


def test_a_key_that_is_hashed_is_not_shown() -> None:
    rows = pa.table({"id": ["secret"], "n": pa.array([None], pa.string())})
    shown = layout()
    hidden = replace(shown.columns["id"], rule=ColumnRule.HASH)
    found = unrepresentable_rows(
        "t", replace(shown, columns=shown.columns | {"id": hidden}), ("id",), rows,
        [Unrepresentable("n", 0, "NaN")], 1, 0,
    )  # fmt: skip
    assert "secret" not in str(found.to_pydict())
    expected = hmac.new(b"key", b"secret", "sha256").hexdigest()
    assert json.loads(found.column("key")[0].as_py()) == {"id": expected}


def test_a_key_has_its_text_also_where_it_cannot_be_held_itself() -> None:
    rows = pa.table({"day": pa.array([None, date(2020, 1, 1)]), "id": [7, 8], "n": [None, None]})
    values = [
        Unrepresentable("n", 0, "NaN"),
        Unrepresentable("day", 0, "infinity"),
        Unrepresentable("n", 1, "NaN"),
    ]
    found = unrepresentable_rows("t", layout(id="ID"), ("day", "id"), rows, values, 1, 0)
    first, second = {"day": "infinity", "ID": "7"}, {"day": "2020-01-01", "ID": "8"}
    keys = [json.loads(key) for key in found.column("key").to_pylist()]
    assert keys == [first, first, second]
