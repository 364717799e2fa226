"""The rows of one table, from the chunks of a snapshot to what a destination receives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdc_core.fold.row_layout import RowLayout, arrange, loaded_schema, metadata_of
from cdc_core.fold.unrepresentable import unrepresentable_rows
from cdc_core.ports.progress import ChunkRead, TableFinished, TableStarted
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import CdcError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from cdc_core.fold.unrepresentable import HeldUnrepresentable
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.progress import Progress
    from cdc_core.ports.snapshot_source import RowChunk, Snapshot
    from cdc_core.values.checkpoint import PartialReading, TableState


@dataclass(frozen=True)
class TableRanges:
    """How a table is read: page ranges kept from an earlier run, and those still to read."""

    reading: PartialReading
    unread: tuple[str, ...] = (WHOLE,)

    @property
    def whole(self) -> bool:
        """Whether the table is read in one go."""
        return not self.reading.ranges and len(self.unread) == 1


@dataclass
class TablesRead:
    """Counts of the tables read, the oids of those to read again because their definitions changed
    meanwhile, and the errors of those that were refused."""

    tables: int = 0
    rows: int = 0
    unrepresentable: int = 0
    unsteady: set[int] = field(default_factory=set)
    refused: dict[int, CdcError] = field(default_factory=dict)


@dataclass
class TableReading:
    """Reads one table. `state` is the table's state once it is read; `gone` is as in `Replacement`.

    Values that their columns cannot hold are added to `unrepresentable`.
    """

    snapshot: Snapshot
    table: SourceTable
    state: TableState
    ranges: TableRanges
    gone: frozenset[str] | None
    counts: TablesRead
    progress: Progress
    unrepresentable: HeldUnrepresentable

    def begin(self) -> None:
        rows = max(0, self.table.estimated_rows - self.ranges.reading.rows)
        self.progress.emit(TableStarted(str(self.table.relation.table), rows))

    def last_rows(self) -> Iterator[pa.Table]:
        """Yield the rows of the last page range, or of the whole table, and count it as read."""
        for page_range in self.ranges.unread[-1:]:
            yield from self.rows(page_range)
        self.counts.tables += 1
        self.progress.emit(TableFinished(str(self.table.relation.table)))

    def rows(self, page_range: str) -> Iterator[pa.Table]:
        """Yield the rows of a page range, with the target's columns and `METADATA_FIELDS`."""
        relation, state, snapshot = self.table.relation, self.state, self.snapshot
        layout = RowLayout.of(state, self.table.rules.hasher)
        schema, metadata = loaded_schema(state.target_table), metadata_of(snapshot)
        for chunk in self._chunks(page_range):
            rows = chunk.rows
            count = len(rows)
            if chunk.unrepresentable:
                found = unrepresentable_rows(
                    state.target, layout, relation.key, rows, chunk.unrepresentable,
                    int(snapshot.lsn), snapshot.taken_at,
                )  # fmt: skip
                self.unrepresentable.add(state.oid, found)
                self.counts.unrepresentable += len(found)
            self.counts.rows += count
            self.progress.emit(ChunkRead(str(relation.table), count, rows.nbytes))
            yield arrange(schema, layout.values(rows) | metadata, count)

    def _chunks(self, page_range: str) -> Iterator[RowChunk]:
        """Yield chunks of the source; an error that concerns this table alone is noted."""
        try:
            yield from self.snapshot.read(self.table.relation, page_range)
        except SourceUnavailable:
            raise
        except CdcError as error:
            self.counts.refused[self.table.relation.oid] = error
            raise
