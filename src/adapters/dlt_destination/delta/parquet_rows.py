"""Rows of Delta tables and Parquet files in chunks of bounded size, and how they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from adapters.dlt_destination.files.bounded_chunks import SCAN_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

#: Rows of a row group, the least that a reader holds. delta-rs's default is eight times as large.
ROW_GROUP_ROWS = 128 * 1024


def row_groups(source: Any) -> Iterator[pa.Table]:
    """Yield a Parquet file's row groups. Their size is bounded."""
    with pq.ParquetFile(source) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def chunks(dataset: Any, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield chunks of bounded size. By default, Arrow would read four files ahead."""
    batches = dataset.to_batches(
        columns=list(columns), batch_size=SCAN_ROWS, batch_readahead=2, fragment_readahead=1
    )
    return (pa.Table.from_batches([batch]) for batch in batches)


def writer_properties() -> Any:
    from deltalake import WriterProperties

    return WriterProperties(max_row_group_size=ROW_GROUP_ROWS)


def bytes_of(paths: Iterable[Path]) -> int:
    """Return the uncompressed bytes of the rows in Parquet files."""
    files = map(pq.read_metadata, paths)
    return sum(f.row_group(n).total_byte_size for f in files for n in range(f.num_row_groups))


def as_reader(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.RecordBatchReader:
    batches = (batch for table in tables for batch in table.to_batches())
    return pa.RecordBatchReader.from_batches(schema, batches)
