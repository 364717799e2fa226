"""dlt's DuckDB client: where its database file is, and how the file is opened.

Source: dlt, `dlt.destinations.impl.duckdb`.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.dlt_destination.dlt.errors import root_cause
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.dlt_destination.run import Run

Result = TypeVar("Result")

#: How long to wait while another process, such as a reader, has the file open.
LOCK_WAIT_SECONDS = 10.0

#: Errors of opening the file that waiting does not cure.
_WRONG_FILE = re.compile(
    r"not a valid DuckDB database file|: (?:No such file or directory|Not a directory"
    r"|Is a directory|Permission denied|Read-only file system)$",
    re.MULTILINE,
)


class OpensFile:
    """A mixin for DuckDB's job client: it limits memory, waits while another process has the file
    open, and does not create a missing file for a run that only reads."""

    current_run: Run
    #: The `DuckDbStore`; its `memory` knows the settings of the connection.
    store: Any

    def __enter__(self) -> Any:
        client: Any = self
        credentials = client.config.credentials
        file = credentials.database
        if absent_file(client) is not None and not self.current_run.writes:
            credentials.database = ":memory:"
        if credentials.external_conn() is None:
            credentials.global_config = self.store.memory.settings(credentials.global_config)
            if "checkpoint_threshold" in credentials.global_config:
                # dlt's own value would override ours.
                client.sql_client._global_config.pop("checkpoint_threshold", None)
        else:  # a service has opened the database with its own settings
            self.store.memory.fixed = True
        try:
            return when_unlocked(super().__enter__)  # type: ignore[misc]
        finally:
            credentials.database = file


def when_unlocked(opened: Callable[[], Result]) -> Result:
    """Call `opened`, which opens the file, again while another process has it open."""
    give_up = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            return opened()
        except Exception as error:
            said = str(root_cause(error)).strip()
            if _WRONG_FILE.search(said):
                raise SettingsError(
                    f"destination.duckdb.credentials: {said}",
                    "name a DuckDB file, or a new file in a writable folder",
                ) from None
            if "lock" not in said or time.monotonic() > give_up:
                raise
        time.sleep(0.05)


def database_file(client: Any) -> Path | None:
    """Return the path of the database file, which need not exist; None for a connection or a
    service."""
    database = Path(client.config.credentials.database)
    return database if database.is_absolute() else None


def absent_file(client: Any) -> Path | None:
    """Return the path of the database file if it does not exist."""
    file = database_file(client)
    return None if file is None or file.exists() else file
