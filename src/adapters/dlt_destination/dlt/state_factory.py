"""dlt's job clients as this library uses them: they store dlt's own tables and nothing else.

The table store writes the tables of the source. dlt's schema does not contain them, because the
time that dlt needs for a schema grows with the square of the number of tables. Source: dlt,
`dlt.destinations.job_client_impl`, `dlt.load.load`, `dlt.common.schema`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dlt.destinations
from dlt.common.destination.client import LoadJob, RunnableLoadJob
from dlt.destinations.job_impl import FinalizedLoadJob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlt.common.destination.typing import PreparedTableSchema

    from adapters.dlt_destination.run import Run
    from adapters.dlt_destination.store import TableStore


class Arrived(RunnableLoadJob):
    """A job with nothing to do. It runs all the same: the loader wakes up when a job ends, but
    checks jobs that never ran only once a second."""

    def run(self) -> None:
        pass


class StateClient:
    """A mixin for dlt's job clients. The factory sets `store` and `current_run`."""

    store: TableStore
    current_run: Run

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        job: LoadJob = super().create_load_job(table, file_path, load_id, restore)  # type: ignore[misc]
        return Arrived(file_path) if isinstance(job, FinalizedLoadJob) else job

    def update_stored_schema(
        self,
        only_tables: Iterable[str] | None = None,  # noqa: ARG002 - dlt's interface
        expected_update: Any = None,
        force: bool = False,
    ) -> Any:
        """Update dlt's own tables only; a schema stored by an older version can contain others.

        If dlt's schema is stored already, dlt looks for missing tables only with `force`.
        """
        client: Any = self
        own = set(client.schema.dlt_table_names())
        force = force or self.current_run.begins
        return super().update_stored_schema(own, expected_update, force)  # type: ignore[misc]


def state_factory(
    name: str,
    store: TableStore,
    run: Run,
    mixins: tuple[type, ...],
    *,
    keeps_credentials: bool = False,
    **settings: Any,
) -> Any:
    """Return dlt's destination factory of that name; its clients know the run and have `mixins`.

    `settings` are the arguments of dlt's factory. `keeps_credentials`: all clients share the
    credentials, and with them the connection. dlt would look them up eight times in each load.
    """
    base: Any = getattr(dlt.destinations, name)
    original = base(**settings)

    class Client(StateClient, *mixins, original.client_class):  # type: ignore[misc, name-defined]
        pass

    Client.store = store
    Client.current_run = run

    class Factory(base):  # type: ignore[misc]
        _resolved: Any = None

        @property
        def client_class(self) -> Any:
            return Client

        @property
        def destination_type(self) -> str:
            """The original's type: dlt's state then names a destination that any dlt can open."""
            kind: str = original.destination_type
            return kind

        def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
            """Return a resolved configuration as it is; the original looks up every setting
            again."""
            if initial_config is not None and initial_config.is_resolved():
                return initial_config
            found = super().configuration(initial_config, accept_partial)
            if found.is_resolved():
                self._resolved = found
                if keeps_credentials:
                    self.config_params["credentials"] = found.credentials
            return found

        def capabilities(self, config: Any = None, naming: Any = None) -> Any:
            """Without a configuration, the original looks up every setting again, many times in
            each load."""
            return super().capabilities(config or self._resolved, naming)

    return Factory(**settings)
