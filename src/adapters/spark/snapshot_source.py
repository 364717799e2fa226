"""The snapshot source port: large tables by Spark's workers, the others by COPY in this process.

All read in the one exported snapshot. The rows of the workers come to the driver as Arrow data (see
`messages`), so a destination gets them as from any other reader: the driver lays them out, and
column rules apply there. If the workers cannot reach PostgreSQL, or Spark fails for good, the
driver reads the tables by itself and says so.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from adapters.arrow_warmup import warm_up_arrow
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.snapshot.exported_snapshot import guarded_snapshot
from adapters.pgoutput.snapshot.guards import CHECK_SECONDS
from adapters.pgoutput.snapshot.range_readers import RangeReaders
from adapters.pgoutput.snapshot.row_ranges import StoredSize, stored_sizes
from adapters.pgoutput.snapshot.snapshot_source import CopySnapshot
from adapters.spark_session import spark_session
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.values.errors import CdcError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyspark.sql import SparkSession

    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.exported_snapshot import ExportedSnapshot
    from adapters.pgoutput.snapshot.guards import SnapshotGuards
    from adapters.pgoutput.snapshot.table_scan import TableScan
    from adapters.pgoutput.wire.query_rows import ReadRows
    from adapters.spark.jobs import RangeJobs, ScanProgress
    from cdc_core.values.relation import Relation

    #: A relation's OID and a page range.
    Key = tuple[int, str]

#: Pages of a table that is worth a job of Spark.
LARGE_PAGES = 8192

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
    """`Snapshot` whose large tables are read by Spark."""

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
        #: Large tables that were announced, in their order.
        self._expected: list[tuple[Relation, str]] = []
        self._started: dict[Key, _Reading] = {}
        #: One thread, so that one job runs at a time.
        self._thread = ThreadPoolExecutor(1, "pgbronze-spark")

    def expect(self, readings: Sequence[tuple[Relation, str]]) -> None:
        self._learn_sizes([relation for relation, _ in readings])
        large = [one for one in readings if self._is_for_spark(one[0])]
        self._expected += large
        super().expect([one for one in readings if one not in large])

    def read(self, relation: Relation, page_range: str = WHOLE) -> Iterator[ReadRows]:
        self._learn_sizes([relation])
        if not self._is_for_spark(relation):
            yield from super().read(relation, page_range)
            return
        reading = self._begin_reading(relation, page_range)
        del self._started[reading.key]
        self._expected = [one for one in self._expected if (one[0].oid, one[1]) != reading.key]
        while chunks := self._next_chunks(reading):
            yield from chunks
        if reading.progress.failed:
            _log.warning(
                "table %s: Spark cannot go on, so the driver reads the rest (%s)",
                relation.table, reading.progress.failed,
            )  # fmt: skip
            yield from self._read_here(reading.progress.rest)

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

    def _is_for_spark(self, relation: Relation) -> bool:
        """Whether a table is large, and the workers can read. Asks them before the first.

        A table with masks is read here: on the way from a worker, values are not masked yet, and
        Spark may write them to a disk.
        """
        masked = any(column.rule.reads_text for column in relation.columns)
        if masked or self._sizes[relation.oid].pages <= LARGE_PAGES:
            return False
        if not self._probed:
            self._probed = True
            self._jobs = self._probe()
        return self._jobs is not None

    def _probe(self) -> RangeJobs | None:
        try:
            spark = self._new_session()
            from adapters.spark.jobs import RangeJobs

            jobs = RangeJobs(spark, self.settings, lambda: self.guards.names, self._connections)
            error = jobs.probe()
        except SettingsError:
            raise
        except CdcError as failed:
            error = failed
        if error is None:
            return jobs
        _log.warning("Spark's workers cannot read, so the driver does: %s", error.what)
        return None

    def _begin_reading(self, relation: Relation, page_range: str) -> _Reading:
        """Plan the reading of a table and start its first job, unless that was done."""
        from adapters.spark.jobs import ScanProgress

        key = relation.oid, page_range
        if key not in self._started:
            assert self._jobs is not None
            size = self._sizes[relation.oid]
            pages = max(1, self._jobs.task_bytes * size.pages // max(1, size.bytes))
            with self._reading(relation) as session:
                scan = self.scan(session, relation, page_range, pages)
            self._started[key] = _Reading(key, ScanProgress(scan))
            self._submit(self._started[key])
        return self._started[key]

    def _submit(self, reading: _Reading) -> None:
        assert self._jobs is not None
        progress = reading.progress
        if progress.pending and not progress.failed:
            reading.job = self._thread.submit(self._jobs.run, progress)
        else:
            reading.job = None

    def _next_chunks(self, reading: _Reading) -> list[ReadRows]:
        """The rows of the next job, while the one after it runs; none at the end."""
        while reading.job is not None:
            while not wait([reading.job], CHECK_SECONDS).done:
                self.guards.keep()
            chunks = reading.job.result()
            self._submit(reading)
            if reading.job is None and not reading.progress.failed:
                self._start_next()
            self.guards.keep()
            if chunks:
                return chunks
        return []

    def _start_next(self) -> None:
        """Start the large table that was announced next, so that Spark is not idle meanwhile. Its
        errors are raised when it is read."""
        if self._expected and not self._started:
            with suppress(CdcError):
                self._begin_reading(*self._expected[0])

    def _read_here(self, scan: TableScan) -> Iterator[ReadRows]:
        readers = RangeReaders(self._open_session, self.settings.parallelism)
        with closing(readers):
            readers.expect(
                scan.relation.oid, lambda: scan.query(partial(self.found_again, scan.relation))
            )
            yield from readers.read()


class _Reading:
    """A table, or a page range of one, that Spark reads, with the job that runs for it."""

    def __init__(self, key: Key, progress: ScanProgress) -> None:
        self.key = key
        self.progress = progress
        self.job: Future[list[ReadRows]] | None = None
