"""What long work tells the person who waits."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Calls are cheap and may be many, and come in any order: a table may be read again, or be told
    of without having been started. An implementation decides what to show; it raises nothing."""

    def table_started(self, table: str, estimated_rows: int) -> None: ...

    def rows_read(self, table: str, rows: int) -> None: ...

    def table_finished(self, table: str) -> None: ...

    def batch_loaded(self, changes: int, transactions: int, lag_bytes: int) -> None: ...

    def note(self, message: str) -> None:
        """A line for people; no row values."""
        ...

    def warn(self, message: str) -> None: ...


class SilentProgress:
    """Says nothing."""

    def table_started(self, table: str, estimated_rows: int) -> None:
        pass

    def rows_read(self, table: str, rows: int) -> None:
        pass

    def table_finished(self, table: str) -> None:
        pass

    def batch_loaded(self, changes: int, transactions: int, lag_bytes: int) -> None:
        pass

    def note(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass
