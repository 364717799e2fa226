"""Receipts of runs: the rows of `_cdc_runs` and `_cdc_run_tables`.

A run leaves one row, or several if it follows: counts are those since the row before, positions and
sizes are those at `ended_at`. So counts of any rows can be added up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

RUNS_TABLE = "_cdc_runs"
RUN_TABLES_TABLE = "_cdc_run_tables"

_MOMENT = pa.timestamp("us", tz="UTC")

RUNS_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("seq", pa.int32()),
        ("command", pa.string()),
        ("started_at", _MOMENT),
        ("ended_at", _MOMENT),
        ("exit_code", pa.int32()),
        ("error", pa.string()),
        ("from_lsn", pa.int64()),
        ("to_lsn", pa.int64()),
        ("source_lsn", pa.int64()),
        ("transactions", pa.int64()),
        ("inserts", pa.int64()),
        ("updates", pa.int64()),
        ("deletes", pa.int64()),
        ("truncates", pa.int64()),
        ("rows_read", pa.int64()),
        ("bytes_read", pa.int64()),
        ("tables", pa.int32()),
        ("batches", pa.int32()),
        ("statements", pa.int32()),
        ("lag_bytes", pa.int64()),
        ("lag_seconds", pa.float64()),
        ("retained_wal_bytes", pa.int64()),
        ("peak_memory_bytes", pa.int64()),
        ("version", pa.string()),
    ]
)

RUN_TABLES_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("seq", pa.int32()),
        ("table_name", pa.string()),
        ("target", pa.string()),
        ("inserts", pa.int64()),
        ("updates", pa.int64()),
        ("deletes", pa.int64()),
        ("truncates", pa.int64()),
        ("rows_read", pa.int64()),
    ]
)


@dataclass(frozen=True)
class RunReceipt:
    """A row of `_cdc_runs`, with its columns as fields."""

    run_id: str
    #: 0, 1, 2 … in the run.
    seq: int
    #: snapshot, cdc or verify.
    command: str
    #: When the run began, and when the row was written.
    started_at: datetime
    ended_at: datetime
    #: None while the run goes on.
    exit_code: int | None
    #: The line that the command printed about its error.
    error: str | None
    #: The checkpoint before and after; None without one.
    from_lsn: int | None
    to_lsn: int | None
    #: The source's position in the WAL.
    source_lsn: int | None
    transactions: int
    inserts: int
    updates: int
    deletes: int
    truncates: int
    #: Rows that a snapshot or comparison read at the source.
    rows_read: int
    #: Messages of the slot as sent, and rows as Arrow holds them.
    bytes_read: int
    #: Tables that were changed or read.
    tables: int
    #: Batches of changes that were loaded.
    batches: int
    #: Statements sent to the destination before this row.
    statements: int
    #: WAL that the source wrote after the checkpoint.
    lag_bytes: int | None
    #: How old the newest state is that the destination has; 0 if nothing was written since.
    lag_seconds: float | None
    retained_wal_bytes: int | None
    peak_memory_bytes: int | None
    version: str


@dataclass(frozen=True)
class RunTable:
    """A row of `_cdc_run_tables`, for one table of a `RunReceipt`: `table_name` is the source's
    `schema.table`, `target` the destination's table."""

    run_id: str
    seq: int
    table_name: str
    target: str | None
    inserts: int
    updates: int
    deletes: int
    truncates: int
    rows_read: int


def receipts_as_rows(receipts: Iterable[RunReceipt]) -> pa.Table:
    return pa.Table.from_pylist([vars(receipt) for receipt in receipts], schema=RUNS_SCHEMA)


def run_tables_as_rows(tables: Iterable[RunTable]) -> pa.Table:
    return pa.Table.from_pylist([vars(table) for table in tables], schema=RUN_TABLES_SCHEMA)


def receipts_of_rows(rows: pa.Table) -> list[RunReceipt]:
    """Read rows with these columns in any order; a column that is missing gives None."""
    names = [field.name for field in fields(RunReceipt)]
    known = pa.table(
        [
            rows.column(f.name).cast(f.type) if f.name in rows.column_names
            else pa.nulls(len(rows), f.type)
            for f in RUNS_SCHEMA
        ],
        schema=RUNS_SCHEMA,
    )  # fmt: skip
    return [RunReceipt(**{name: row[name] for name in names}) for row in known.to_pylist()]
