"""Keys that no double is exactly: a store that keeps their range as doubles must find them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from adapters.dlt_destination.destination import DltDestination
from cdc_core.values.merges import LoadBatch, TargetTable
from tests.contracts.destination_contract import checkpoint, keyed, table_of

if TYPE_CHECKING:
    from adapters.dlt_destination.settings import PipelineSettings
    from tests.integration.destination.stores import Store


@pytest.mark.parametrize(("precision", "scale"), [(16, 2), (18, 9), (20, 0), (38, 18)])
def test_rows_are_found_by_large_decimals(
    store: Store, settings: PipelineSettings, precision: int, scale: int
) -> None:
    target = TargetTable(
        "d", pa.schema([("id", pa.decimal128(precision, scale)), ("v", pa.int32())])
    )

    def key(number: int) -> Decimal:
        digits = f"7{number:03}".ljust(precision, "9")
        return Decimal(int(digits)).scaleb(-scale)

    def changes(numbers: range, lsn: int, operation: str) -> LoadBatch:
        rows = [{"id": key(n), "v": lsn, "_cdc_lsn": lsn, "_cdc_op": operation} for n in numbers]
        return LoadBatch(merges=(keyed(target, rows),))

    with DltDestination(store(), settings) as destination:
        rows = [{"id": key(n), "v": 1, "_cdc_lsn": 1} for n in range(3)]
        table_of(target, rows).load(destination, 1)
        for lsn, number in enumerate(range(3), 2):
            one = range(number, number + 1)
            destination.load(changes(one, lsn, "U" if number else "D"), checkpoint(lsn))
        found = [row for piece in destination.scan("d", ["id", "v"]) for row in piece.to_pylist()]
    assert sorted(found, key=lambda row: row["v"]) == [
        {"id": key(1), "v": 3},
        {"id": key(2), "v": 4},
    ]
