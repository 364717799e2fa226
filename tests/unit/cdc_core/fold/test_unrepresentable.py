"""Values that no column holds: the key of their row, and how they wait for their load."""

from __future__ import annotations

import json
from datetime import date

import pyarrow as pa
import pytest

from adapters.fakes import InMemoryDestination
from cdc_core.fold import unrepresentable
from cdc_core.fold.unrepresentable import HeldUnrepresentable, unrepresentable_rows
from cdc_core.values.changes import Unrepresentable
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA


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


def test_a_key_has_its_text_also_where_it_cannot_be_held_itself() -> None:
    rows = pa.table({"day": pa.array([None, date(2020, 1, 1)]), "id": [7, 8], "n": [None, None]})
    values = [
        Unrepresentable("n", 0, "NaN"),
        Unrepresentable("day", 0, "infinity"),
        Unrepresentable("n", 1, "NaN"),
    ]
    names = {"day": "day", "id": "ID", "n": "n"}
    found = unrepresentable_rows("t", names, ("day", "id"), rows, values, 1, 0)
    first, second = {"day": "infinity", "ID": "7"}, {"day": "2020-01-01", "ID": "8"}
    keys = [json.loads(key) for key in found.column("key").to_pylist()]
    assert keys == [first, first, second]
