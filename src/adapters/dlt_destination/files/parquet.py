"""Parquet files of a batch: the next step reads them once, on the same machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from adapters.dlt_destination.files.bounded_chunks import cut, gathered

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ROW_GROUP_ROWS = 128 * 1024
#: A reader holds several row groups in memory.
GROUP_BYTES = 16 * 1024 * 1024
FILE_ROWS = 1_000_000
FILE_BYTES = 256 * 1024 * 1024

#: Spark reads dates before 1582 unchanged only if the file names a Spark version.
_CALENDAR = {"org.apache.spark.version": "3.5.0"}


@dataclass(frozen=True)
class StagedParquet:
    """`StagedRows` in a file."""

    path: Path
    rows: int
    schema: pa.Schema

    def __len__(self) -> int:
        return self.rows

    def read(self) -> pa.Table:
        return pq.read_table(self.path).cast(self.schema)


def write_table(rows: pa.Table, path: Path) -> Path:
    """Write one file, even without rows: it carries the columns."""
    with _writer(path, rows.schema) as writer:
        _write(writer, rows)
    return path


def write_chunks(
    chunks: Iterable[pa.Table], schema: pa.Schema, folder: Path, stem: str
) -> tuple[tuple[Path, ...], int]:
    """Write files of about `FILE_ROWS` rows or `FILE_BYTES` each, at least one. Returns their paths
    and the number of rows.

    Combines small chunks into row groups. Memory holds at most one row group and one chunk.
    """
    paths: list[Path] = []
    total = 0
    writer: pq.ParquetWriter | None = None
    rows = size = 0
    try:
        cast = (chunk.cast(schema) for chunk in chunks)
        for group in gathered(cast, ROW_GROUP_ROWS, GROUP_BYTES):
            if writer is None:
                paths.append(folder / f"{stem}-{len(paths)}.parquet")
                writer, rows, size = _writer(paths[-1], schema), 0, 0
            _write(writer, group)
            rows, size, total = rows + len(group), size + group.nbytes, total + len(group)
            if rows >= FILE_ROWS or size >= FILE_BYTES:
                writer.close()
                writer = None
    finally:
        if writer is not None:
            writer.close()
    if not paths:
        paths.append(write_table(schema.empty_table(), folder / f"{stem}-0.parquet"))
    return tuple(paths), total


def _write(writer: pq.ParquetWriter, rows: pa.Table) -> None:
    for group in cut(rows, ROW_GROUP_ROWS, GROUP_BYTES):
        writer.write_table(group)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Uses plain encoding without statistics: these files are read once, as a whole."""
    return pq.ParquetWriter(
        path,
        schema.with_metadata(_CALENDAR),
        compression="snappy",
        use_dictionary=False,
        write_statistics=False,
    )
