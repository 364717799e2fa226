"""The Python data source by which Spark writes ranges of a table into files.

Each partition reads some of the ranges in one session and lays their rows out as they will be
stored, so that no value leaves the worker that a rule hides. Not for users: `jobs` makes its
options.
"""

from __future__ import annotations

import base64
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from adapters.pgoutput.session.settings import SourceSettings
from adapters.spark.range_reading import check_session, read_ranges
from adapters.spark.spark_types import spark_schema
from cdc_core.values.errors import CdcError
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA
from cdc_core.values.row_files import file_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql.types import StructType

    from adapters.pgoutput.snapshot.table_scan import TableScan
    from cdc_core.ports.snapshot_source import LaidOutRows

#: A column behind those of the table: rows of `UNREPRESENTABLE_SCHEMA` that belong to some row of
#: the file.
UNFIT = "unfit"
_UNFIT_SCHEMA = file_schema(UNREPRESENTABLE_SCHEMA)
_UNFIT_TYPE = pa.list_(pa.struct(list(_UNFIT_SCHEMA)))

#: The column of a probe: why a worker cannot read; null if it can.
PROBED = pa.schema([("error", pa.string())])


@dataclass(frozen=True)
class Job:
    """What the tasks of a job do. Without `scan` and `rows`, a probe: each opens a session.

    `conninfo` is libpq's, and a secret, as is the key of masks in `rows`.
    """

    conninfo: str = field(repr=False)
    snapshots: tuple[str, ...]
    tasks: int
    scan: TableScan | None = None
    rows: LaidOutRows | None = field(default=None, repr=False)

    @property
    def schema(self) -> pa.Schema:
        if self.rows is None:
            return PROBED
        return file_schema(self.rows.schema).append(pa.field(UNFIT, _UNFIT_TYPE))

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
        return spark_schema(Job.parse(self.options["job"]).schema)

    def reader(self, schema: StructType) -> RangeReader:  # noqa: ARG002 - always that of the job
        return RangeReader(Job.parse(self.options["job"]))


class RangeReader(DataSourceReader):
    def __init__(self, job: Job) -> None:
        self._job = job

    def partitions(self) -> list[Any]:
        return [InputPartition(place) for place in range(self._job.tasks)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        place = int(partition.value)
        try:
            yield from _probed(self._job) if self._job.scan is None else _rows(self._job, place)
        except CdcError:
            raise
        except Exception as error:  # noqa: BLE001
            # Spark logs the error of a task, and the text of this one may have a value of a row.
            raise CdcError(f"a worker failed ({type(error).__name__})") from None


def _probed(job: Job) -> Iterator[pa.RecordBatch]:
    error = None
    try:
        check_session(SourceSettings(job.conninfo), job.snapshots)
    except CdcError as failed:
        error = failed.what
    yield pa.RecordBatch.from_pydict({"error": [error]}, schema=job.schema)


def _rows(job: Job, place: int) -> Iterator[pa.RecordBatch]:
    assert job.scan is not None
    assert job.rows is not None
    scan = job.scan.of(*job.scan.ranges[place :: job.tasks])
    for chunk in read_ranges(SourceSettings(job.conninfo), job.snapshots, scan):
        rows, unfit = job.rows.laid_out(chunk)
        if not len(rows):
            continue
        columns = [
            column.cast(field.type) for column, field in zip(rows.columns, job.schema, strict=False)
        ]
        columns.append(_beside(unfit, len(rows)))
        # A batch per chunk, unless a column of it has more bytes than one array may have.
        yield from pa.table(columns, schema=job.schema).combine_chunks().to_batches()


def _beside(unfit: pa.Table, count: int) -> pa.Array:
    """Put all rows of `unfit` beside the first of `count` rows."""
    if not len(unfit):
        return pa.nulls(count, _UNFIT_TYPE)
    columns = [
        column.cast(field.type).to_pylist()
        for column, field in zip(unfit.columns, _UNFIT_SCHEMA, strict=True)
    ]
    first = [
        dict(zip(_UNFIT_SCHEMA.names, values, strict=True)) for values in zip(*columns, strict=True)
    ]
    return pa.array([first, *[None] * (count - 1)], _UNFIT_TYPE)
