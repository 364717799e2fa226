"""The rows of one table, from the chunks of a snapshot to the destination, which stores them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cdc_core.fold.snapshot_rows import SnapshotRows
from cdc_core.ports.progress import ChunkRead, TableFinished, TableStarted
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import CdcError, SettingsError, SourceUnavailable
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
    from cdc_core.values.row_files import WrittenFiles


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
        laid_out = SnapshotRows.of(self.state, self.table, self.snapshot)
        files = self._files(page_range, laid_out, name)
        if files is None:
            rows = self._rows(page_range, laid_out)
            count = self.destination.write(name, laid_out.target, rows)
        else:
            count = self._take(files, laid_out, name)
        self.written.append(name)
        self.rows += count
        return name, count

    def _files(self, page_range: str, laid_out: SnapshotRows, name: str) -> WrittenFiles | None:
        """Return the files in which workers wrote a page range; None if this process reads it."""
        new_folder = partial(self.destination.shared_folder, name)
        with self._noting():
            return self.snapshot.write_files(self.table.relation, page_range, laid_out, new_folder)

    def _take(self, files: WrittenFiles, laid_out: SnapshotRows, name: str) -> int:
        if files.unrepresentable is not None:
            staged = self.destination.stage_files(files.unrepresentable)
            self.unrepresentable.add_staged(self.oid, staged)
            self.values += files.unrepresentable.rows
        rows = files.rows
        self.destination.store_files(name, laid_out.target, rows)
        self.progress.emit(ChunkRead(str(self.table.relation.table), rows.rows, rows.size))
        return rows.rows

    def _rows(self, page_range: str, laid_out: SnapshotRows) -> Iterator[pa.Table]:
        """Yield the rows of a page range, with the target's columns and `METADATA_FIELDS`."""
        relation = self.table.relation
        for chunk in self._chunks(page_range):
            rows, unfit = laid_out.laid_out(chunk)
            if len(unfit):
                self.unrepresentable.add(self.oid, unfit)
                self.values += len(unfit)
            self.progress.emit(ChunkRead(str(relation.table), len(rows), chunk.rows.nbytes))
            yield rows

    def _chunks(self, page_range: str) -> Iterator[RowChunk]:
        with self._noting():
            yield from self.snapshot.read(self.table.relation, page_range)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note an error of the source that concerns this table alone."""
        try:
            yield
        except (SourceUnavailable, SettingsError):
            raise
        except CdcError as error:
            self.refused = error
            raise
