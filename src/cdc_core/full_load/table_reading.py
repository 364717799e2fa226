"""The rows of one table, from the chunks of a snapshot to the destination, which stores them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdc_core.fold.row_layout import RowLayout, arrange, loaded_schema, metadata_of
from cdc_core.fold.unrepresentable import unrepresentable_rows
from cdc_core.ports.progress import ChunkRead, TableFinished, TableStarted
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import CdcError, SourceUnavailable
from cdc_core.values.merges import Replacement

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from cdc_core.fold.unrepresentable import HeldUnrepresentable
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.progress import Progress
    from cdc_core.ports.snapshot_source import RowChunk, Snapshot
    from cdc_core.values.checkpoint import PartialReading, TableState
    from cdc_core.values.history import HistoryDifference, HistoryStep, Moment


@dataclass(frozen=True)
class TableRanges:
    """How a table is read: page ranges stored by an earlier run, and those still to read."""

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

    @property
    def lost(self) -> set[int]:
        """The oids of the tables that were not read."""
        return self.unsteady | self.refused.keys()


@dataclass
class TableReading:
    """Reads one table and writes it to the destination, which stores the rows until a load replaces
    the table.

    `state` is the table's state once it is read; `gone` and `soft_deletes` are as in `Replacement`.
    `written` names the stored rows, `rows` and `values` count the rows read and the values that
    their columns cannot hold. The latter are added to `unrepresentable`.
    """

    snapshot: Snapshot
    table: SourceTable
    state: TableState
    ranges: TableRanges
    gone: frozenset[str] | None
    destination: Destination
    progress: Progress
    unrepresentable: HeldUnrepresentable
    soft_deletes: Moment | None = None
    #: Steps of the table's history before the difference, and the difference.
    history: tuple[HistoryStep, ...] = ()
    difference: HistoryDifference | None = None
    #: Columns that are hidden in rows that stay, as in `Replacement`.
    emptied: frozenset[str] = frozenset()
    written: list[str] = field(init=False)
    rows: int = 0
    values: int = 0
    #: The source's error, if it concerns this table alone.
    refused: CdcError | None = None

    def __post_init__(self) -> None:
        self.written = [stored.name for stored in self.ranges.reading.ranges]

    @property
    def oid(self) -> int:
        return self.state.oid

    @property
    def replacement(self) -> Replacement:
        state = self.state
        return Replacement(
            state.target_table,
            tuple(self.written),
            state.target_key,
            self.gone,
            self.soft_deletes,
            self.difference,
            self.emptied,
        )

    def begin(self) -> None:
        rows = max(0, self.table.estimated_rows - self.ranges.reading.rows)
        self.progress.emit(TableStarted(str(self.table.relation.table), rows))

    def write_last(self) -> None:
        """Write the last page range, or the whole table."""
        for page_range in self.ranges.unread[-1:]:
            self.write(page_range)
        self.progress.emit(TableFinished(str(self.table.relation.table)))

    def write(self, page_range: str) -> tuple[str, int]:
        """Write the rows of a page range; return the name under which they are stored, and their
        number."""
        # No two snapshots of a slot have the same LSN, so a killed run used other names.
        name = f"{self.oid}-{self.snapshot.lsn:X}-{len(self.written)}"
        count = self.destination.write(name, self.state.target_table, self._rows(page_range))
        self.written.append(name)
        self.rows += count
        return name, count

    def _rows(self, page_range: str) -> Iterator[pa.Table]:
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
                self.values += len(found)
            self.progress.emit(ChunkRead(str(relation.table), count, rows.nbytes))
            yield arrange(schema, layout.values(rows) | metadata, count)

    def _chunks(self, page_range: str) -> Iterator[RowChunk]:
        """Yield chunks of the source; an error that concerns this table alone is noted."""
        try:
            yield from self.snapshot.read(self.table.relation, page_range)
        except SourceUnavailable:
            raise
        except CdcError as error:
            self.refused = error
            raise
