"""The progress port that keeps what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RecordedProgress:
    """Every call as (name, arguments); `notes` and `warnings` apart, for they are for people."""

    calls: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def table_started(self, table: str, estimated_rows: int) -> None:
        self.calls.append(("table_started", (table, estimated_rows)))

    def rows_read(self, table: str, rows: int) -> None:
        self.calls.append(("rows_read", (table, rows)))

    def table_finished(self, table: str) -> None:
        self.calls.append(("table_finished", (table,)))

    def batch_loaded(self, changes: int, transactions: int, lag_bytes: int) -> None:
        self.calls.append(("batch_loaded", (changes, transactions, lag_bytes)))

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
