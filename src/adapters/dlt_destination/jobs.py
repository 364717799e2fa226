"""dlt's load jobs, replaced: a table's files are brought in by the table store, following the plan.

A table with one file is one job; with several, the files' jobs only arrive and a follow-up job
applies them all. Source: dlt, `dlt.destinations.job_client_impl`, `dlt.load.load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlt.common.destination.client import HasFollowupJobs, LoadJob, RunnableLoadJob
from dlt.common.destination.exceptions import DestinationTerminalException
from dlt.destinations.job_impl import FinalizedLoadJob, ReferenceFollowupJobRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlt.common.destination.client import FollowupJobRequest
    from dlt.common.destination.typing import PreparedTableSchema
    from dlt.common.storages.load_package import LoadJobInfo

    from adapters.dlt_destination.plan import Plan
    from adapters.dlt_destination.store import TableStore


class ApplyTable(RunnableLoadJob):
    """Runs the plan of one table."""

    def __init__(self, file_path: str, store: TableStore, plan: Plan) -> None:
        super().__init__(file_path)
        self._store = store
        self._plan = plan

    def run(self) -> None:
        table = self.load_table_name
        try:
            self._store.apply(self._job_client, table, self._plan.steps[table])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told in `failure`
            # The loader prints what a job raises, and what a store says may quote a row.
            self._plan.failures.append((table, error))
            raise DestinationTerminalException(f"table {table!r} was not loaded") from None


class Arrived(RunnableLoadJob, HasFollowupJobs):
    """A file with nothing to do for it now. It runs all the same: the loader only wakes up for jobs
    that end, and looks at finished ones once a second."""

    def run(self) -> None:
        pass


class PlannedClient:
    """Mixed into dlt's job client of a destination; the factory sets `store` and `plan`."""

    store: TableStore
    plan: Plan

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        name = table["name"]
        if name not in self.plan.steps:
            job: LoadJob = super().create_load_job(table, file_path, load_id, restore)  # type: ignore[misc]
            return Arrived(file_path) if isinstance(job, FinalizedLoadJob) else job
        if self._has_one_file(name) or ReferenceFollowupJobRequest.is_reference_job(file_path):
            return ApplyTable(file_path, self.store, self.plan)
        return Arrived(file_path)

    def create_table_chain_completed_followup_jobs(
        self,
        table_chain: Sequence[PreparedTableSchema],
        completed_table_chain_jobs: Sequence[LoadJobInfo] | None = None,
    ) -> list[FollowupJobRequest]:
        name = table_chain[0]["name"]
        if name not in self.plan.steps or self._has_one_file(name):
            return []
        paths = [job.file_path for job in completed_table_chain_jobs or ()]
        first = (completed_table_chain_jobs or ())[0].job_file_info.file_name()
        return [ReferenceFollowupJobRequest(first, paths)]

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:  # noqa: ARG002
        """Never: the staged rows are the package's Parquet files."""
        return False

    def _has_one_file(self, table: str) -> bool:
        return len(self.plan.files(table)) == 1


def planned_factory(base: Any, store: TableStore, plan: Plan, **settings: Any) -> Any:
    """An instance of dlt's factory `base` whose clients apply `plan`."""
    base_client = base(**settings).client_class

    class Client(PlannedClient, base_client):  # type: ignore[misc, valid-type]
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
            kind: str = base(**settings).destination_type
            return kind

        def _raw_capabilities(self) -> Any:
            capabilities = super()._raw_capabilities()
            capabilities.supported_loader_file_formats = [
                *capabilities.supported_loader_file_formats,
                "reference",
            ]
            return capabilities

    return Factory(**settings)
