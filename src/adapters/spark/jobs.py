"""Spark jobs that write ranges of a table as Parquet files.

Spark schedules the tasks, runs failed ones again, and commits the files of one attempt of each. The
files of a job are those that Spark itself then finds in the folder: it knows what was committed.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow.parquet as pq
from psycopg.conninfo import make_conninfo

from adapters.spark.range_source import UNFIT, Job, RangeSource
from cdc_core.values.errors import SettingsError, SourceUnavailable
from cdc_core.values.row_files import RowFiles, WrittenFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import DataFrame, SparkSession

    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.table_scan import TableScan
    from cdc_core.ports.snapshot_source import LaidOutRows

#: Tasks of a probe; Spark spreads them over its workers.
_PROBES = 4
#: What an error of ours says in the middle of Spark's text. It contains no secret and no value.
_OURS = re.compile(r"cdc_core\.values\.errors\.\w+: (.+)")

_log = logging.getLogger(__name__)


class RangeJobs:
    """Runs one job at a time. `names` returns the snapshot's current names.

    All tasks together have at most `connections` sessions.
    """

    def __init__(
        self,
        spark: SparkSession,
        settings: SourceSettings,
        names: Callable[[], tuple[str, ...]],
        connections: int,
    ) -> None:
        """Raises `SettingsError` if there are too few connections."""
        self._spark = spark
        self._settings = settings
        self._names = names
        #: A task has one session. With speculation, Spark runs it in up to two attempts at a time.
        self.tasks = connections // 2 if _speculates(spark) else connections
        if not self.tasks:
            raise SettingsError(
                "with spark.speculation, a task of Spark may need two sessions, and "
                f"spark_max_connections is {connections}",
                "set sources.pg_replication.spark_max_connections to 2 or more",
            )
        #: The credentials of the last job.
        self._login: dict[str, str] = {}
        self._tag = f"pgbronze-{uuid4().hex}"
        spark.dataSource.register(RangeSource)

    def probe(self, folder: str) -> str:
        """Let workers open sessions and write files into a folder; return why they cannot, or "".

        Raises `SourceUnavailable` if the job fails.
        """
        place = f"{folder}/probe"
        with self._running():
            self._frame(min(_PROBES, self.tasks)).write.parquet(place)
        found = [pq.read_table(path) for path in Path(place).glob("*.parquet")]
        if not found:
            return "workers and driver do not share a folder for the rows"
        errors = [error for table in found for error in table.column(0).to_pylist()]
        return next((error for error in errors if error), "")

    def write(self, scan: TableScan, rows: LaidOutRows, folder: str) -> WrittenFiles:
        """Write the ranges of a scan. Raises `SourceUnavailable` if the job fails."""
        tasks = max(1, min(self.tasks, len(scan.ranges)))
        with self._running():
            self._frame(tasks, scan, rows).write.parquet(f"{folder}/rows")
            files, unfit = self._found(folder, "rows", f"if({UNFIT} IS NULL, 0, size({UNFIT}))")
            if not unfit:
                return WrittenFiles(files, None)
            paths = [f"{folder}/{name}" for name in files.names]
            beside = self._spark.read.parquet(*paths).selectExpr(f"inline({UNFIT})")
            beside.write.parquet(f"{folder}/unfit")
            return WrittenFiles(files, self._found(folder, "unfit")[0])

    def cancel(self) -> None:
        """Cancel the job that runs, from another thread."""
        self._spark.interruptTag(self._tag)

    def _frame(
        self, tasks: int, scan: TableScan | None = None, rows: LaidOutRows | None = None
    ) -> DataFrame:
        self._login = self._settings.login.parameters()
        job = Job(make_conninfo(**self._login), self._names(), tasks, scan, rows)
        reader = self._spark.read.format(RangeSource.name())
        return reader.option("job", job.as_option()).load()

    def _found(self, folder: str, part: str, counted: str = "0") -> tuple[RowFiles, int]:
        """Return the committed files of a part with rows, and the sum of `counted` over these."""
        by_file = (
            self._spark.read.parquet(f"{folder}/{part}")
            .selectExpr(
                "_metadata.file_name AS name",
                "_metadata.file_size AS size",
                f"{counted} AS counted",
            )
            .groupBy("name", "size")
        )
        sums = by_file.agg({"*": "count", "counted": "sum"})
        found = sorted(sums.select("name", "size", "count(1)", "sum(counted)").collect())
        names = tuple(f"{part}/{name}" for name, *_ in found)
        size, rows, total = (sum(row[place] for row in found) for place in (1, 2, 3))
        return RowFiles(folder, names, rows, size), total

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Translate errors; classic and Connect have different ones, with pages of text."""
        self._spark.addTag(self._tag)
        try:
            yield
        except Exception as error:  # noqa: BLE001
            _log.debug("a job of Spark failed", exc_info=error)
            # It may have been rejected; workers cannot read it again.
            self._settings.login.renewed(self._login)
            ours = _OURS.search(str(error))
            why = ours[1] if ours else type(error).__name__
            raise SourceUnavailable(f"a job of Spark failed ({why})") from None
        finally:
            self._spark.removeTag(self._tag)


def _speculates(spark: SparkSession) -> bool:
    try:
        return spark.conf.get("spark.speculation", "false") == "true"
    except Exception:  # noqa: BLE001 - serverless compute shows no such setting, and does not
        return False
