"""The Python data source `pgbronze`: one table of PostgreSQL at one LSN, as a DataFrame.

Spark makes one of these objects in a process of its own to ask for the schema, another one to ask
for the partitions, and sends the reader to the workers. So all parts can be pickled, and none keeps
a connection. Documentation: PySpark, "Python Data Source API".
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from adapters.spark.options import ReadOptions
from adapters.spark.range_reading import read_ranges
from adapters.spark.spark_types import UNREPRESENTABLE, UNREPRESENTABLE_TYPE, spark_schema
from adapters.spark.table_plan import find_relation, plan_table, planning_session, shared_out
from cdc_core.values.errors import CdcError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql.types import StructType

    from adapters.pgoutput.snapshot.table_scan import TableScan
    from adapters.pgoutput.wire.query_rows import ReadRows
    from cdc_core.values.relation import Relation


class PostgresSnapshot(DataSource):
    """`spark.dataSource.register(PostgresSnapshot)`, then `spark.read.format("pgbronze")`."""

    @classmethod
    def name(cls) -> str:
        return "pgbronze"

    def schema(self) -> StructType:
        options = ReadOptions.parse(self.options)
        with planning_session(options) as (session, _):
            relation = find_relation(session, options.table)
        return spark_schema(_arrow_schema(relation, options))

    def reader(self, schema: StructType) -> SnapshotReader:
        return SnapshotReader(ReadOptions.parse(self.options), tuple(schema.fieldNames()))


@dataclass
class ScanPartition(InputPartition):
    """Some ranges of a scan; None: the whole table, which the worker plans itself."""

    scan: TableScan | None

    def __repr__(self) -> str:
        ranges = "all" if self.scan is None else len(self.scan.ranges)
        return f"ScanPartition(ranges={ranges})"


class SnapshotReader(DataSourceReader):
    """Reads partitions as Arrow record batches. `names` are the columns that Spark expects."""

    def __init__(self, options: ReadOptions, names: tuple[str, ...]) -> None:
        self._options = options
        self._names = names

    def partitions(self) -> list[Any]:
        options = self._options
        if not options.snapshots:
            # A snapshot of its own lives as long as a session, so one worker reads all.
            return [ScanPartition(None)]
        with planning_session(options) as (session, _):
            scan = plan_table(session, find_relation(session, options.table), options)
        return [ScanPartition(scan.of(*ranges)) for ranges in shared_out(scan.ranges, options)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, ScanPartition)
        options, scan = self._options, partition.scan
        with ExitStack() as stack:
            snapshots = options.snapshots
            if scan is None:
                session, snapshots = stack.enter_context(planning_session(options))
                scan = plan_table(session, find_relation(session, options.table), options)
            schema = _arrow_schema(scan.relation, options)
            if tuple(schema.names) != self._names:
                raise CdcError(
                    f"the columns of table {scan.relation.table} changed since Spark asked for "
                    "them",
                    "load the DataFrame again",
                )
            for chunk in read_ranges(options.source, snapshots, scan):
                yield from _batches(chunk, schema, scan.relation, options)


def _arrow_schema(relation: Relation, options: ReadOptions) -> pa.Schema:
    fields = [pa.field(column.name, column.arrow_type) for column in relation.columns]
    if options.unrepresentable == "column":
        fields.append(pa.field(UNREPRESENTABLE, UNREPRESENTABLE_TYPE))
    return pa.schema(fields)


def _batches(
    chunk: ReadRows, schema: pa.Schema, relation: Relation, options: ReadOptions
) -> Iterator[pa.RecordBatch]:
    rows = chunk.rows
    if chunk.unrepresentable and options.unrepresentable == "error":
        column = chunk.unrepresentable[0].column
        raise CdcError(
            f"table {relation.table} has a value in column {column} that Spark's type cannot hold",
            'set .option("unrepresentable", "column") to get its text in a column beside the '
            'row, or "null"',
        )
    if options.unrepresentable == "column":
        texts: list[list[tuple[str, str]] | None] = [None] * len(rows)
        for value in chunk.unrepresentable:
            of_row = texts[value.row] or []
            of_row.append((value.column, value.text))
            texts[value.row] = of_row
        rows = rows.append_column(
            schema.field(UNREPRESENTABLE), pa.array(texts, UNREPRESENTABLE_TYPE)
        )
    # A batch per chunk, unless a column of it has more bytes than one array may have.
    yield from rows.combine_chunks().to_batches()
