"""dlt's job clients as this library uses them: they store dlt's own tables, and nothing else.

Tables of the source are the table store's. dlt's schema does not have them: its work on a schema is
quadratic in the number of tables. Source: dlt, `dlt.destinations.job_client_impl`,
`dlt.load.load`, `dlt.common.schema`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dlt.destinations
from dlt.common.destination.client import LoadJob, RunnableLoadJob
from dlt.destinations.job_impl import FinalizedLoadJob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlt.common.destination.typing import PreparedTableSchema

    from adapters.dlt_destination.store import TableStore
    from adapters.dlt_destination.table_steps import Run


class Arrived(RunnableLoadJob):
    """A file with nothing to do for it. It runs all the same: the loader wakes up when a job ends,
    and looks at those that never ran once a second."""

    def run(self) -> None:
        pass


class StateClient:
    """Mixed into dlt's job client of a destination; the factory sets `store` and `current_run`."""

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
        """For dlt's own tables, whatever else a schema of an older version has.

        Where dlt's schema is stored already, only `force` has it look for tables that are missing.
        """
        client: Any = self
        own = set(client.schema.dlt_table_names())
        force = force or self.current_run.begins
        return super().update_stored_schema(own, expected_update, force)  # type: ignore[misc]


def state_factory(
    name: str, store: TableStore, run: Run, mixins: tuple[type, ...], **settings: Any
) -> Any:
    """Return dlt's destination factory of that name; its clients know the run and have `mixins`.

    `settings` are the arguments of dlt's factory.
    """
    base: Any = getattr(dlt.destinations, name)
    original = base(**settings)

    class Client(StateClient, *mixins, original.client_class):  # type: ignore[misc, name-defined]
        pass

    Client.store = store
    Client.current_run = run

    class Factory(base):  # type: ignore[misc]
        @property
        def client_class(self) -> Any:
            return Client

        @property
        def destination_type(self) -> str:
            """The original's, so that dlt's state names a destination that everyone has."""
            kind: str = original.destination_type
            return kind

        def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
            """As the original, which looks up every setting again each time that it is asked."""
            if initial_config is not None and initial_config.is_resolved():
                return initial_config
            return super().configuration(initial_config, accept_partial)

    return Factory(**settings)
