"""Room for the rows of many small tables, which stay in memory until a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def _wal(connection: duckdb.DuckDBPyConnection) -> str:
    query = "SELECT wal_size FROM pragma_database_size() WHERE database_name = current_database()"
    ((size,),) = connection.execute(query).fetchall()
    return str(size)
