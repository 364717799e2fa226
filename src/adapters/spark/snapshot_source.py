"""The snapshot source port: large tables by Spark's workers, the others by COPY in this process.

All read in the one exported snapshot. Workers lay the rows out and write them into files of the
destination, so that this process only sees their names and counts. If the workers cannot reach
PostgreSQL or the folder, or Spark fails for good, the driver reads the tables and says so.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from adapters.arrow_warmup import warm_up_arrow
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.snapshot.exported_snapshot import guarded_snapshot
from adapters.pgoutput.snapshot.guards import CHECK_SECONDS
from adapters.pgoutput.snapshot.page_ranges import PageRange
from adapters.pgoutput.snapshot.row_ranges import StoredSize, stored_sizes
from adapters.pgoutput.snapshot.snapshot_source import CopySnapshot
from adapters.spark_session import spark_session
from cdc_core.values.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyspark.sql import SparkSession

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.exported_snapshot import ExportedSnapshot
    from adapters.pgoutput.snapshot.guards import SnapshotGuards
    from adapters.pgoutput.snapshot.table_scan import TableScan
    from adapters.spark.jobs import RangeJobs
    from cdc_core.ports.snapshot_source import LaidOutRows
    from cdc_core.values.relation import Relation
    from cdc_core.values.row_files import WrittenFiles

T = TypeVar("T")

#: Pages of a table that is worth a job of Spark.
LARGE_PAGES = 8192
#: Attempts to write a page range by Spark, which itself runs each failed task again.
ATTEMPTS = 3

_log = logging.getLogger(__name__)


class SparkSnapshotSource:
    """`SnapshotSource` by Spark. At most `connections` sessions of workers are open at a time.

    `session` returns the Spark session, when the first large table is there.
    """

    def __init__(
        self,
        settings: SourceSettings,
        connections: int,
        session: Callable[[], SparkSession] = spark_session,
    ) -> None:
        self._settings = settings
        self._connections = connections
        self._session = session

    @contextmanager
    def begin(self, *, create_slot: bool) -> Iterator[SparkSnapshot]:
        warm_up_arrow()
        with (
            guarded_snapshot(self._settings, create_slot=create_slot) as (guards, exported),
            closing(
                SparkSnapshot(self._settings, guards, exported, self._connections, self._session)
            ) as snapshot,
        ):
            yield snapshot


class SparkSnapshot(CopySnapshot):
    """`Snapshot` whose large tables are written by Spark, if a destination asks for files."""

    def __init__(
        self,
        settings: SourceSettings,
        guards: SnapshotGuards,
        exported: ExportedSnapshot,
        connections: int,
        session: Callable[[], SparkSession],
    ) -> None:
        super().__init__(settings, guards, exported)
        self._connections = connections
        self._new_session = session
        self._jobs: RangeJobs | None = None
        #: Whether the workers were asked if they can read.
        self._probed = False
        self._sizes: dict[int, StoredSize] = {}
        #: One job runs at a time.
        self._thread = ThreadPoolExecutor(1, "pgbronze-spark")

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        self._learn_sizes([relation for relation, _ in readings])
        super().expect([one for one in readings if not self._is_large(one[0])])

    def write_files(
        self,
        relation: Relation,
        page_range: str,
        rows: LaidOutRows,
        new_folder: Callable[[], str],
        /,
    ) -> WrittenFiles | None:
        self._learn_sizes([relation])
        if not self._is_large(relation):
            return None
        if not self._probed:
            self._probed = True
            self._jobs = self._probe(new_folder())
        failed = ""
        for _ in range(ATTEMPTS if self._jobs else 0):
            assert self._jobs is not None
            # Raises the errors that any reader would, and releases the table's lock.
            with self._reading(relation) as session:
                scan = self._planned(session, relation, page_range, self._jobs.tasks)
                for one in scan.ranges[:1]:
                    session.execute(one.check.encode())
            try:
                return self._waiting(partial(self._jobs.write, scan, rows, new_folder()))
            except SourceUnavailable as error:
                failed = error.what
        if failed:
            _log.warning(
                "table %s: Spark cannot go on, so the driver reads (%s)", relation.table, failed
            )
        return None

    def close(self) -> None:
        if self._jobs is not None:
            with suppress(Exception):  # Spark may be gone
                self._jobs.cancel()
        self._thread.shutdown(cancel_futures=True)
        super().close()

    def _learn_sizes(self, relations: Sequence[Relation]) -> None:
        unknown = [one.oid for one in relations if one.oid not in self._sizes]
        if unknown:
            with source_errors("reading the sizes of tables"), self.guards.session() as session:
                found = stored_sizes(session, unknown)
            self._sizes |= {oid: found.get(oid, StoredSize()) for oid in unknown}

    def _is_large(self, relation: Relation) -> bool:
        return self._sizes[relation.oid].pages > LARGE_PAGES

    def _probe(self, folder: str) -> RangeJobs | None:
        try:
            spark = self._new_session()
            from adapters.spark.jobs import RangeJobs

            jobs = RangeJobs(spark, self.settings, lambda: self.guards.names, self._connections)
            reason = self._waiting(partial(jobs.probe, folder))
        except SourceUnavailable as error:
            reason = error.what
        if not reason:
            return jobs
        _log.warning("Spark's workers cannot read, so the driver does: %s", reason)
        return None

    def _planned(
        self, session: Connection, relation: Relation, page_range: str, tasks: int
    ) -> TableScan:
        """Plan statements for all tasks."""
        part = PageRange.parse(page_range)
        pages = max(1, (part.end or self._sizes[relation.oid].pages) - part.start)
        return self.scan(session, relation, page_range, -(-pages // tasks))

    def _waiting(self, job: Callable[[], T]) -> T:
        """Run a job in the thread, and keep the snapshot meanwhile."""
        running = self._thread.submit(job)
        while not wait([running], CHECK_SECONDS).done:
            self.guards.keep()
        return running.result()
