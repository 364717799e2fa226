"""The dataset of a DuckDB file, opened without dlt.

A run on a dataset that has a checkpoint does not need dlt, whose import takes most of the time of a
small run: a checkpoint is one row in each of two of dlt's tables. So such a run reads and writes it
with DuckDB alone, in dlt's form, and the store gets a client with the few members of dlt's job
client that it uses. Whatever is unusual is left to dlt: a missing file, a dataset without a
checkpoint, tables of another version of dlt.

Source: dlt, `dlt.pipeline.state_sync`, `dlt.destinations.job_client_impl`.
"""

from __future__ import annotations

import os
import secrets
import time
import zlib
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from adapters.dlt_destination.dlt.duckdb_client import when_unlocked
from adapters.dlt_destination.dlt.state_keeping import delete_old_states
from adapters.dlt_destination.dlt.stored_state import (
    checkpoint_in,
    decoded,
    encoded,
    with_checkpoint,
    with_tables,
)
from adapters.dlt_destination.sql.dialect import DUCKDB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from adapters.dlt_destination.duckdb.memory import MemoryLimit
    from adapters.dlt_destination.settings import PipelineSettings

STATES, LOADS = "_dlt_pipeline_state", "_dlt_loads"

#: The columns of both tables. With others, they belong to a dlt of another version.
_COLUMNS = {
    STATES: (
        *("version", "engine_version", "pipeline_name", "state", "created_at", "version_hash"),
        *("_dlt_load_id", "_dlt_id"),
    ),
    LOADS: ("load_id", "schema_name", "status", "inserted_at", "schema_version_hash"),
}

_NEWEST = f"""
SELECT s.state, l.load_id, l.schema_name, l.schema_version_hash
FROM {{dataset}}.{STATES} AS s JOIN {{dataset}}.{LOADS} AS l ON l.load_id = s._dlt_load_id
WHERE s.pipeline_name = ? AND l.status = 0 ORDER BY l.load_id DESC LIMIT 1
"""

#: dlt's own ids are ten random bytes too.
_ID_BYTES = 10


class DuckDbDataset:
    """A dataset with a checkpoint. Its clients share a connection, which is open while any of them
    is: other processes can open the file in between."""

    begins = False

    def __init__(self, file: Path, settings: PipelineSettings, memory: MemoryLimit) -> None:
        self._file = file
        self._settings = settings
        self._memory = memory
        self._lock = Lock()
        self._connection: Any = None
        self._clients = 0
        #: Its qualified name, quoted; known once the file has been open.
        self.name = ""
        with self.client() as client:
            _require_columns(client)
            query = _NEWEST.format(dataset=client.fully_qualified_dataset_name())
            ((text, *self._load),) = client.execute_sql(query, settings.pipeline_name)
        self._state = decoded(text)
        if checkpoint_in(self._state) is None:
            raise ValueError("the state has no checkpoint")

    def checkpoint(self) -> Mapping[str, Any]:
        return with_tables(checkpoint_in(self._state) or {})

    def store(self, checkpoint: Mapping[str, Any]) -> None:
        state = with_checkpoint(self._state, checkpoint)
        previous, *schema = self._load
        # dlt orders load ids as text, and takes them from the clock.
        load_id = str(max(round(time.time(), 6), round(float(previous) + 1e-6, 6)))
        version, engine = state["_state_version"], state["_state_engine_version"]
        name = self._settings.pipeline_name
        with self.client() as client, client.begin_transaction():
            dataset = client.fully_qualified_dataset_name()
            client.execute_sql(
                f"INSERT INTO {dataset}.{STATES} ({', '.join(_COLUMNS[STATES])}) "
                "VALUES (%s, %s, %s, %s, now(), %s, %s, %s)",
                *(version, engine, name, encoded(state), state["_version_hash"]),
                *(load_id, secrets.token_urlsafe(_ID_BYTES)),
            )
            client.execute_sql(
                f"INSERT INTO {dataset}.{LOADS} ({', '.join(_COLUMNS[LOADS])}) "
                "VALUES (%s, %s, 0, now(), %s)",
                *(load_id, *schema),
            )
            delete_old_states(client, f"{dataset}.{STATES}", name, version)
        self._state, self._load = state, [load_id, *schema]

    def client(self) -> _Client:
        return _Client(self, self._settings.dataset_name)

    def borrow(self) -> Any:
        """Return a connection, to be given back."""
        with self._lock:
            if self._connection is None:
                self._connection = when_unlocked(self._connected)
            self._clients += 1
            return self._connection.cursor()

    def give_back(self, connection: Any) -> None:
        connection.close()
        with self._lock:
            self._clients -= 1
            if self._clients == 0:
                self._connection.close()
                self._connection = None

    def _connected(self) -> Any:
        import duckdb

        if not self._file.is_file():  # DuckDB would make an empty one
            raise FileNotFoundError(f"{self._file} was deleted during the run")
        # Without settings of its own, so that dlt can open the same file in this process.
        connection = duckdb.connect(self._file)
        try:
            # As dlt does.
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            for name, value in self._memory.settings(None).items():
                connection.execute(f"SET GLOBAL {name} = ?", [value])
            ((database,),) = connection.execute("SELECT current_database()").fetchall()
        except BaseException:
            connection.close()
            raise
        self.name = f"{DUCKDB.quote(database)}.{DUCKDB.quote(self._settings.dataset_name)}"
        return connection


