"""The snapshot source port: whole tables by COPY, at the LSN where the stream starts.

Several sessions read in one exported snapshot, each a range of a table's pages. Each range is read
after a savepoint, and rolling back to it releases the table. So no session keeps a lock on a table
for the sake of the snapshot. Manual: "Snapshot Synchronization Functions"; "COPY"; "System
Columns", ctid; ADR 15.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from adapters.arrow_warmup import warm_up_arrow
from adapters.pgoutput.catalog.catalog_types import CatalogTypes
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.session.wal_position import HORIZON, NOW
from adapters.pgoutput.snapshot.exported_snapshot import guarded_snapshot
from adapters.pgoutput.snapshot.page_ranges import PageRange, page_ranges
from adapters.pgoutput.snapshot.range_readers import RangeReaders, TableQuery
from adapters.pgoutput.snapshot.row_ranges import file_pages, stored_relations
from adapters.pgoutput.snapshot.table_scan import (
    open_session_in,
    plan_scan,
    reading_cure,
)
from cdc_core.ports.snapshot_source import WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    import psycopg

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.exported_snapshot import ExportedSnapshot
    from adapters.pgoutput.snapshot.guards import SnapshotGuards
    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.snapshot.row_sessions import RowSession
    from adapters.pgoutput.snapshot.table_scan import TableScan
    from adapters.pgoutput.wire.query_rows import ReadRows
    from adapters.pgoutput.wire.types import TypeMap
    from cdc_core.ports.snapshot_source import LaidOutRows
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Relation
    from cdc_core.values.row_files import WrittenFiles


#: Transaction ids in an `xmin` wrap around at this number.
_XIDS = 1 << 32

#: A deleted row never returns, and an added one has a later `xmin`. So the rows are the same if
#: their number is, and none is from a transaction that had not ended at the horizon. `age` counts
#: back from now, and wraps around at half of all numbers: a row beyond that counts as new.
_ROWS_AND_NEW_ONES = """
SELECT count(*), count(*) FILTER (WHERE age(xmin) <= age('{xid}'::xid)
  OR pg_snapshot_xmax(pg_current_snapshot())::text::bigint - {horizon} >= 2 ^ 31)
"""


class OpenSnapshot:
    """The common part of each `Snapshot`."""

    def __init__(
        self, settings: SourceSettings, guards: SnapshotGuards, exported: ExportedSnapshot
    ) -> None:
        self.settings = settings
        self.guards = guards
        self.exported = exported
        self._types = CatalogTypes(guards.session)
        with self._session("reading the source's clock") as session:
            row: Any = session.execute(NOW).fetchone()
        self._taken_at = int(row[0])

    @property
    def lsn(self) -> Lsn:
        return self.exported.lsn

    @property
    def taken_at(self) -> int:
        return self._taken_at

    def types_of(self, relation: Relation) -> TypeMap:
        return self._types({column.type_oid for column in relation.columns})

    @cached_property
    def horizon(self) -> int:
        with self._session("checking for open transactions") as session:
            row: Any = session.execute(HORIZON).fetchone()
        return int(row[0])

    def page_ranges(self, relation: Relation, read: Collection[str] = ()) -> list[str]:
        with self._reading(relation) as session:
            pages = file_pages(stored_relations(session, relation))
        found = page_ranges(pages, map(PageRange.parse, read))
        return [WHOLE] if found == [PageRange()] else [str(part) for part in found]

    def unchanged(self, relation: Relation, page_range: str, rows: int, horizon: int) -> bool:
        query = _ROWS_AND_NEW_ONES.format(horizon=horizon, xid=horizon % _XIDS)
        with self._reading(relation) as session:
            ranges = self.scan(session, relation, page_range).ranges
        for one in ranges:
            # A session block for each, so that only one relation is locked at a time.
            with self._reading(relation) as session:
                session.execute(one.check.encode())
                # Without parameters, because a filter may contain a `%`.
                found: Any = session.execute(f"{query} {one.source()}".encode()).fetchone()
            count, new = found
            rows -= count
            if new or rows < 0:
                return False
        return rows == 0

    def reading_cure(self, relation: Relation, error: psycopg.Error | None = None) -> str:
        """The statement that lets our role read the table, for this error."""
        return reading_cure(relation, self.guards.user, error)

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        """Reads nothing ahead."""

    def write_files(
        self,
        relation: Relation,  # noqa: ARG002 - there are no workers
        page_range: str,  # noqa: ARG002
        rows: LaidOutRows,  # noqa: ARG002
        new_folder: Callable[[], str],  # noqa: ARG002
        /,
    ) -> WrittenFiles | None:
        return None

    def scan(
        self,
        session: Connection,
        relation: Relation,
        page_range: str,
        statement_pages: int | None = None,
    ) -> TableScan:
        """How to read a page range, see `plan_scan`."""
        return plan_scan(
            session,
            self.settings,
            relation,
            self.types_of(relation),
            PageRange.parse(page_range),
            statement_pages,
        )

    @contextmanager
    def _session(self, doing: str, cure: str = "") -> Iterator[Connection]:
        with source_errors(doing, cure), self.guards.session() as session:
            yield session

    def _reading(self, relation: Relation) -> AbstractContextManager[Connection]:
        return self._session(f"reading table {relation.table}", self.reading_cure(relation))


class CopySnapshot(OpenSnapshot):
    """`Snapshot` by COPY over several sessions."""

    def __init__(
        self, settings: SourceSettings, guards: SnapshotGuards, exported: ExportedSnapshot
    ) -> None:
        super().__init__(settings, guards, exported)
        self._readers = self._start()

    def _start(self) -> RangeReaders:
        return RangeReaders(self._open_session, self.settings.parallelism)

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        for relation, part in readings:
            self._queue(relation, part)

    def _queue(self, relation: Relation, part: str) -> None:
        self._readers.expect((relation.oid, part), partial(self._plan, relation, part))

    def read(self, relation: Relation, page_range: str = WHOLE) -> Iterator[ReadRows]:
        key = relation.oid, page_range
        if self._readers.next not in (None, key):
            self._restart()
        if self._readers.next is None:
            self._queue(relation, page_range)
        whole = False
        try:
            for chunk in self._readers.read():
                self.guards.keep()
                yield chunk
            whole = True
        finally:
            if not whole:
                self._restart()

    def _restart(self) -> None:
        self._readers.close(self.guards.cancel)
        self._readers = self._start()

    def close(self) -> None:
        self._readers.close(self.guards.cancel)

    def _plan(self, relation: Relation, part: str) -> TableQuery:
        with self._reading(relation) as session:
            scan = self.scan(session, relation, part)
        return scan.query(partial(self.found_again, relation))

    def found_again(self, relation: Relation, lost: RowRange) -> RowRange:
        with self._reading(relation) as session:
            return lost.found_again(session)

    def _open_session(self) -> RowSession:
        return open_session_in(self.settings, self.guards.adopt)


class PgSnapshotSource:
    """`SnapshotSource` by COPY."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[CopySnapshot]:
        warm_up_arrow()
        with (
            guarded_snapshot(self._settings, create_slot=create_slot) as (guards, exported),
            closing(CopySnapshot(self._settings, guards, exported)) as snapshot,
        ):
            yield snapshot
