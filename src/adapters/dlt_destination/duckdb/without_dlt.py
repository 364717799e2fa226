"""The dataset of a DuckDB file, opened without dlt.

A run that finds nothing to load does not need dlt, whose import takes most of its time. So such a
run reads the checkpoint with DuckDB alone, and the store's queries get a client with the few
members of dlt's job client that they use. Whatever is unusual is left to dlt: a missing file, one
that another process has open, a dataset without a checkpoint.
"""

from __future__ import annotations

import os
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from adapters.dlt_destination.dlt.stored_state import checkpoint_in, decoded, with_tables
from adapters.dlt_destination.sql.dialect import DUCKDB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_STATE = """
SELECT s.state FROM {dataset}._dlt_pipeline_state AS s
JOIN {dataset}._dlt_loads AS l ON l.load_id = s._dlt_load_id
WHERE s.pipeline_name = ? AND l.status = 0 ORDER BY l.load_id DESC LIMIT 1
"""


class DuckDbDataset:
    """A dataset with a checkpoint. Each client holds the file open only while it is used."""

    def __init__(
        self, file: Path, dataset_name: str, settings: Mapping[str, Any], pipeline_name: str
    ) -> None:
        self._file = file
        self._dataset_name = dataset_name
        self._settings = settings
        with self.client() as client:
            query = _STATE.format(dataset=client.sql_client.fully_qualified_dataset_name())
            ((text,),) = client.sql_client.execute_sql(query, pipeline_name)
        self._checkpoint = with_tables(checkpoint_in(decoded(text)) or {})

    def checkpoint(self) -> Mapping[str, Any]:
        return self._checkpoint

    def client(self) -> _Client:
        return _Client(self._file, self._dataset_name, self._settings)


def opened(
    credentials: Any, dataset_name: str, pipeline_name: str, settings: Mapping[str, Any]
) -> DuckDbDataset | None:
    """Return the dataset; None if only dlt can open it. `settings` are DuckDB's own."""
    file = _file(credentials)
    if file is None:
        return None
    import duckdb

    try:
        return DuckDbDataset(file, dataset_name, settings, pipeline_name)
    except (duckdb.Error, TypeError, KeyError, ValueError, zlib.error):
        return None


def _file(credentials: Any) -> Path | None:
    """Return the path of a file that exists, as dlt resolves it; None for other credentials."""
    if not isinstance(credentials, str) or ":" in credentials or "DLT_LOCAL_DIR" in os.environ:
        return None
    file = Path(credentials).absolute()
    return file if file.is_file() else None


class _Client:
    """What the store uses of dlt's job client, and in `sql_client` of dlt's SQL client."""

    def __init__(self, file: Path, dataset_name: str, settings: Mapping[str, Any]) -> None:
        self.sql_client = self
        self.dataset_name = dataset_name
        self.native_connection: Any = None
        self._file = file
        self._settings = settings
        self._name = ""

    def __enter__(self) -> Self:
        import duckdb

        # Without settings of its own, so that dlt can open the same file in this process.
        connection = duckdb.connect(self._file)
        try:
            # As dlt does.
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            for name, value in self._settings.items():
                connection.execute(f"SET GLOBAL {name} = ?", [value])
            ((database,),) = connection.execute("SELECT current_database()").fetchall()
        except BaseException:
            connection.close()
            raise
        self._name = f"{DUCKDB.quote(database)}.{DUCKDB.quote(self.dataset_name)}"
        self.native_connection = connection
        return self

    def __exit__(self, *exc: object) -> None:
        self.native_connection.close()

    def is_storage_initialized(self) -> bool:
        """Whether the dataset exists: a checkpoint was found in it."""
        return True

    def fully_qualified_dataset_name(self) -> str:
        return self._name

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