def opened(
    credentials: Any, settings: PipelineSettings, memory: MemoryLimit
) -> DuckDbDataset | None:
    """Return the dataset; None if only dlt can open it. Raises DuckDB's error if the file cannot be
    opened."""
    file = _file(credentials)
    if file is None:
        return None
    import duckdb

    try:
        return DuckDbDataset(file, settings, memory)
    except duckdb.IOException:
        raise
    except (duckdb.Error, TypeError, KeyError, ValueError, zlib.error):
        return None


def _file(credentials: Any) -> Path | None:
    """Return the path of a file that exists, as dlt resolves it; None for other credentials."""
    if not isinstance(credentials, str) or ":" in credentials or "DLT_LOCAL_DIR" in os.environ:
        return None
    file = Path(credentials).absolute()
    return file if file.is_file() else None


def _require_columns(client: _Client) -> None:
    """Raise `ValueError` unless dlt's tables have the columns that are known here."""
    for table, columns in _COLUMNS.items():
        # Not `duckdb_columns`, which takes as long as there are tables.
        rows = client.execute_sql(
            "SELECT name FROM pragma_table_info(%s)",
            f"{client.fully_qualified_dataset_name()}.{table}",
        )
        if {name for (name,) in rows} != {*columns}:
            raise ValueError(f"{table} has other columns")


class _Client:
    """What the store uses of dlt's job client, and in `sql_client` of dlt's SQL client."""

    def __init__(self, dataset: DuckDbDataset, dataset_name: str) -> None:
        self.sql_client = self
        self.dataset_name = dataset_name
        self.native_connection: Any = None
        self._dataset = dataset

    def __enter__(self) -> Self:
        self.native_connection = self._dataset.borrow()
        return self

    def __exit__(self, *exc: object) -> None:
        self._dataset.give_back(self.native_connection)

    def is_storage_initialized(self) -> bool:
        """Whether the dataset exists: a checkpoint was found in it."""
        return True

    def initialize_storage(self) -> None:
        pass

    def fully_qualified_dataset_name(self) -> str:
        return self._dataset.name

    def execute_sql(self, sql: str, *parameters: Any) -> Sequence[Sequence[Any]]:
        found = self.native_connection.execute(
            sql.replace("%s", "?") if parameters else sql, parameters
        )
        rows: Sequence[Sequence[Any]] = found.fetchall()
        return rows

    @contextmanager
    def begin_transaction(self) -> Iterator[None]:
        self.native_connection.begin()
        try:
            yield
        except BaseException:
            self.native_connection.rollback()
            raise
        self.native_connection.commit()
