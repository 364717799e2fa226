"""Room for the rows of many small tables, which stay in memory until a checkpoint."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import duckdb

from adapters.dlt_destination.duckdb.memory import CHECKPOINT_TABLES, MEMORY_MB, MemoryLimit

if TYPE_CHECKING:
    from pathlib import Path


def test_many_changed_tables_get_room_and_a_checkpoint(tmp_path: Path) -> None:
    memory = MemoryLimit()
    with duckdb.connect(tmp_path / "lake.duckdb", config=memory.settings(None)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")
        memory.make_room(connection, 1)
        assert memory.megabytes == MEMORY_MB
        for _ in range(1, CHECKPOINT_TABLES):
            memory.checkpoint(connection)
            assert _wal(connection) != "0 bytes"
            memory.make_room(connection, 1)
        assert memory.megabytes > MEMORY_MB
        memory.checkpoint(connection)
        assert _wal(connection) == "0 bytes"


def test_threads_that_all_see_a_long_log_make_one_checkpoint(tmp_path: Path) -> None:
    memory, threads, made = MemoryLimit(), 4, []
    looked = Barrier(threads)

    class Connection:
        def __init__(self) -> None:
            self._connection = database.cursor()

        def execute(self, query: str) -> Any:
            if "wal_size" in query:
                looked.wait(60)
            if query == "CHECKPOINT":
                made.append(query)
            return self._connection.execute(query)

    with duckdb.connect(tmp_path / "lake.duckdb", config=memory.settings(None)) as database:
        for expected in (1, 2):
            for _ in range(CHECKPOINT_TABLES):
                memory.make_room(database, 1)
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(memory.checkpoint, [Connection() for _ in range(threads)]))
            assert len(made) == expected


def _wal(connection: duckdb.DuckDBPyConnection) -> str:
    query = "SELECT wal_size FROM pragma_database_size() WHERE database_name = current_database()"
    ((size,),) = connection.execute(query).fetchall()
    return str(size)
