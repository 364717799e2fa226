"""What this library relies on inside dlt, each thing once, with what breaks without it.

A new version of dlt that fails here must not be admitted by `pyproject.toml` before the room
`adapters.dlt_destination.dlt` was adapted to it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import dlt
import pytest
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.configuration.utils import get_resolved_traces
from dlt.common.destination.client import RunnableLoadJob
from dlt.common.exceptions import MissingDependencyException
from dlt.common.libs.deltalake import deltalake_storage_options
from dlt.common.normalizers.naming.naming import NamingConvention
from dlt.common.storages import LoadStorage
from dlt.common.time import increasing_precise_time
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.impl.databricks.configuration import DatabricksCredentials
from dlt.destinations.impl.databricks.databricks import DatabricksClient
from dlt.destinations.impl.databricks.sql_client import DatabricksCursorImpl, DatabricksSqlClient
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import raise_database_error
from dlt.load.exceptions import LoadClientJobFailed
from dlt.pipeline.exceptions import InvalidPipelineName, PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from adapters.dlt_destination.dlt import naming_convention
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.dlt.packages import Packages
from adapters.dlt_destination.dlt.stored_state import SOURCE
from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.dlt_destination.run import Run
from adapters.dlt_destination.settings import PipelineSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Class, method, names of its parameters, and what breaks when they change.
METHODS: list[tuple[type, str, list[str], str]] = [
    (Pipeline, "sync_destination", [], "the state is not read from the destination"),
    (Pipeline, "_get_destination_clients", ["schema"], "no client of the dataset can be opened"),
    (Pipeline, "_get_load_storage", [], "loaded packages pile up in the work folder"),
    (LoadStorage, "delete_loaded_package", ["load_id"], "loaded packages pile up"),
    (
        SqlJobClientBase,
        "create_load_job",
        ["table", "file_path", "load_id", "restore"],
        "the loader sleeps for a second in each batch",
    ),
    (
        SqlJobClientBase,
        "update_stored_schema",
        ["only_tables", "expected_update", "force"],
        "dlt works on more tables than its own, or does not make those that are missing",
    ),
    (SqlJobClientBase, "complete_load", ["load_id"], "old states are never deleted"),
    (SqlJobClientBase, "get_stored_state", ["pipeline_name"], "a clock set back hides new states"),
    (FilesystemClient, "complete_load", ["load_id"], "old states are never deleted"),
    (FilesystemClient, "get_stored_state", ["pipeline_name"], "as for SQL"),
    (FilesystemClient, "list_table_files", ["table_name"], "old states are never deleted"),
    (FilesystemClient, "make_remote_url", ["remote_path"], "Delta tables have no address"),
    (
        FilesystemClient,
        "_write_to_json_file",
        ["filepath", "data"],
        "a killed run leaves half a state, which the next run cannot read",
    ),
    (
        DatabricksSqlClient,
        "__init__",
        ["dataset_name", "staging_dataset_name", "credentials", "capabilities"],
        "no client of the warehouse can be made",
    ),
    (DatabricksSqlClient, "open_connection", [], "each statement opens a session"),
    (DatabricksSqlClient, "close_connection", [], "sessions are never given back"),
    (DatabricksSqlClient, "execute_query", ["query"], "statements are not sent again"),
    (DatabricksSqlClient, "execute_sql", ["sql"], "statements are not sent again"),
    (DatabricksSqlClient, "create_dataset", [], "a race of two runs ends one of them"),
    (
        DatabricksSqlClient,
        "escape_column_name",
        ["column_name", "quote", "casefold"],
        "columns lose their upper case",
    ),
    (
        DatabricksClient,
        "__init__",
        ["schema", "config", "capabilities"],
        "no client of the warehouse can be made",
    ),
    (DatabricksClient, "is_storage_initialized", [], "each batch asks for the dataset"),
    (DatabricksClient, "initialize_storage", ["truncate_tables"], "each batch asks for it"),
    (DatabricksClient, "get_stored_schema", ["schema_name"], "each batch asks for the schema"),
    (DatabricksClient, "get_stored_schema_by_hash", ["version_hash"], "each batch asks for it"),
    (
        DatabricksClient,
        "_build_schema_update_sql",
        ["storage_tables"],
        "dlt's tables lack the property that multi-table transactions need",
    ),
    (DatabricksCredentials, "on_resolved", [], "credentials of the workspace are not found"),
    (DatabricksCredentials, "to_connector_params", [], "no session can be opened"),
    (DuckDbCredentials, "external_conn", [], "a database that a service has open is closed"),
    (RunnableLoadJob, "run", [], "the state is not written"),
    (NamingConvention, "normalize_identifier", ["identifier"], "names change"),
    (NamingConvention, "break_path", ["path"], "names with two underscores are split"),
    (NamingConvention, "normalize_path", ["path"], "names change"),
    (NamingConvention, "normalize_tables_path", ["path"], "names change"),
]


@pytest.mark.parametrize(
    ("owner", "method", "parameters", "breaks"),
    METHODS,
    ids=[f"{owner.__name__}.{method}" for owner, method, *_ in METHODS],
)
def test_a_method_that_we_call_or_override(
    owner: type, method: str, parameters: list[str], breaks: str
) -> None:
    found = list(inspect.signature(getattr(owner, method)).parameters)[1:]
    assert found[: len(parameters)] == parameters, breaks


#: Instances made by dlt are asked for these by `test_attributes_of_a_client`.
FILESYSTEM_ATTRIBUTES = (
    "fs_client",
    "dataset_path",
    "bucket_path",
    "pathlib",
    "is_local_filesystem",
)


def test_names_that_are_imported() -> None:
    assert DatabricksCursorImpl
    assert raise_database_error
    assert InvalidPipelineName
    parameters = ["credentials", "storage_options"]
    assert list(inspect.signature(deltalake_storage_options).parameters) == parameters


def test_credentials_can_be_complete_from_the_start() -> None:
    """Otherwise dlt looks up our credentials again, in the environment of the process."""
    credentials: Any = DatabricksCredentials()
    credentials.update({"access_token": "x", "server_hostname": "h", "catalog": "c"})
    assert not credentials.is_resolved()
    credentials.__is_resolved__ = True
    assert credentials.is_resolved()
    assert credentials.access_token == "x"
    for name in ("client_id", "client_secret", "http_headers", "session_configuration"):
        assert hasattr(credentials, name), name


def test_attributes_of_a_client(tmp_path: Path) -> None:
    pipeline = dlt.pipeline(
        "p",
        destination=dlt.destinations.filesystem(str(tmp_path / "lake")),
        dataset_name="d",
        pipelines_dir=str(tmp_path / "work"),
    )
    client = pipeline._get_destination_clients(dlt.Schema("s"))[0]
    for name in FILESYSTEM_ATTRIBUTES:
        assert hasattr(client, name), name
    schema = client.schema
    assert schema.loads_table_name in schema.dlt_table_names(), "dlt's own tables are not made"
    assert schema.state_table_name.startswith("_dlt")
    assert hasattr(client.config, "deltalake_storage_options")
    assert client.config.is_resolved(), "dlt looks up every setting again for each client"


def test_a_load_job_knows_its_client_file_and_table() -> None:
    job: Any = RunnableLoadJob.__new__(type("Job", (RunnableLoadJob,), {"run": None}))
    RunnableLoadJob.__init__(job, "/x/table.1234abcd.0.parquet")
    assert job._job_client is None, "the state is not written as one INSERT"
    assert job._file_path == "/x/table.1234abcd.0.parquet"
    job._load_table = {"name": "t"}
    assert job.load_table_name == "t"


def test_load_ids_grow_from_the_last_one() -> None:
    """Otherwise a clock that was set back makes dlt take an older state for the newest."""
    before = increasing_precise_time._last
    try:
        increasing_precise_time._last = 9e9
        assert increasing_precise_time() > 9e9
    finally:
        increasing_precise_time._last = before


def test_wrapped_errors_are_found() -> None:
    """Otherwise messages lose their cause, and refusals of a table look like failures."""
    cause = ValueError("the cause")
    job = LoadClientJobFailed("1", "job", "failed", cause)
    step = PipelineStepFailed.__new__(PipelineStepFailed)
    step.exception = job
    assert root_cause(step) is cause
    assert root_cause(DatabaseException(cause)) is cause


def test_errors_of_settings_have_what_the_message_names() -> None:
    missing = ConfigFieldMissingException(DuckDbCredentials(), {"bucket_url": []})
    assert missing.fields == ["bucket_url"]
    assert MissingDependencyException("caller", ["package"]).dependencies == ["package"]


class TestPackages:
    """How dlt stores a state, on a DuckDB file."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], tuple[Packages, Any]]:
        numbers = iter(range(9))

        def opened() -> tuple[Packages, Any]:
            run = Run(writes=True)
            factory = DuckDbStore(str(tmp_path / "lake.duckdb")).factory(run)
            folder = tmp_path / f"work-{next(numbers)}"
            packages = Packages(PipelineSettings("p", "d"), factory, folder)
            run.begins = packages.begins
            return packages, packages._pipeline

        return opened

    def test_a_package_stores_the_state_once_it_is_noted(
        self, opened: Callable[[], tuple[Packages, Any]]
    ) -> None:
        packages, _ = opened()
        assert packages.begins
        packages.store({"lsn": "1", "tables": {"t": 1}})
        packages.store({"lsn": "2", "tables": {}})
        packages, pipeline = opened()
        assert packages.checkpoint() == {"lsn": "2", "tables": {}}
        with packages.client() as client:
            client.sql_client.execute_sql(
                "DELETE FROM _dlt_loads WHERE load_id = (SELECT MAX(load_id) FROM _dlt_loads)"
            )
        packages, pipeline = opened()
        # A run that was killed before dlt noted the package: its state does not count.
        assert packages.checkpoint() == {"lsn": "1", "tables": {"t": 1}}
        assert pipeline.schemas[SOURCE].naming.normalize_identifier("Ü b__C") == "Ü b__C"

    def test_a_state_that_is_the_same_is_stored_too(
        self, opened: Callable[[], tuple[Packages, Any]]
    ) -> None:
        packages, _ = opened()
        for _ in range(3):
            packages.store({"lsn": "1", "tables": {}})
        with packages.client() as client:
            rows = client.sql_client.execute_sql("SELECT COUNT(*) FROM _dlt_loads")
            assert rows == [(3,)], "a batch without changes for the state is never noted"

    def test_a_run_does_not_read_the_state_again(
        self, opened: Callable[[], tuple[Packages, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packages, pipeline = opened()
        packages.store({"lsn": "1", "tables": {}})
        asked: list[str] = []
        monkeypatch.setattr(
            pipeline, "_restore_state_from_destination", lambda: asked.append("state")
        )
        assert pipeline._state_restored is True
        packages.store({"lsn": "2", "tables": {}})
        assert asked == [], "two more queries in each batch"

    def test_nothing_is_logged_traced_or_kept(
        self, opened: Callable[[], tuple[Packages, Any]]
    ) -> None:
        packages, pipeline = opened()
        assert pipeline.config.enable_runtime_trace is False
        assert pipeline.runtime_config.intercept_signals is False
        packages.store({"lsn": "1", "tables": {}})
        traces = get_resolved_traces()
        assert (traces.resolved_traces, traces.all_traces) == ([], []), (
            "memory grows for each batch"
        )
        assert pipeline._get_load_storage().list_loaded_packages() == []

    def test_dlt_makes_its_own_tables_only(
        self, opened: Callable[[], tuple[Packages, Any]]
    ) -> None:
        packages, _ = opened()
        packages.store({"lsn": "1", "tables": {}})
        with packages.client() as client:
            rows = client.sql_client.execute_sql(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'd'"
            )
        assert {name for (name,) in rows} == {"_dlt_loads", "_dlt_pipeline_state", "_dlt_version"}

    def test_our_checkpoint_threshold_is_used(
        self, opened: Callable[[], tuple[Packages, Any]]
    ) -> None:
        """dlt sets its own for each connection; out of memory in a checkpoint, DuckDB closes the
        database."""
        packages, _ = opened()
        fresh = packages.client()
        assert "checkpoint_threshold" in fresh.sql_client._global_config
        with packages.client() as client:
            (row,) = client.sql_client.execute_sql("SELECT current_setting('checkpoint_threshold')")
        assert row[0] == "909.4 TiB"

    def test_the_factory_is_named_as_the_original(self, tmp_path: Path) -> None:
        factory = DuckDbStore(str(tmp_path / "lake.duckdb")).factory(Run())
        assert factory.destination_type == dlt.destinations.duckdb().destination_type
        factory.caps_params["naming_convention"] = naming_convention.__name__
        assert factory.capabilities().naming_convention == naming_convention.__name__
