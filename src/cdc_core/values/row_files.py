"""Parquet files in which workers of a cluster have written rows of a full load.

The columns of a file are `c0`, `c1`, … in the order of the rows' schema, since some writers refuse
characters that a column's name may have. Dates and timestamps are timestamps without time zone, in
UTC: engines write those as integers of microseconds, in any calendar and whatever their settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Rows of a chunk that is read.
_READ_ROWS = 1 << 16


@dataclass(frozen=True)
class RowFiles:
    """Files in `folder`, by their paths in it. `size` is in bytes."""

    folder: str
    names: tuple[str, ...]
    rows: int
    size: int


@dataclass(frozen=True)
class WrittenFiles:
    """The rows of a page range, and those of `UNREPRESENTABLE_SCHEMA`; None: no such value."""

    rows: RowFiles
    unrepresentable: RowFiles | None


def file_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns of files with rows of `schema`."""
    return pa.schema([(f"c{n}", _plain(field.type)) for n, field in enumerate(schema)])


def read_files(files: RowFiles, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of files, with the columns of `schema`, in chunks of limited size."""
    columns = file_schema(schema).names
    for name in files.names:
        with pq.ParquetFile(Path(files.folder, name)) as file:
            for batch in file.iter_batches(_READ_ROWS, columns=columns):
                found = [
                    batch.column(column).cast(field.type)
                    for column, field in zip(columns, schema, strict=True)
                ]
                yield pa.table(found, schema=schema)


def _plain(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_date32(type_) or pa.types.is_timestamp(type_):
        return pa.timestamp("us")
    if pa.types.is_list(type_):
        return pa.list_(_plain(type_.value_type))
    return type_
