"""The rows of one table, from a snapshot's pieces to what a destination is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.fold.unrepresentable import unrepresentable_rows
from cdc_core.ports.progress import ChunkRead, TableFinished, TableStarted
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import CdcError, SourceUnavailable
from cdc_core.values.merges import METADATA_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdc_core.fold.unrepresentable import HeldUnrepresentable
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.progress import Progress
    from cdc_core.ports.snapshot_source import RowsRead, Snapshot
    from cdc_core.values.checkpoint import PartialReading, TableState


@dataclass(frozen=True)
class Parts:
    """How a table is read: parts that are kept of an earlier reading, and those to be read."""

    reading: PartialReading
    unread: tuple[str, ...] = (WHOLE,)

    @property
    def one(self) -> bool:
        """Whether it is read whole."""
        return not self.reading.parts and len(self.unread) == 1


@dataclass
class TablesRead:
    """Counts of a reading, oids of the tables that must be read again, and what keeps tables from
    being read."""

    tables: int = 0
    rows: int = 0
    unrepresentable: int = 0
    unsteady: set[int] = field(default_factory=set)
    refused: dict[int, CdcError] = field(default_factory=dict)


@dataclass
class TableReading:
    """`state` is the table's own after the reading, `gone` as a `Replacement` has it."""

    snapshot: Snapshot
    table: SourceTable
    state: TableState
    parts: Parts
    gone: frozenset[str] | None
    counts: TablesRead
    progress: Progress
    #: Where values go that their columns cannot hold.
    cells: HeldUnrepresentable

    def begin(self) -> None:
        rows = max(0, self.table.estimated_rows - self.parts.reading.rows)
        self.progress.emit(TableStarted(str(self.table.relation.table), rows))

    def last_rows(self) -> Iterator[pa.Table]:
        """Rows of the last part, or of the whole table; after them it is read."""
        for part in self.parts.unread[-1:]:
            yield from self.rows(part)
        self.counts.tables += 1
        self.progress.emit(TableFinished(str(self.table.relation.table)))

    def rows(self, part: str) -> Iterator[pa.Table]:
        relation, state, snapshot = self.table.relation, self.state, self.snapshot
        target = state.target_table
        names = {c.name: c.target for c in state.columns if not c.dropped}
        schema = pa.schema([*target.schema, *METADATA_FIELDS])
        for piece in self._pieces(part):
            rows = piece.rows
            count = len(rows)
            sources = {names[column]: rows.column(column) for column in relation.column_names}
            columns = [sources.get(f.name, pa.nulls(count, f.type)) for f in target.schema]
            columns += [
                pa.repeat(pa.scalar(int(snapshot.lsn), pa.int64()), count),
                pa.repeat(pa.scalar(snapshot.taken_at, METADATA_FIELDS[1].type), count),
            ]
            if piece.unrepresentable:
                found = unrepresentable_rows(
                    state.target, names, relation.key, rows, piece.unrepresentable,
                    int(snapshot.lsn), snapshot.taken_at,
                )  # fmt: skip
                self.cells.add(state.oid, found)
                self.counts.unrepresentable += len(found)
            self.counts.rows += count
            self.progress.emit(ChunkRead(str(relation.table), count))
            yield pa.table(columns, schema=schema)

    def _pieces(self, part: str) -> Iterator[RowsRead]:
        """Pieces of the source; notes an error that is this table's alone."""
        try:
            yield from self.snapshot.read(self.table.relation, part)
        except SourceUnavailable:
            raise
        except CdcError as error:
            self.counts.refused[self.table.relation.oid] = error
            raise
