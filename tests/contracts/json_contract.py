"""What every `Destination` promises whose tables can have JSON in a type of its own.

All texts here are canonical, so that a destination which keeps the text and one which keeps the
value alone return the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from cdc_core.values.merges import LoadBatch
from tests.contracts.destination_contract import (
    ORDERS,
    checkpoint,
    content,
    keyed,
    multiset,
    table_of,
)
from tests.contracts.opened_destination import OpenedDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.ports.destination import Destination

DOCS = replace(ORDERS, name="docs", variants=frozenset({"doc"}))
TEXTS = [
    "null", "true", '"null"', '""', "0", "-1.5", "1e300", "[]", "{}", '{"a":{"b":[null,"é\\n"]}}',
    "12345678901234567890123456789012345678", "0.0000000000000000000000000000000000001",
]  # fmt: skip


class JsonContract(OpenedDestination):
    """JSON in a type of its own."""

    def test_every_value_is_the_same_value(self, opened: Callable[[], Destination]) -> None:
        rows = [{"id": n, "doc": text, "_cdc_lsn": 1} for n, text in enumerate([*TEXTS, None])]
        expected = sorted(((row["id"], row["doc"]) for row in rows), key=repr)
        with opened() as destination:
            table_of(DOCS, rows).load(destination, 1)
            assert content(destination, "docs", "id", "doc") == expected
            merged = replace(DOCS, name="merged")
            destination.load(LoadBatch(merges=(keyed(merged, rows),)), checkpoint(2))
            assert content(destination, "merged", "id", "doc") == expected

    def test_values_that_were_not_sent_are_kept(self, opened: Callable[[], Destination]) -> None:
        first = keyed(DOCS, [{"id": n, "doc": f"[{n}]", "_cdc_lsn": 10} for n in (1, 2, 5)])
        second = keyed(
            DOCS,
            [
                {"id": 1, "note": "b", "_cdc_lsn": 20, "_cdc_unchanged": ".2."},
                {"id": 2, "doc": "null", "_cdc_lsn": 20},
                {"id": 5, "_cdc_op": "D", "_cdc_lsn": 20},
                {"id": 6, "note": "moved", "_cdc_lsn": 20, "_cdc_unchanged": ".2.", "_cdc_ref": 0},
                {"id": 5, "_cdc_op": "H", "_cdc_lsn": 0, "_cdc_ref": 0},
            ],
            unchanged_columns=("doc",),
            has_hops=True,
        )
        with opened() as destination:
            for number, merge in enumerate((first, second, second), start=1):
                destination.load(LoadBatch(merges=(merge,)), checkpoint(number))
            assert content(destination, "docs", "id", "note", "doc") == [
                (1, "b", "[1]"), (2, None, "null"), (6, "moved", "[5]"),
            ]  # fmt: skip

    def test_rows_without_key_are_counted(self, opened: Callable[[], Destination]) -> None:
        a, b, c = ({"id": 1, "doc": doc} for doc in ('{"a":1}', "null", None))
        first = multiset(DOCS, [{**row, "_cdc_lsn": 10} for row in (a, a, b, b, c)])
        gone = [{**row, "_cdc_op": "D", "_cdc_lsn": 20} for row in (a, b, c)]
        second = multiset(DOCS, [*gone, {**c, "_cdc_lsn": 21}])
        with opened() as destination:
            for number, merge in enumerate((first, second, second), start=1):
                destination.load(LoadBatch(merges=(merge,)), checkpoint(number))
            found = Counter(content(destination, "docs", "doc"))
            assert found == {(a["doc"],): 1, ("null",): 1, (None,): 1}

    def test_a_replacement_changes_the_type(self, opened: Callable[[], Destination]) -> None:
        rows = [{"id": n, "doc": text, "_cdc_lsn": 1} for n, text in enumerate(TEXTS)]
        texts = replace(DOCS, variants=frozenset())
        expected = sorted(((row["id"], row["doc"]) for row in rows), key=repr)
        with opened() as destination:
            for number, target in enumerate((texts, DOCS, texts, DOCS), start=1):
                table_of(target, rows).load(destination, number)
                assert content(destination, "docs", "id", "doc") == expected

    def test_a_column_is_added(self, opened: Callable[[], Destination]) -> None:
        before = replace(DOCS, schema=DOCS.schema.remove(2), variants=frozenset())
        first = keyed(before, [{"id": 1, "_cdc_lsn": 10}])
        second = keyed(DOCS, [{"id": 2, "doc": "{}", "_cdc_lsn": 20}])
        with opened() as destination:
            for number, merge in enumerate((first, second), start=1):
                destination.load(LoadBatch(merges=(merge,)), checkpoint(number))
            assert content(destination, "docs", "id", "doc") == [(1, None), (2, "{}")]
