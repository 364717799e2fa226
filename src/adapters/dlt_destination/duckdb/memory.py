"""How much memory DuckDB may hold: little at first, more once rows need it.

What DuckDB has read or written it keeps up to its limit, which by itself is most of the machine's
memory; it spills beyond. But it handles 2,048 values of a column at a time, so large ones must fit
beside each other, in a checkpoint too. Source: DuckDB documentation, "Configuration", "Tuning
Workloads", "CHECKPOINT".
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from adapters.dlt_destination.dlt.errors import root_cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Result = TypeVar("Result")

MEMORY_MB = 144
#: The setting, and another name of it.
LIMITS = ("memory_limit", "max_memory")

#: Blocks that each column of a table takes while the table is written.
COLUMN_MB = 1

#: Rows that DuckDB handles at a time.
VECTOR_ROWS = 2048

#: A write-ahead log beyond this is brought into the tables, as DuckDB does by itself. It is kept
#: from that: where it has too little memory then, the whole database is out of use.
CHECKPOINT_BYTES = 16 << 20
NEVER = "1000TB"

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

#: What a commit or a checkpoint says of it, which have errors of their own.
_TOO_LITTLE = re.compile(r"(?:failed to|could not) (?:allocate|pin|reserve)")


def out_of_memory(error: BaseException) -> bool:
    """Whether DuckDB wanted more than its limit. Errors that may quote a row are none of these."""
    cause = root_cause(error)
    match type(cause).__name__:
        case "OutOfMemoryException":
            return not out_of_disk(cause)
        case "OSError":  # what Arrow makes of it while a result is read
            return str(cause).startswith("Out of Memory Error: ") and not out_of_disk(cause)
        case "TransactionException" | "FatalException":
            return _TOO_LITTLE.search(str(cause)) is not None
    return False


def out_of_disk(error: BaseException) -> bool:
    """Whether there is no room for what DuckDB spills, which it counts as memory."""
    return "max_temp_directory_size" in str(root_cause(error))


class MemoryLimit:
    """Of one database, for all of its connections, in any thread; a user's own limit stays."""

    def __init__(self) -> None:
        self.megabytes = MEMORY_MB
        self._lock = Lock()
        self._given: dict[str, Any] | None = None
        #: Whether the limit is the user's, and when to make a checkpoint is DuckDB's own affair.
        self.fixed = False

    def settings(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Those to open the database with, beside the user's, which are `given` the first time:
        later ones may hold what was returned. Where order need not be kept, a large table is
        written once, not again by the checkpoint."""
        if self._given is None:
            self._given = dict(given or {})
            self.fixed = not {name.lower() for name in self._given}.isdisjoint(LIMITS)
        own: dict[str, Any] = {"preserve_insertion_order": False}
        if not self.fixed:
            own |= {"memory_limit": f"{self.megabytes}MB", "checkpoint_threshold": NEVER}
        return own | self._given

    def within(self, connection: Any, work: Callable[[], Result]) -> Result:
        """Do what leaves nothing behind where it fails; again with more memory while that helps."""
        while True:
            before = self.megabytes
            try:
                return work()
            except Exception as error:
                if not self.raised_for(error, connection, before):
                    raise

    def raised_for(self, error: BaseException, connection: Any, before: int) -> bool:
        """Whether the limit is above `before` now, and that may mend the error."""
        if self.fixed or not out_of_memory(error):
            return False
        with self._lock:
            if self.megabytes <= before:
                self._set(connection, 2 * self.megabytes)
            return self.megabytes > before

    def make_room(self, connection: Any, columns: int) -> None:
        """For a table of so many columns."""
        if columns * COLUMN_MB > MEMORY_MB // 2:
            self.at_least(connection, MEMORY_MB + columns * COLUMN_MB)

    def at_least(self, connection: Any, megabytes: int) -> None:
        with self._lock:
            if not self.fixed and self.megabytes < megabytes:
                self._set(connection, megabytes)

    def ahead_of(self, connection: Any, rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """The same rows, once; the limit rises before DuckDB gets those that need it."""
        return pa.RecordBatchReader.from_batches(rows.schema, self._ahead_of(connection, rows))

    def _ahead_of(self, connection: Any, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        threads = max(2, os.cpu_count() or 1)
        # The connection itself is busy taking the rows.
        with connection.cursor() as other:
            for batch, vector_bytes, total_bytes in fullest_vectors(rows):
                self.at_least(other, MEMORY_MB + (min(threads * vector_bytes, total_bytes) >> 20))
                yield batch

    def checkpoint(self, connection: Any) -> None:
        """Bring a long write-ahead log into the tables, with much memory: a checkpoint that fails
        puts the database out of use until it is opened again."""
        if self.fixed:
            return
        query = "SELECT wal_size FROM pragma_database_size() WHERE database_name = "
        (size,) = connection.execute(f"{query} current_database()").fetchone()
        if _bytes(size) < CHECKPOINT_BYTES:
            return
        with self._lock:
            _limit(connection, self.most)
            try:
                connection.execute("CHECKPOINT")
            except Exception as error:
                # Another table's transaction is not over, after which it is tried again.
                if "other write transactions" not in str(error):
                    raise
            finally:
                with contextlib.suppress(Exception):  # what others hold may not fit
                    _limit(connection, self.megabytes)

    @property
    def most(self) -> int:
        """Megabytes beyond which the limit is never raised: DuckDB's own on this machine."""
        return max(_most(), self.megabytes)

    def _set(self, connection: Any, megabytes: int) -> None:
        self.megabytes = min(megabytes, self.most)
        _limit(connection, self.megabytes)


def fullest_vectors(
    rows: Iterable[pa.RecordBatch],
) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    """Each batch with the bytes, up to its end, of the fullest run of `VECTOR_ROWS` rows or a few
    more, and of all rows."""
    recent: deque[tuple[int, int]] = deque()
    count = size = fullest = total = 0
    for batch in rows:
        for start in range(0, len(batch), VECTOR_ROWS):
            part = batch.slice(start, VECTOR_ROWS)
            recent.append((len(part), part.nbytes))
            count, size, total = count + len(part), size + part.nbytes, total + part.nbytes
            while count - recent[0][0] >= VECTOR_ROWS:
                rows_gone, bytes_gone = recent.popleft()
                count, size = count - rows_gone, size - bytes_gone
            fullest = max(fullest, size)
        yield batch, fullest, total


def _limit(connection: Any, megabytes: int) -> None:
    connection.execute(f"SET GLOBAL memory_limit = '{megabytes}MB'")


@cache
def _most() -> int:
    """DuckDB's own limit on this machine, in MB."""
    import duckdb

    with duckdb.connect() as connection:
        (limit,) = connection.execute("SELECT current_setting('memory_limit')").fetchone()  # type: ignore[misc]
    return int(_bytes(limit) / 1e6)


def _bytes(text: str) -> float:
    """DuckDB's text of a size, such as `15.9 GiB`."""
    number, unit = text.split()
    return float(number) * _UNITS[unit]
