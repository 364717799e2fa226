"""dlt's load jobs, replaced: a table's manifest is a job, which the table store does by the plan.

Source: dlt, `dlt.destinations.job_client_impl`, `dlt.load.load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlt.common.destination.client import LoadJob, RunnableLoadJob
from dlt.common.destination.exceptions import DestinationTerminalException
from dlt.destinations.job_impl import FinalizedLoadJob

from adapters.dlt_destination.failures import is_failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlt.common.destination.typing import PreparedTableSchema

    from adapters.dlt_destination.plan import Plan
    from adapters.dlt_destination.store import TableStore


class ApplyTable(RunnableLoadJob):
    """Runs the plan of one table."""

    def __init__(self, file_path: str, table: str, store: TableStore, plan: Plan) -> None:
        super().__init__(file_path)
        self._table = table
        self._store = store
        self._plan = plan

    def run(self) -> None:
        try:
            self._store.apply(self._job_client, self._table, self._plan.steps[self._table])
        except BaseException as error:
            # The loader would wait for ever for a job that neither succeeds nor fails.
            if not is_failure(error):
                raise
            # The loader prints what a job raises, and what a store says may quote a row.
            self._plan.failures.append((self._table, error))
            raise DestinationTerminalException("a table was not loaded") from None


class Arrived(RunnableLoadJob):
    """A file with nothing to do for it. It runs all the same: the loader wakes up when a job ends,
    and looks at those that never ran once a second."""

    def run(self) -> None:
        pass


class PlannedClient:
    """Mixed into dlt's job client of a destination; the factory sets `store` and `plan`."""

    store: TableStore
    plan: Plan

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        planned = self.plan.names.get(str(table["name"]))
        if planned is not None:
            return ApplyTable(file_path, planned, self.store, self.plan)
        job: LoadJob = super().create_load_job(table, file_path, load_id, restore)  # type: ignore[misc]
        return Arrived(file_path) if isinstance(job, FinalizedLoadJob) else job

    def update_stored_schema(
        self,
        only_tables: Iterable[str] | None = None,
        expected_update: Any = None,
        force: bool = False,
    ) -> Any:
        """Without the tables whose names dlt cannot have: it would make empty ones beside them.

        Where dlt's schema is stored already, only `force` has it look for tables that are missing.
        """
        client: Any = self
        names = self.plan.names
        wanted = client.schema.tables if only_tables is None else only_tables
        own = {name for name in wanted if names.get(name, name) == name}
        force = force or self.plan.begins
        return super().update_stored_schema(own, expected_update, force)  # type: ignore[misc]


def planned_factory(
    base: Any, store: TableStore, plan: Plan, mixins: tuple[type, ...], **settings: Any
) -> Any:
    """An instance of dlt's factory `base` whose clients apply `plan` and have `mixins`."""
    original = base(**settings)

    class Client(PlannedClient, *mixins, original.client_class):  # type: ignore[misc, name-defined]
        pass

    Client.store = store
    Client.plan = plan

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

        def _raw_capabilities(self) -> Any:
            capabilities = super()._raw_capabilities()
            # Manifests are JSON lines, whatever the table is made of.
            capabilities.loader_file_format_selector = None
            return capabilities

    return Factory(**settings)
