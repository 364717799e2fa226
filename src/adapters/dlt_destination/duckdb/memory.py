"""DuckDB's memory limit: low at first, raised when rows need more.

DuckDB caches what it reads and writes up to its limit, and spills beyond it. Its default limit is
most of the machine's memory. But it processes 2,048 values of a column at a time, so 2,048 large
values must fit in memory together, in a checkpoint too. Source: DuckDB documentation,
"Configuration", "Tuning Workloads", "CHECKPOINT".
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
#: The setting and its alias.
LIMITS = ("memory_limit", "max_memory")

#: The memory for each column of a table while the table is written.
COLUMN_MB = 1

#: Rows that DuckDB processes at a time.
VECTOR_ROWS = 2048

#: A checkpoint is made when the write-ahead log exceeds this size. DuckDB's own automatic
#: checkpoint is disabled: if it runs out of memory, the whole database becomes unusable.
CHECKPOINT_BYTES = 16 << 20

#: Rows of small tables stay in memory until a checkpoint, at least 256 KB for each table. A commit
#: that runs out of memory cannot be repeated: DuckDB 2.0 does not undo all of it. So there is room
#: for the tables beforehand, and a checkpoint after this number.
TABLE_KB = 512
CHECKPOINT_TABLES = 256
NEVER = "1000TB"

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

#: How a commit or a checkpoint words the error.
_TOO_LITTLE = re.compile(r"(?:failed to|could not) (?:allocate|pin|reserve)")


def out_of_memory(error: BaseException) -> bool:
    """Whether DuckDB ran into its memory limit. Such an error never quotes a row."""
    cause = root_cause(error)
    match type(cause).__name__:
        case "OutOfMemoryException":
            return not out_of_disk(cause)
        case "OSError":  # Arrow's form of it while a result is read
            return str(cause).startswith("Out of Memory Error: ") and not out_of_disk(cause)
        case "TransactionException" | "FatalException":
            return _TOO_LITTLE.search(str(cause)) is not None
    return False


def out_of_disk(error: BaseException) -> bool:
    """Whether the disk has no room for spilled data. DuckDB reports that as lack of memory."""
    return "max_temp_directory_size" in str(root_cause(error))


class MemoryLimit:
    """The limit of one database, for all connections and threads. A user's own limit is kept."""

    def __init__(self) -> None:
        self.megabytes = MEMORY_MB
        self._lock = Lock()
        self._given: dict[str, Any] | None = None
        #: Tables changed since the last checkpoint.
        self._changed = 0
        self._checkpoints = 0
        #: Whether the user set the limit. DuckDB then decides when to make a checkpoint.
        self.fixed = False

    def settings(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the settings to open the database with. The first call passes the user's settings
        in `given`; a later call can pass what was returned here. Without insertion order, DuckDB
        writes a large table once; with it, the checkpoint writes it again."""
        if self._given is None:
            self._given = dict(given or {})
            self.fixed = not {name.lower() for name in self._given}.isdisjoint(LIMITS)
        own: dict[str, Any] = {"preserve_insertion_order": False}
        if not self.fixed:
            own |= {"memory_limit": f"{self.megabytes}MB", "checkpoint_threshold": NEVER}
        return own | self._given

    def within(self, connection: Any, work: Callable[[], Result]) -> Result:
        """Call `work`, and again with more memory while that helps. `work` must leave nothing
        behind when it fails."""
        while True:
            before = self.megabytes
            try:
                return work()
            except Exception as error:
                if not self.raised_for(error, connection, before):
                    raise

    def raised_for(self, error: BaseException, connection: Any, before: int) -> bool:
        """Raise the limit if memory was the cause; return whether it is above `before` now."""
        if self.fixed or not out_of_memory(error):
            return False
        with self._lock:
            if self.megabytes <= before:
                self._set(connection, 2 * self.megabytes)
            return self.megabytes > before

    def make_room(self, connection: Any, columns: int) -> None:
        """Raise the limit for one more changed table, of that many columns."""
        with self._lock:
            self._changed += 1
        megabytes = max(columns * COLUMN_MB, self._changed * TABLE_KB >> 10)
        if megabytes > MEMORY_MB // 2:
            self.at_least(connection, MEMORY_MB + megabytes)

    def at_least(self, connection: Any, megabytes: int) -> None:
        with self._lock:
            if not self.fixed and self.megabytes < megabytes:
                self._set(connection, megabytes)

    def ahead_of(self, connection: Any, rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """Return the same rows. The limit is raised before DuckDB receives rows that need it."""
        return pa.RecordBatchReader.from_batches(rows.schema, self._ahead_of(connection, rows))

    def _ahead_of(self, connection: Any, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        threads = max(2, os.cpu_count() or 1)
        # The connection itself is busy receiving the rows.
        with connection.cursor() as other:
            for batch, vector_bytes, total_bytes in fullest_vectors(rows):
                self.at_least(other, MEMORY_MB + (min(threads * vector_bytes, total_bytes) >> 20))
                yield batch

    def checkpoint(self, connection: Any) -> None:
        """Make a checkpoint if the write-ahead log is long or many tables have changed, with the
        full memory limit: after a failed checkpoint the database is unusable until it is opened
        again."""
        if self.fixed:
            return
        before = self._checkpoints
        query = "SELECT wal_size FROM pragma_database_size() WHERE database_name = "
        # Tables that others are writing may have taken all the memory, even that for a query.
        ((size,),) = self.within(
            connection, lambda: connection.execute(f"{query} current_database()").fetchall()
        )
        if _bytes(size) < CHECKPOINT_BYTES and self._changed < CHECKPOINT_TABLES:
            return
        with self._lock:
            if self._checkpoints > before:  # another thread has made it meanwhile
                return
            _limit(connection, self.most)
            try:
                connection.execute("CHECKPOINT")
                self._changed = 0
                self._checkpoints += 1
            except Exception as error:
                # Another transaction is open. The checkpoint is tried again after it.
                if "other write transactions" not in str(error):
                    raise
            finally:
                with contextlib.suppress(Exception):  # memory in use can exceed the lower limit
                    _limit(connection, self.megabytes)

    @property
    def most(self) -> int:
        """The highest limit in MB: DuckDB's default on this machine."""
        return max(_most(), self.megabytes)

    def _set(self, connection: Any, megabytes: int) -> None:
        self.megabytes = min(megabytes, self.most)
        _limit(connection, self.megabytes)


def fullest_vectors(
    rows: Iterable[pa.RecordBatch],
) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    """Yield each batch, the bytes of the largest `VECTOR_ROWS` consecutive rows so far (or a few
    more), and the bytes of all rows so far."""
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
    """Return DuckDB's default limit on this machine, in MB."""
    import duckdb

    with duckdb.connect() as connection:
        (limit,) = connection.execute("SELECT current_setting('memory_limit')").fetchone()  # type: ignore[misc]
    return int(_bytes(limit) / 1e6)


def _bytes(text: str) -> float:
    """Parse a size such as `15.9 GiB`."""
    number, unit = text.split()
    return float(number) * _UNITS[unit]
