"""Where the statements of the Databricks destination run: a SQL warehouse, or a Spark session.

Both give a connection with the interface of `databricks-sql-connector`, so everything above is the
same: statements, guards, retries, errors, dlt's own tables, and PUT, LIST and REMOVE for files.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Protocol

from adapters.spark_session import ON_DATABRICKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Engine(Protocol):
    """How a store reaches the place where its statements run. `keys` are dlt's credentials."""

    def require_reachable(self, keys: Mapping[str, Any]) -> None:
        """Raises `OSError` soon if there is no way to it. Called before the others."""
        ...

    def credentials(self, keys: Mapping[str, Any]) -> Any:
        """Return dlt's credentials, complete."""
        ...

    def connect(self, parameters: dict[str, Any]) -> Any:
        """Open a connection with the parameters of the credentials."""
        ...

    @property
    def reaches_volumes(self) -> bool:
        """Whether this process, and workers of Spark, find the files of volumes by their paths."""
        ...


class WarehouseEngine:
    """A SQL warehouse, through the connector."""

    def require_reachable(self, keys: Mapping[str, Any]) -> None:
        from adapters.dlt_destination.databricks.preflight import require_reachable

        require_reachable(keys)

    def credentials(self, keys: Mapping[str, Any]) -> Any:
        from adapters.dlt_destination.databricks.credentials import WarehouseCredentials

        return WarehouseCredentials.of(keys)

    def connect(self, parameters: dict[str, Any]) -> Any:
        from databricks import sql

        # The caller gets its errors. Its log can contain statements and addresses.
        logging.getLogger("databricks").setLevel(logging.CRITICAL + 1)
        return sql.connect(**parameters, use_inline_params="silent")

    @property
    def reaches_volumes(self) -> bool:
        return ON_DATABRICKS in os.environ


class SparkEngine:
    """The Spark session that `session` returns. It needs no login, and no warehouse.

    The session is asked for once, in the thread of the run: other threads have no active session.
    """

    reaches_volumes = True

    def __init__(self, session: Callable[[], Any]) -> None:
        self._session = session
        self._found: Any = None

    def require_reachable(self, keys: Mapping[str, Any]) -> None:  # noqa: ARG002 - no login
        """Raises `CdcError` if there is no session."""
        if self._found is None:
            self._found = self._session()

    def credentials(self, keys: Mapping[str, Any]) -> Any:
        from adapters.dlt_destination.databricks.credentials import SessionCredentials

        return SessionCredentials.of(keys)

    def connect(self, parameters: dict[str, Any]) -> Any:
        from adapters.dlt_destination.databricks.spark_connection import SparkConnection

        assert self._found is not None
        return SparkConnection(self._found, parameters["session_configuration"])


def chosen_engine(
    engine: str | None, http_path: str | None, environ: Mapping[str, str] = os.environ
) -> str:
    """The engine of the settings; else, on Databricks without a warehouse, the job's session."""
    if engine is not None:
        return engine
    return "spark" if ON_DATABRICKS in environ and not http_path else "warehouse"
