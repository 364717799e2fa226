"""The Python data source by which a full load reads ranges of a table: one partition for each.

Not for users: its rows are messages (see `messages`), and its options are made by `jobs`.
"""

from __future__ import annotations

import base64
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from adapters.pgoutput.session.settings import SourceSettings
from adapters.spark import messages
from adapters.spark.range_reading import check_session, read_ranges
from adapters.spark.spark_types import spark_schema
from cdc_core.values.errors import CdcError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from pyspark.sql.types import StructType

    from adapters.pgoutput.snapshot.table_scan import TableScan


@dataclass(frozen=True)
class Job:
    """What the tasks of a job do. `scan` None: only open a session, `tasks` of them.

    `conninfo` is libpq's, a secret. A task ends after about `task_bytes`, so that the driver never
    holds more than it asked for.
    """

    conninfo: str = field(repr=False)
    snapshots: tuple[str, ...]
    scan: TableScan | None
    tasks: int
    task_bytes: int

    @property
    def settings(self) -> SourceSettings:
        return SourceSettings(self.conninfo)

    def as_option(self) -> str:
        return base64.b64encode(pickle.dumps(self)).decode()

    @classmethod
    def parse(cls, option: str) -> Job:
        job = pickle.loads(base64.b64decode(option))  # noqa: S301 - by our own driver
        assert isinstance(job, cls)
        return job


class RangeSource(DataSource):
    @classmethod
    def name(cls) -> str:
        return "pgbronze_ranges"

    def schema(self) -> StructType:
        return spark_schema(messages.SCHEMA)

    def reader(self, schema: StructType) -> RangeReader:  # noqa: ARG002 - always `SCHEMA`
        return RangeReader(Job.parse(self.options["job"]))


class RangeReader(DataSourceReader):
    def __init__(self, job: Job) -> None:
        self._job = job

    def partitions(self) -> list[Any]:
        return [InputPartition(place) for place in range(self._job.tasks)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        place = int(partition.value)
        return messages.batches(place, _task(self._job, place))


def _task(job: Job, place: int) -> Iterator[tuple[messages.Kind, bytes]]:
    """Yield the messages of a task.

    Errors of ours are messages, so that the driver gets them as they are. Any other fails the
    task, and Spark runs it again."""
    try:
        if job.scan is None:
            check_session(job.settings, job.snapshots)
        else:
            size = 0
            for chunk in read_ranges(
                job.settings, job.snapshots, job.scan.of(job.scan.ranges[place])
            ):
                body = messages.rows_body(chunk)
                yield "rows", body
                size += len(body)
                if size > job.task_bytes:
                    yield "rest", b""
                    return
    except CdcError as error:
        yield "error", messages.error_body(error)
    else:
        yield "end", b""
