"""Delta tables of Databricks, by the statements of a SQL warehouse or of a Spark session.

A merge is one MERGE statement over its staged file, a full load one INSERT OVERWRITE or CREATE OR
REPLACE TABLE, so that a reader sees a table before or after.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import JSON, row_fields
from adapters.dlt_destination.databricks import datasets, variants
from adapters.dlt_destination.databricks.definitions import Definitions, qualified
from adapters.dlt_destination.databricks.engines import WarehouseEngine
from adapters.dlt_destination.databricks.errors import error_for
from adapters.dlt_destination.databricks.merges import replaced_history, step_statements
from adapters.dlt_destination.databricks.multi_table_transaction import (
    CATALOG_COMMITS,
    READ_FILES,
    MultiTableTransaction,
    lacks_catalog_commits,
    lacks_transactions,
)
from adapters.dlt_destination.databricks.refusals import refusal_of
from adapters.dlt_destination.databricks.replacement import TableReplacement
from adapters.dlt_destination.databricks.run_log import WarehouseRunLog
from adapters.dlt_destination.databricks.sessions import Sessions
from adapters.dlt_destination.databricks.unity_names import FORBIDDEN_BY_CATALOG, TablesByName
from adapters.dlt_destination.databricks.volume_staging import VolumeStaging
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.dlt.state_keeping import StateInTables
from adapters.dlt_destination.files.bounded_chunks import SCAN_BYTES, SCAN_ROWS, gathered
from adapters.dlt_destination.files.written_files import RowsInFiles
from adapters.dlt_destination.sql.dialect import SPARK
from adapters.dlt_destination.table_steps import FilesOfWorkers, StagedUnrepresentable
from cdc_core.values.merges import UNREPRESENTABLE_SCHEMA, Replacement
from cdc_core.values.naming import FORBIDDEN_IN_TABLES, TableNaming
from cdc_core.values.row_files import file_schema
from cdc_core.values.runs import RUNS_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from adapters.dlt_destination.databricks.engines import Engine
    from adapters.dlt_destination.databricks.retry import RetryPolicy
    from adapters.dlt_destination.run import Run
    from adapters.dlt_destination.store import Refusal
    from adapters.dlt_destination.table_steps import Step
    from cdc_core.values.errors import CdcError
    from cdc_core.values.merges import TargetTable
    from cdc_core.values.row_files import RowFiles

#: Rows per fetch: the connector combines them in memory, however large they are.
FETCH_ROWS = 2048

#: Tables that one statement counts: this bounds the length of the statement.
TABLES_PER_COUNT = 100

#: Such statements at the same time, each in a session of its own.
COUNTS_AT_ONCE = 4


class DatabricksStore(Definitions, RowsInFiles):
    """`settings` are those of dlt's Databricks factory, including credentials. `pipeline` is the
    pipeline's name, which is part of the names of staged files."""

    kind = "databricks"
    section = "destination.databricks"
    naming = TableNaming(FORBIDDEN_IN_TABLES + FORBIDDEN_BY_CATALOG)

    def __init__(
        self,
        settings: Mapping[str, Any],
        pipeline: str,
        retry_policy: RetryPolicy,
        engine: Engine | None = None,
        *,
        in_one_transaction: bool = False,
        credentials: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """`engine` is by default a warehouse. `credentials` reads dlt's keys again, if they can
        change during a run."""
        super().__init__(catalog_commits=in_one_transaction)
        self._settings = settings
        self._pipeline = pipeline
        self._read_credentials = credentials
        self._logged_in = False
        self._engine = engine or WarehouseEngine()
        self.sessions = Sessions(retry_policy, self._credentials, self._engine.connect)
        #: The statements of a batch, if it is one transaction.
        self.block = MultiTableTransaction() if in_one_transaction else None

    def factory(self, run: Run) -> Any:
        from adapters.dlt_destination.databricks.client import WarehouseClient
        from adapters.dlt_destination.dlt.state_factory import state_factory

        self._engine.require_reachable(self._settings["credentials"])
        return state_factory(
            "databricks",
            self,
            run,
            (StateInTables, WarehouseClient),
            destination_name="databricks",
            **{**self._settings, "credentials": self.sessions.login().credentials},
        )

    def _credentials(self) -> Any:
        """Return the credentials read at the start of the run; for a later login, read them
        again."""
        if self._logged_in and self._read_credentials is not None:
            self._settings = {**self._settings, "credentials": dict(self._read_credentials())}
        self._logged_in = True
        return self._engine.credentials(self._settings["credentials"])

    def close(self) -> None:
        if self.block is not None:
            self.block.clear()
        self.sessions.close()
        self.forget_definitions()

    @property
    def statements(self) -> int:
        return self.sessions.sent

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:
        return "VARIANT" if variant else SPARK.sql_type(column.type)

    def run_log(self, client: Any) -> WarehouseRunLog:
        return WarehouseRunLog(client, missing=self.lacks(RUNS_TABLE))

    # Reading rows.

    def count(self, client: Any, tables: Sequence[str], column: str = "") -> dict[str, int]:
        def ask(group: Sequence[str]) -> Any:
            counts = " UNION ALL ".join(
                f"SELECT {number} AS number, COUNT({column or '*'}) AS found "
                f"FROM {qualified(client, table)}"
                for number, table in enumerate(group)
            )
            return client.sql_client.another().execute_sql(counts)

        starts = range(0, len(tables), TABLES_PER_COUNT)
        groups = [tables[start : start + TABLES_PER_COUNT] for start in starts]
        found: TablesByName[int] = TablesByName()
        with ThreadPoolExecutor(COUNTS_AT_ONCE) as pool:
            for group, rows in zip(groups, pool.map(ask, groups), strict=True):
                for number, count in rows:
                    found[group[number]] = count
        return found

    def greatest(self, client: Any, table: str, column: str) -> int | None:
        query = f"SELECT MAX({SPARK.quote(column)}) FROM {qualified(client, table)}"
        ((found,),) = client.sql_client.execute_sql(query)
        return None if found is None else int(found)

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        held = self.current(client, table)
        assert held is not None
        texts = [name for name in columns if held.field(name).type == JSON]
        schema = pa.schema([variants.as_text(held.field(name)) for name in columns])
        names = ", ".join(variants.readable(held.field(name)) for name in columns)
        query = f"SELECT {names} FROM {qualified(client, table)}"
        with client.sql_client.execute_query(query) as cursor:
            for chunk in gathered(cursor.iter_arrow(FETCH_ROWS), SCAN_ROWS, SCAN_BYTES):
                found = chunk.rename_columns(list(columns)).cast(schema)
                for name in texts:
                    place = schema.get_field_index(name)
                    found = found.set_column(
                        place, schema.field(place), variants.canonical(found[name])
                    )
                yield found

    # Changing rows.

    def durable_files(self, client: Any) -> dict[str, list[str]]:
        return self._volume(client, staging=False).stored()

    def store_files(self, client: Any, files: Sequence[Path]) -> None:
        self._volume(client, staging=False).store(files)

    def remove_files(self, client: Any, names: Collection[str]) -> None:
        self._volume(client, staging=False).forget(names)

    @property
    def shared(self) -> DatabricksStore | None:
        return self if self._engine.reaches_volumes else None

    def shared_folder(self, client: Any, name: str) -> str:
        from adapters.dlt_destination.databricks import spark_connection

        folder = self._volume(client, staging=False).new_folder(name)
        return str(spark_connection.volume_path(folder))

    def take_files(self, client: Any, name: str, files: RowFiles) -> None:
        client.current_run.written.forget([name])
        client.current_run.by_workers[name] = self._places(client, files)

    def write(self, client: Any, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:
        client.current_run.by_workers.pop(name, None)
        return super().write(client, name, target, rows)

    def stage_files(self, client: Any, files: RowFiles) -> FilesOfWorkers:
        return FilesOfWorkers(files, self._places(client, files))

    def _places(self, client: Any, files: RowFiles) -> tuple[str, ...]:
        volume = self._volume(client, staging=False)
        return tuple(volume.place(files.folder, name) for name in files.names)

    def make_durable(self, client: Any, names: Collection[str]) -> None:
        super().make_durable(client, names)
        run = client.current_run
        for name in (run.by_workers.keys() & {*names}) - run.listed:
            volume = self._volume(client, staging=False)
            volume.store_list(name, run.by_workers[name], run.folder)
            run.listed.add(name)

    def written(self, client: Any) -> Collection[str]:
        self._read_lists(client)
        return {*super().written(client), *client.current_run.by_workers}

    def _read_lists(self, client: Any) -> None:
        """Learn which files of workers an earlier run has stored."""
        run = client.current_run
        for name, places in self._volume(client, staging=False).listed().items():
            run.by_workers.setdefault(name, places)
            run.listed.add(name)

    def forget(self, client: Any, names: Collection[str]) -> None:
        super().forget(client, names)
        for name in names:
            client.current_run.by_workers.pop(name, None)
            client.current_run.listed.discard(name)

    def sweep(self, client: Any, needed: Collection[str]) -> None:
        for volume in self._volumes(client):
            volume.sweep(needed)

    def make_fit(self, client: Any, replacement: Replacement) -> None:
        self._replacing(client, replacement).make_fit()

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        for step in steps:
            files: Sequence[Path]
            stored: Sequence[str] = ()
            by_workers: Sequence[str] = ()
            fields: Iterable[pa.Field] = UNREPRESENTABLE_SCHEMA
            if isinstance(step, Replacement):
                held = client.current_run.by_workers
                others = [name for name in step.written if name not in held]
                files, stored = self.files_of(client, others)
                by_workers = [place for name in step.written for place in held.get(name, ())]
                fields = row_fields(step.target)
            else:
                files = step.paths
                if isinstance(step, StagedUnrepresentable):
                    by_workers = step.by_workers
            volume = self._volume(client, staging=not isinstance(step, Replacement))
            option = "" if self.block is None else READ_FILES
            staged = volume.staged(files, option, stored, by_workers, partial(_of_workers, fields))
            if not (files or stored or by_workers):
                self._apply(client, table, step, "")
            elif self.block is None:
                with staged as rows:
                    self._apply(client, table, step, rows)
            else:
                self._apply(client, table, step, self.block.enter(staged))

    def commit(self, client: Any) -> None:
        """Run the batch's transaction. If its tables lack the property for transactions, set it
        first."""
        assert self.block is not None
        statement, values = self.block.text()
        try:
            client.sql_client.execute_sql(statement, *values)
        except Exception as error:
            if not lacks_catalog_commits(error):
                raise
            own = (client.schema.state_table_name, client.schema.loads_table_name)
            for table in (*sorted(self.block.tables), *own):
                self.set_properties(client, table, CATALOG_COMMITS)
            client.sql_client.execute_sql(statement, *values)
        self.block.clear()

    def _apply(self, client: Any, table: str, step: Step, files: str) -> None:
        if isinstance(step, Replacement):
            for name, statement in replaced_history(self, client, step, files):
                self._write(client, name, statement)
            self._replacing(client, step).run(files)
            return
        for name, statement in step_statements(self, client, table, step, files):
            self._write(client, name, statement)

    def _replacing(self, client: Any, step: Replacement) -> TableReplacement:
        write = partial(self._write, client, step.target.name)
        return TableReplacement(self, client, step, write, self.block is not None)

    def _write(self, client: Any, table: str, statement: str) -> None:
        """Run the statement now, or add it to the batch's transaction."""
        if self.block is None:
            client.sql_client.execute_sql(statement)
        else:
            self.block.add(statement, table=table)

    # Datasets, volumes, errors.

    def try_writing(self, client: Any, file: Path) -> None:
        """Uses both volumes: snapshots use one, batches of changes the other."""
        datasets.try_writing(client, self._volumes(client), file)

    def drop(self, client: Any) -> list[str]:
        there = datasets.datasets(client)
        for dataset in there:
            datasets.drop_dataset(client, dataset)
        return [f"dataset {dataset!r} with its volumes" for dataset in there]

    def volumes(self, client: Any) -> Mapping[str, Sequence[str]]:
        return datasets.files_by_volume(self._volumes(client))

    def refusal(self, error: BaseException) -> Refusal | None:
        return refusal_of(error)

    def failure(self, error: BaseException, where: str) -> CdcError:
        lacking = None if self.block is None else lacks_transactions(root_cause(error))
        return lacking or error_for(error, where)

    def _volume(self, client: Any, *, staging: bool) -> VolumeStaging:
        return VolumeStaging(client, self.sessions, self._pipeline, staging=staging)

    def _volumes(self, client: Any) -> list[VolumeStaging]:
        both = (self._volume(client, staging=staging) for staging in (False, True))
        return list({volume.name: volume for volume in both}.values())


def _of_workers(fields: Iterable[pa.Field], files: str) -> str:
    """Return the rows of workers' files, with the names and types of the columns."""
    fields = list(fields)
    columns = ", ".join(
        f"CAST({SPARK.quote(held)} AS {SPARK.sql_type(f.type)}) AS {SPARK.quote(f.name)}"
        for held, f in zip(file_schema(pa.schema(fields)).names, fields, strict=True)
    )
    return f"(SELECT {columns} FROM {files})"
