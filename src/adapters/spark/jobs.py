"""Spark jobs that read ranges of a table and return their rows to the driver.

One job runs at a time, with at most one task for each session that is allowed. A range that a task
did not finish is read on by the next job, from the row where it stopped.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from psycopg.conninfo import make_conninfo

from adapters.pgoutput.snapshot.guards import SnapshotGone
from adapters.spark import messages
from adapters.spark.range_source import Job, RangeSource
from cdc_core.values.errors import SettingsError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.snapshot.table_scan import TableScan
    from adapters.pgoutput.wire.query_rows import ReadRows
    from adapters.spark.messages import RangeResult
    from cdc_core.values.errors import CdcError

#: Bytes that one job returns, roughly. The driver holds those of two jobs.
JOB_BYTES = 256 << 20
#: Tasks of a probe; Spark spreads them over its workers.
_PROBES = 4
#: Attempts to read a range by Spark without receiving a row of it.
ATTEMPTS = 3

_log = logging.getLogger(__name__)


@dataclass
class PendingRange:
    """A range still to read, and how often a job returned no row of it."""

    range: RowRange
    failures: int = 0


@dataclass
class ScanProgress:
    """The ranges of a scan that are still to read.

    `failed` is set when Spark cannot go on: the reason.
    """

    scan: TableScan
    pending: deque[PendingRange] = field(init=False)
    failed: str = ""

    def __post_init__(self) -> None:
        self.pending = deque(map(PendingRange, self.scan.ranges))

    @property
    def rest(self) -> TableScan:
        return self.scan.of(*(one.range for one in self.pending))


class RangeJobs:
    """`names` returns the snapshot's current names. For one thread at a time, except `cancel`."""

    def __init__(
        self,
        spark: SparkSession,
        settings: SourceSettings,
        names: Callable[[], tuple[str, ...]],
        connections: int,
    ) -> None:
        self._spark = spark
        self._settings = settings
        self._names = names
        self._connections = connections
        #: The credentials of the last job.
        self._login: dict[str, str] = {}
        self._tag = f"pgbronze-{uuid4().hex}"
        spark.dataSource.register(RangeSource)

    @property
    def task_bytes(self) -> int:
        return JOB_BYTES // self._connections

    def probe(self) -> CdcError | None:
        """Let workers open sessions; return the error of one that cannot."""
        try:
            found = self._run(None, min(_PROBES, self._connections), self._names())
        except SourceUnavailable as error:
            return error
        return next((one.error for one in found if one.error is not None), None)

    def run(self, progress: ScanProgress) -> list[ReadRows]:
        """Run one job for the first pending ranges; return the rows that it read.

        Raises the `CdcError` of a range that is no matter of the connection.
        """
        count = min(len(progress.pending), self._connections)
        taken = [progress.pending.popleft() for _ in range(count)]
        names = self._names()
        try:
            results = self._run(progress.scan.of(*(one.range for one in taken)), count, names)
        except SourceUnavailable as error:
            results = [messages.RangeResult([], error=error) for _ in taken]
        chunks: list[ReadRows] = []
        for one, result in zip(reversed(taken), reversed(results), strict=True):
            if not result.ended:
                progress.pending.appendleft(_continued(one, result))
                self._judge(progress, result, names)
        for result in results:
            chunks += result.chunks
        return chunks

    def _judge(self, progress: ScanProgress, result: RangeResult, names: tuple[str, ...]) -> None:
        error = result.error
        if error is None:
            return
        again = isinstance(error, SourceUnavailable)
        if isinstance(error, SnapshotGone):
            again = names != self._names()
        elif isinstance(error, SettingsError):
            again = self._settings.login.renewed(self._login)
        if not again:
            raise error
        if progress.pending[0].failures >= ATTEMPTS:
            progress.failed = error.what

    def _run(self, scan: TableScan | None, tasks: int, names: tuple[str, ...]) -> list[RangeResult]:
        self._login = self._settings.login.parameters()
        conninfo = make_conninfo(**self._login)
        job = Job(conninfo, names, scan, tasks, 2 * self.task_bytes)
        reader = self._spark.read.format(RangeSource.name()).option("job", job.as_option())
        self._spark.addTag(self._tag)
        try:
            found = messages.results(reader.load().toArrow())
        except Exception as error:  # noqa: BLE001 - classic and Connect have different ones
            # Their text is pages long.
            _log.debug("a job of Spark failed", exc_info=error)
            raise SourceUnavailable(f"a job of Spark failed ({type(error).__name__})") from None
        finally:
            self._spark.removeTag(self._tag)
        return [found.get(place, messages.RangeResult([])) for place in range(tasks)]

    def cancel(self) -> None:
        """Cancel the job that runs, from another thread."""
        self._spark.interruptTag(self._tag)


def _continued(one: PendingRange, result: RangeResult) -> PendingRange:
    """The rest of a range after what a task read of it."""
    rest = replace(one.range, skip=one.range.skip + result.rows)
    return PendingRange(rest, 0 if result.rows else one.failures + 1)
