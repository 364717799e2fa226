"""A snapshot of an `InMemoryPostgres`, read in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import CdcError
from cdc_core.values.lsn import Lsn
from cdc_core.values.postgres_text import postgres_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from adapters.fakes.faults import FaultPlan
    from adapters.fakes.postgres import Row
    from cdc_core.values.changes import Unrepresentable
    from cdc_core.values.relation import Column, Relation


@dataclass(frozen=True)
class Chunk:
    rows: pa.Table
    unrepresentable: tuple[Unrepresentable, ...] = ()


@dataclass(frozen=True)
class InMemorySnapshot:
    """A page range is the rows from one number to another, or to the end; a horizon is an LSN."""

    lsn: Lsn
    taken_at: int
    #: What each snapshot saw, this one among them.
    seen: Mapping[Lsn, Mapping[int, list[Row]]]
    faults: FaultPlan
    chunk_rows: int
    range_rows: int | None

    @property
    def horizon(self) -> int:
        return self.lsn

    def page_ranges(self, relation: Relation, read: Collection[str] = ()) -> Sequence[str]:
        self.faults.pass_by("snapshot.page_ranges")
        count = len(self.seen[self.lsn].get(relation.oid, ()))
        size = self.range_rows or max(1, count)
        if not read and (self.range_rows is None or count <= size):
            return [WHOLE]
        taken = [bounds_of(page_range) for page_range in read]
        ends = {end for bounds in taken for end in bounds if end is not None}
        cuts = sorted({*range(0, max(1, count), size), *ends})
        ranges = zip(cuts, [*cuts[1:], None], strict=True)
        return [
            f"{start}-{'' if end is None else end}"
            for start, end in ranges
            if not any(covers(bounds, start) for bounds in taken)
        ]

    def unchanged(self, relation: Relation, page_range: str, rows: int, horizon: int) -> bool:
        self.faults.pass_by("snapshot.unchanged")
        then = self._rows(Lsn(horizon), relation, page_range)
        return len(then) == rows and then == self._rows(self.lsn, relation, page_range)

    def _rows(self, lsn: Lsn, relation: Relation, page_range: str) -> list[Row]:
        start, end = bounds_of(page_range)
        return self.seen[lsn].get(relation.oid, [])[start:end]

    def expect(self, ranges: Sequence[tuple[Relation, str]]) -> None:
        pass

    def read(self, relation: Relation, page_range: str = WHOLE) -> Iterator[Chunk]:
        self.faults.pass_by("snapshot.read")
        if relation.oid not in self.seen[self.lsn]:
            raise CdcError(f"table {relation.table} does not exist", "run again")
        rows = self._rows(self.lsn, relation, page_range)
        for start in range(0, len(rows), self.chunk_rows):
            self.faults.pass_by("snapshot.read.next")
            yield Chunk(table_of(relation, rows[start : start + self.chunk_rows]))

    def write_files(self, *_: object) -> None:
        """There are no workers."""


def bounds_of(page_range: str) -> tuple[int, int | None]:
    start, _, end = page_range.partition("-")
    return int(start or 0), int(end) if end else None


def covers(bounds: tuple[int, int | None], position: int) -> bool:
    start, end = bounds
    return start <= position and (end is None or position < end)


def table_of(relation: Relation, rows: Sequence[dict[str, Any]]) -> pa.Table:
    if not relation.columns_read:
        return pa.table({"": pa.nulls(len(rows))}).select([])
    return pa.table(
        [
            _values(column, [row.get(column.name) for row in rows])
            for column in relation.columns_read
        ],
        schema=pa.schema([(c.name, c.arrow_type) for c in relation.columns_read]),
    )


def _values(column: Column, values: Sequence[Any]) -> pa.Array:
    if column.rule.reads_text:
        values = [postgres_text(pa.scalar(value)) for value in values]
    return pa.array(values, column.arrow_type)
