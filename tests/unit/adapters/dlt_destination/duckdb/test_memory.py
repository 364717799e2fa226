"""DuckDB gets the memory that rows need, and no more than it would take by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pytest

from adapters.dlt_destination.duckdb import memory as duckdb_memory
from adapters.dlt_destination.duckdb import store as duckdb_store
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.duckdb.memory import (
    CHECKPOINT_BYTES,
    MEMORY_MB,
    VECTOR_ROWS,
    MemoryLimit,
    fullest_vectors,
    out_of_disk,
    out_of_memory,
)
from adapters.dlt_destination.files.bounded_chunks import cut, gathered
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.errors import DestinationUnavailable
from tests.contracts.destination_contract import ORDERS, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

TOO_LITTLE = duckdb.OutOfMemoryException("Out of Memory Error: failed to pin block of size 4 MiB")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> int:
    most = 3 * MEMORY_MB
    monkeypatch.setattr(duckdb_memory, "_most", lambda: most)
    return most


def limit_of(connection: duckdb.DuckDBPyConnection) -> int:
    (text,) = connection.execute("SELECT current_setting('memory_limit')").fetchall()[0]
    return round(duckdb_memory._bytes(text) / 1e6)


class Work:
    """Fails so many times for want of memory."""

    def __init__(self, failures: int, error: Exception = TOO_LITTLE) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


def test_what_fails_for_want_of_memory_is_done_with_more(
    connection: duckdb.DuckDBPyConnection, small_machine: int
) -> None:
    memory = MemoryLimit()
    assert memory.within(connection, Work(0)) == "done"
    assert memory.megabytes == MEMORY_MB
    assert memory.within(connection, Work(1)) == "done"
    assert limit_of(connection) == memory.megabytes == 2 * MEMORY_MB
    assert memory.within(connection, Work(1)) == "done"
    assert limit_of(connection) == memory.megabytes == small_machine
    work = Work(1)
    with pytest.raises(duckdb.OutOfMemoryException):
        memory.within(connection, work)
    assert (work.calls, memory.megabytes) == (1, small_machine)


def test_what_fails_for_another_reason_is_not_repeated(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    work = Work(1, duckdb.ConversionException("could not cast"))
    memory = MemoryLimit()
    with pytest.raises(duckdb.ConversionException):
        memory.within(connection, work)
    assert (work.calls, memory.megabytes) == (1, MEMORY_MB)


def test_memory_that_another_thread_got_meanwhile_is_tried_first(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    memory = MemoryLimit()
    memory.at_least(connection, 500)
    assert memory.raised_for(TOO_LITTLE, connection, MEMORY_MB)
    assert memory.megabytes == 500


@pytest.mark.parametrize("name", ["memory_limit", "max_memory", "MEMORY_LIMIT"])
def test_a_users_limit_stays(name: str, connection: duckdb.DuckDBPyConnection) -> None:
    memory = MemoryLimit()
    settings = memory.settings({name: "1GB"})
    # Nothing of ours that depends on the limit: when to make a checkpoint is DuckDB's affair.
    assert settings == {"preserve_insertion_order": False, name: "1GB"}
    assert memory.settings(settings) == settings
    memory.at_least(connection, 5000)
    assert memory.megabytes == MEMORY_MB
    with pytest.raises(duckdb.OutOfMemoryException):
        memory.within(connection, Work(1))


def test_our_settings_are_not_taken_for_the_users(connection: duckdb.DuckDBPyConnection) -> None:
    """dlt hands the same object to every thread."""
    memory = MemoryLimit()
    settings = memory.settings(None)
    memory.at_least(connection, 500)
    assert memory.settings(settings)["memory_limit"] == "500MB"
    assert not memory.fixed


def test_the_fullest_run_of_rows_is_known_before_the_rows_are_given() -> None:
    def batch(rows: int, bytes_each: int) -> pa.RecordBatch:
        return pa.record_batch({"x": pa.array([bytes(bytes_each)] * rows, pa.binary(bytes_each))})

    def largest(*batches: pa.RecordBatch) -> list[tuple[int, int]]:
        return [(fullest, total) for _, fullest, total in fullest_vectors(batches)]

    assert largest() == []
    # Of many rows in one batch, and of one row in each.
    assert largest(batch(5 * VECTOR_ROWS, 10)) == [(10 * VECTOR_ROWS, 50 * VECTOR_ROWS)]
    assert largest(*[batch(1, 100)] * 3) == [(100, 100), (200, 200), (300, 300)]
    ones = largest(*[batch(1, 100)] * 3 * VECTOR_ROWS)
    assert ones[-1] == (100 * VECTOR_ROWS, 300 * VECTOR_ROWS)
    # A few large ones among small ones, astride two batches; the run that was fullest is kept.
    astride = largest(batch(1000, 1), batch(10, 10_000), batch(10 * VECTOR_ROWS, 1))
    assert astride[1][0] == 1000 + 100_000
    assert 100_000 < astride[2][0] <= 100_000 + 2 * VECTOR_ROWS


def test_rows_are_gathered_by_number_and_by_size() -> None:
    def sizes(rows: int, size: int, *pieces: int) -> list[int]:
        tables = [pa.table({"n": pa.array(range(n), pa.int64())}) for n in pieces]
        found = list(gathered(iter(tables), rows, size))
        assert sum(map(len, found)) == sum(pieces)
        return [len(piece) for piece in found]

    assert sizes(10, 1 << 20, 4, 0, 4, 4, 25, 3) == [12, 13, 12, 3]
    assert sizes(1000, 80, 4, 4, 4, 25, 9) == [12, 13, 12, 9]
    assert sizes(1000, 1, 3) == [1, 1, 1]
    assert sizes(10, 80) == []


def test_large_rows_beside_one_another_are_cut_apart() -> None:
    texts = ["x"] * 90_000 + ["y" * 1000] * 300 + ["x"] * 9700
    parts = list(cut(pa.table({"v": texts}), 100_000, 64_000))
    assert [text for part in parts for text in part["v"].to_pylist()] == texts
    assert max(part.nbytes for part in parts) <= 64_000


def test_a_commit_and_a_checkpoint_tell_of_memory_in_their_own_way() -> None:
    assert out_of_memory(TOO_LITTLE)
    assert out_of_memory(
        duckdb.TransactionException("Failed to commit: failed to pin block of size 256.0 KiB")
    )
    assert out_of_memory(
        duckdb.FatalException("the autocheckpoint failed: could not allocate block of size 4 MiB")
    )
    # As Arrow tells of it, while a result is read.
    assert out_of_memory(OSError(str(TOO_LITTLE)))
    assert not out_of_memory(OSError("No space left on device"))
    assert not out_of_memory(duckdb.TransactionException("Conflict on update!"))
    assert not out_of_memory(
        duckdb.ConversionException("could not cast 'Out of Memory: failed to pin'")
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "lake.duckdb.wal"


def opened(log: Path, memory: MemoryLimit, **given: str) -> duckdb.DuckDBPyConnection:
    """With a table and a short log."""
    connection = duckdb.connect(log.with_suffix(""))
    for name, value in {"checkpoint_threshold": "1GB", **memory.settings(given)}.items():
        connection.execute(f"SET GLOBAL {name} = '{value}'")
    connection.execute("CREATE TABLE t (v VARCHAR)")
    connection.execute("INSERT INTO t SELECT repeat('x', 1000)")
    return connection


def test_a_long_log_is_brought_into_the_tables(log: Path) -> None:
    memory = MemoryLimit()
    with opened(log, memory) as connection:
        memory.checkpoint(connection)
        assert log.stat().st_size > 0
        connection.execute(f"INSERT INTO t SELECT repeat('x', {CHECKPOINT_BYTES})")
        assert log.stat().st_size > CHECKPOINT_BYTES
        memory.checkpoint(connection)
        assert not log.exists() or log.stat().st_size < CHECKPOINT_BYTES
        assert limit_of(connection) == MEMORY_MB
        assert connection.execute("SELECT COUNT(*) FROM t").fetchall() == [(2,)]


def test_memory_that_others_have_taken_does_not_fail_the_question_for_the_log(log: Path) -> None:
    """Thousands of tables take all the memory; then even this query needs more."""
    memory = MemoryLimit()
    with opened(log, memory) as connection:

        class Full:
            failures = 1

            def execute(self, query: str) -> Any:
                if "pragma_database_size" in query and self.failures:
                    self.failures -= 1
                    raise TOO_LITTLE
                return connection.execute(query)

        memory.checkpoint(Full())
        assert limit_of(connection) == memory.megabytes == 2 * MEMORY_MB


def test_a_users_limit_leaves_checkpoints_to_duckdb(log: Path) -> None:
    """One before it must be could want more than the limit, which is not raised."""
    memory = MemoryLimit()
    with opened(log, memory, memory_limit="200MB") as connection:
        connection.execute(f"INSERT INTO t SELECT repeat('x', {CHECKPOINT_BYTES})")
        memory.checkpoint(connection)
        assert log.stat().st_size > CHECKPOINT_BYTES
        assert limit_of(connection) == 200


def test_a_scan_that_needs_more_memory_continues_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 10 * VECTOR_ROWS
    destination = duckdb_destination(
        PipelineSettings("pgbronze", "bronze", tmp_path / "work"), str(tmp_path / "lake.duckdb")
    )
    batches, failures = duckdb_store._batches, iter([0, 3, 7])

    def failing(connection: Any, query: str) -> Iterator[pa.Table]:
        last = next(failures, None)
        for number, piece in enumerate(batches(connection, query)):
            if number == last:
                raise TOO_LITTLE if number == 0 else OSError(str(TOO_LITTLE))
            # Another reading need not come in the same pieces.
            half = len(piece) // 2 if last == 7 else len(piece)
            yield from (piece.slice(0, half), piece.slice(half))

    monkeypatch.setattr(duckdb_store, "_batches", failing)
    whole = table_of(ORDERS, [{"id": n, "_cdc_lsn": 1} for n in range(rows)])
    with destination:
        whole.load(destination, 1)
        found = [n for piece in destination.scan("orders", ["id"]) for n in piece["id"].to_pylist()]
    assert sorted(found) == list(range(rows))
    assert next(failures, None) is None


def test_more_memory_does_not_help_a_full_disk(tmp_path: Path) -> None:
    with duckdb.connect(config={"temp_directory": str(tmp_path / "spilled")}) as connection:
        connection.execute("SET memory_limit = '20MB'; SET max_temp_directory_size = '1MB'")
        with pytest.raises(duckdb.OutOfMemoryException) as told:
            connection.execute(
                "CREATE TABLE t AS SELECT i, md5(i::VARCHAR) AS v FROM range(3000000) AS r(i)"
                " ORDER BY v"
            )
    assert out_of_disk(told.value)
    assert not out_of_memory(told.value)
    failure = duckdb_store.DuckDbStore().failure(told.value, "loading")
    assert isinstance(failure, DestinationUnavailable)
    assert "free disk space" in str(failure)
