"""Measure decoding alone, of pgoutput messages and query rows to Arrow: CPU seconds and rows/s.

Run: uv run python -m benchmarks.decode [ROWS]
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from adapters.pgoutput.wire.decoder import PgoutputDecoder
from adapters.pgoutput.wire.query_rows import decode_rows
from adapters.pgoutput.wire.type_rules import arrow_type
from adapters.pgoutput.wire.types import TypeMap
from cdc_core.values.relation import Column
from tests.unit.adapters.pgoutput.wire import encoder
from tests.unit.adapters.pgoutput.wire.records import packed

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

COLUMNS = [
    ("id", 20, -1),
    ("customer", 23, -1),
    ("name", 25, -1),
    ("amount", 1700, (12 << 16 | 2) + 4),
    ("quantity", 23, -1),
    ("placed_at", 1184, -1),
    ("note", 25, -1),
    ("paid", 16, -1),
    ("weight", 701, -1),
    ("attributes", 3802, -1),
]
TYPES = TypeMap()


def row(number: int) -> list[str | None]:
    return [
        str(number),
        str(number % 9973),
        f"customer number {number % 1000}",
        f"{number % 100000}.{number % 100:02}",
        str(number % 7),
        f"2024-05-{number % 28 + 1:02} 10:11:12.{number % 1000000:06}+00",
        None if number % 10 == 0 else "a note of moderate length",
        "t" if number % 2 else "f",
        repr(number / 7),
        f'{{"colour": "red", "size": {number % 50}}}',
    ]


def stored(number: int) -> list[object]:
    """The same row as it is stored, which a query gives."""
    return [
        number,
        number % 9973,
        f"customer number {number % 1000}",
        Decimal(number % 100000) + Decimal(number % 100) / 100,
        number % 7,
        datetime(2024, 5, number % 28 + 1, 10, 11, 12, number % 1000000, UTC),
        None if number % 10 == 0 else "a note of moderate length",
        bool(number % 2),
        number / 7,
        f'{{"colour": "red", "size": {number % 50}}}',
    ]


def relation(oid: int) -> bytes:
    columns = [(name == "id", name, type_oid, typmod) for name, type_oid, typmod in COLUMNS]
    return encoder.relation(oid, "public", f"orders{oid}", "d", columns)


def measure(what: str, rows: int, work: Callable[[], object]) -> None:
    best_cpu = best_wall = float("inf")
    for _ in range(3):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        best_cpu = min(best_cpu, time.process_time() - cpu)
        best_wall = min(best_wall, time.perf_counter() - wall)
    print(f"{what:45} {best_cpu:6.3f} s CPU {best_wall:6.3f} s {rows / best_wall:12,.0f} rows/s")


def main(rows: int) -> None:
    inserts = [encoder.insert(1, row(number)) for number in range(rows)]
    one = encoder.stream([encoder.begin(10), relation(1), *inserts, encoder.commit(10, 20)])

    def decode(stream: tuple[bytes, np.ndarray]) -> None:
        PgoutputDecoder(lambda _: TYPES, lambda _: None).decode(*stream)

    measure(f"{rows:,} inserts of 10 columns", rows, lambda: decode(one))
    updates = [
        encoder.update(1, row(number), key=row(number - 1)[:1] + [None] * 9)
        for number in range(1, rows // 4)
    ]
    moved = encoder.stream([encoder.begin(10), relation(1), *updates, encoder.commit(10, 20)])
    measure(f"{len(updates):,} updates of the key", len(updates), lambda: decode(moved))

    tiny: list[bytes] = []
    for number in range(rows // 10):
        lsn = 100 * number
        tiny.append(encoder.begin(lsn + 10))
        if number < 20:
            tiny.append(relation(number))
        tiny.append(encoder.insert(number % 20, row(number)))
        tiny.append(encoder.commit(lsn + 10, lsn + 20))
    many = encoder.stream(tiny)
    measure(f"{rows // 10:,} transactions over 20 tables", rows // 10, lambda: decode(many))

    columns = [
        Column(name, arrow_type(TYPES[oid], typmod), oid, typmod) for name, oid, typmod in COLUMNS
    ]
    oids = [oid for _, oid, _ in COLUMNS]
    result = packed(oids, [stored(number) for number in range(rows)])
    measure(f"{rows:,} rows of a query", rows, lambda: decode_rows(result, columns, TYPES))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
