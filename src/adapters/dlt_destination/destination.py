"""The `Destination` port on dlt, for any table store."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import pyarrow as pa

from adapters.dlt_destination.dlt.errors import root_cause, settings_error
from adapters.dlt_destination.failures import is_failure
from adapters.dlt_destination.files.parquet import StagedParquet, write_table
from adapters.dlt_destination.files.work_folder import WorkFolder
from adapters.dlt_destination.refused_tables import RefusedTables
from adapters.dlt_destination.run import Run
from adapters.dlt_destination.staged_steps import written_steps
from adapters.dlt_destination.store import PROBE_COLUMN
from adapters.dlt_destination.table_definitions import TableDefinitions
from cdc_core.fold.row_layout import loaded_schema
from cdc_core.values.checkpoint import Checkpoint
from cdc_core.values.errors import CdcError, DestinationFailed
from cdc_core.values.history import SORT_COLUMN
from cdc_core.values.merges import (
    DELETED_AT_COLUMN,
    LSN_COLUMN,
    UNREPRESENTABLE_SCHEMA,
    UNREPRESENTABLE_TABLE,
    LoadBatch,
    TargetTable,
)
from cdc_core.values.row_files import read_files
from cdc_core.values.runs import RUN_TABLES_TABLE, RUNS_TABLE

if TYPE_CHECKING:
    from collections.abc import (
        Collection,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from datetime import datetime
    from pathlib import Path
    from types import ModuleType

    from adapters.dlt_destination.settings import PipelineSettings
    from adapters.dlt_destination.store import Dataset, TableStore
    from adapters.dlt_destination.table_steps import Steps
    from cdc_core.values.merges import StagedRows
    from cdc_core.values.naming import TableNaming
    from cdc_core.values.row_files import RowFiles
    from cdc_core.values.runs import RunReceipt, RunTable

#: Folders in the work folder: files of the current batch, staged rows, and dlt's packages.
FILES, STAGING, PACKAGES = "files", "staging", "dlt"

#: Tables that are written at the same time, each by its own client.
TABLES_AT_ONCE = 8


class TableFailed(Exception):
    """A table could not be written. `__cause__` is the reason."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table


class DltDestination:
    """Implements `cdc_core.ports.destination.Destination`.

    The dataset is opened when it is first needed, without dlt if the store can do that, and again
    after an error: a failed package is never loaded later, and the contents of the dataset are
    read again. Rows that were stored or staged stay until the run ends.
    """

    def __init__(self, store: TableStore, settings: PipelineSettings) -> None:
        self._store = store
        self._settings = settings
        self._run = Run()
        self._folder: WorkFolder | None = None
        self._opened: Dataset | None = None
        self._tables = TableDefinitions(store)
        #: A client that keeps the connection open between scans.
        self._held: Any = None
        self._staged = 0
        #: Names of stored rows: those that wait for a load, and those that the durable checkpoint
        #: names (None: what a killed run left is not deleted yet).
        self._waiting: set[str] = set()
        self._needed: frozenset[str] | None = None
        #: Whether a checkpoint was found or stored, so that the dataset exists.
        self._has_dataset = False

    @property
    def naming(self) -> TableNaming:
        return self._store.naming

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:
        return self._store.column_type(column, variant=variant)

    def __enter__(self) -> Self:
        with self._failures("opening"):
            self._dataset()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def read_checkpoint(self) -> Checkpoint | None:
        with self._failures("reading the checkpoint"):
            state = self._dataset().checkpoint()
        if state is None:
            return None
        self._has_dataset = True
        try:
            return Checkpoint.from_state(state)
        except (ValueError, KeyError, TypeError):
            raise DestinationFailed(
                f"the checkpoint in dataset {self._settings.dataset_name!r} is of another version "
                "of pgbronze",
                "run the version that wrote it; or, to have every table read again, drop the table "
                "_dlt_pipeline_state of the dataset, then run: pgbronze snapshot",
            ) from None

    def stage(self, rows: pa.Table) -> StagedParquet:
        with self._failures("staging"):
            self._dataset()
            self._staged += 1
            path = self._subfolder(STAGING) / f"staged-{self._staged}.parquet"
            return StagedParquet(write_table(rows, path), len(rows), rows.schema)

    def write(self, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:
        with self._failures(f"storing rows of table {target.name!r}"):
            with self._writing_rows() as client:
                count = self._store.write(client, name, target, rows)
            self._waiting.add(name)
            return count

    def shared_folder(self, name: str) -> str:
        with self._failures("making a folder for rows"), self._writing_rows() as client:
            if self._store.shared is not None:
                return self._store.shared.shared_folder(client, name)
            return str(self._subfolder(STAGING) / f"{name}-{uuid4().hex[:8]}")

    def store_files(self, name: str, target: TargetTable, files: RowFiles) -> None:
        if self._store.shared is None or not files.names:
            self.write(name, target, read_files(files, loaded_schema(target)))
            return
        with self._failures(f"storing rows of table {target.name!r}"):
            with self._writing_rows() as client:
                self._store.shared.take_files(client, name, files)
            self._waiting.add(name)

    def stage_files(self, files: RowFiles) -> Sequence[StagedRows]:
        if self._store.shared is not None:
            with self._failures("staging"), self._writing_rows() as client:
                return (self._store.shared.stage_files(client, files),)
        return [self.stage(rows) for rows in read_files(files, UNREPRESENTABLE_SCHEMA)]

    def written(self) -> frozenset[str]:
        with self._failures("looking for stored rows"), self._opened_client() as client:
            return frozenset(self._store.written(client)) & (self._waiting | self._named())

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        with self._failures("loading"):
            dataset = self._dataset()
            self._writes()
            self._run.begins = dataset.begins
            needed = _named(checkpoint)
            # Open until the end, so that clients that dlt opens can share the connection.
            with self._opened_client() as client:
                self._sweep(client)
                self._store.make_durable(client, needed)
                self._tables.define(client, batch)
                self._apply(client, self._steps(client, batch))
                dataset.store(checkpoint.to_state())
                self._has_dataset = True
                self._forget(client, needed)
            self._let_go()
            if self._run.begins:  # it has a checkpoint now
                self._opened = self._store.without_dlt(self._settings) or dataset
            for folder in (FILES, STAGING):
                shutil.rmtree(self._subfolder(folder))

    def columns(
        self, tables: Collection[str], *, current: bool = False
    ) -> Mapping[str, Sequence[str]]:
        with self._failures("looking for tables"), self._opened_client() as client:
            known = self._tables.known(client)
            if current:
                found = {table: self._tables.current(client, table) for table in tables}
            else:
                found = {table: known[table] for table in tables if table in known}
            return {table: schema.names for table, schema in found.items() if schema is not None}

    def last_numbers(self, logs: Collection[str]) -> Mapping[str, int]:
        with self._failures("reading the numbers of images"), self._opened_client() as client:
            self._stay_open()
            there = [log for log in logs if self._tables.current(client, log) is not None]
            found = {log: self._store.greatest(client, log, SORT_COLUMN) for log in there}
            return {log: last for log, last in found.items() if last is not None}

    def marked_rows(self, tables: Collection[str]) -> Mapping[str, int]:
        with self._failures("counting rows"), self._opened_client() as client:
            known = self._tables.known(client)
            names = sorted(n for n in tables if n in known and DELETED_AT_COLUMN in known[n].names)
            return self._store.count(client, names, DELETED_AT_COLUMN) if names else {}

    def tables(self) -> Mapping[str, int]:
        with self._failures("counting rows"), self._opened_client() as client:
            own = (RUNS_TABLE, RUN_TABLES_TABLE)
            names = sorted(name for name in self._tables.known(client) if name not in own)
            return self._store.count(client, names)

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        with self._failures(f"reading table {table!r}"), self._opened_client() as client:
            self._stay_open()
            if table not in self._tables.known(client) and not self._tables.current(client, table):
                return
            # A query needs a column even if the caller only counts rows.
            for chunk in self._store.scan(client, table, columns or (LSN_COLUMN,)):
                yield chunk if columns else chunk.select([])

    @property
    def statements(self) -> int:
        return self._store.statements

    def write_receipt(
        self,
        receipt: RunReceipt,
        tables: Sequence[RunTable],
        *,
        forget_before: datetime | None = None,
    ) -> None:
        with self._failures("writing a receipt"), self._opened_client() as client:
            if self._has_dataset or client.is_storage_initialized():
                self._store.run_log(client).write_receipt(receipt, tables, forget_before)

    def receipts(self, limit: int) -> Sequence[RunReceipt]:
        with self._failures("reading receipts"), self._opened_client() as client:
            there = client.is_storage_initialized()
            return self._store.run_log(client).receipts(limit) if there else ()

    def try_writing(self) -> None:
        with self._failures("trying to write"):
            with self._with_dlt().client() as client:
                file = write_table(pa.table({PROBE_COLUMN: [1]}), self._run.folder / "try.parquet")
                self._store.try_writing(client, file)
            # The caches must not contain what was created and dropped.
            self._end()

    def drop(self) -> Sequence[str]:
        with self._failures("dropping the dataset"):
            with self._with_dlt().client() as client:
                dropped = self._store.drop(client)
                self._has_dataset = False
            self._end()
            return dropped

    def volumes(self) -> Mapping[str, Sequence[str]] | None:
        with self._failures("listing volumes"), self._with_dlt().client() as client:
            return self._store.volumes(client)

    # Opening and closing.

    def _dataset(self) -> Dataset:
        if self._opened is None:
            self._prepare()
            self._opened = self._store.without_dlt(self._settings)
        return self._opened or self._with_dlt()

    def _with_dlt(self) -> Dataset:
        """Return the dataset, opened by dlt. It need not exist."""
        packages = _import_packages()
        if not isinstance(self._opened, packages.Packages):
            self._prepare()
            factory = self._store.factory(self._run)
            self._opened = packages.Packages(self._settings, factory, self._subfolder(PACKAGES))
        return self._opened

    def _prepare(self) -> None:
        self._close()
        if self._folder is None:
            self._folder = WorkFolder(self._settings.work_folder)
            self._run.folder = self._folder.path

    def _subfolder(self, name: str) -> Path:
        folder = self._run.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def _close(self) -> None:
        """Close everything that an error may have broken; the next call opens it again."""
        with suppress(Exception):  # the connection can be lost
            self._let_go()
        self._opened = None
        self._tables.forget()
        self._run.begins = False
        self._store.close()
        shutil.rmtree(self._run.folder / PACKAGES, ignore_errors=True)

    def _end(self) -> None:
        """End the run: nothing of it is left here."""
        self._close()
        self._waiting.clear()
        self._needed = None
        self._run.by_workers.clear()
        self._run.listed.clear()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    @contextmanager
    def _opened_client(self) -> Iterator[Any]:
        with self._dataset().client() as client:
            yield client

    def _writes(self) -> None:
        """From here on, the run creates what is missing. A connection to a database that did not
        exist leads nowhere."""
        if not self._run.writes:
            self._let_go()
            self._run.writes = True

    def _stay_open(self) -> None:
        """Keep the connection open between calls, until a load or the end: the cost of opening it
        grows with the number of tables."""
        if self._held is None:
            self._held = self._dataset().client()
            self._held.__enter__()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(None, None, None)

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        """Translate exceptions into `CdcError` and close the pipeline after one."""
        try:
            yield
        except CdcError:
            self._close()
            raise
        except BaseException as error:
            if not is_failure(error):
                raise
            where = f"{self._store.kind} dataset {self._settings.dataset_name!r}, {doing}"
            if isinstance(error, TableFailed):
                where += f" table {error.table!r}"
            self._close()
            root = root_cause(error)
            if not is_failure(root):
                raise root from None  # dlt wraps an interrupt that arrives during a load
            if isinstance(root, CdcError):
                raise root from None
            wrong_setting = settings_error(root, self._store.section)
            if wrong_setting is not None:
                raise wrong_setting from None
            raise self._store.failure(error, where) from None

    # Stored rows.

    @contextmanager
    def _writing_rows(self) -> Iterator[Any]:
        self._dataset()
        self._writes()
        self._stay_open()
        with self._opened_client() as client:
            self._sweep(client)
            yield client

    def _named(self) -> frozenset[str]:
        """Return the names of stored rows that the durable checkpoint needs."""
        return _named(self.read_checkpoint()) if self._needed is None else self._needed

    def _sweep(self, client: Any) -> None:
        """Delete what a killed run left, once."""
        if self._needed is None:
            needed = self._named()
            self._store.sweep(client, needed)
            self._needed = needed

    def _forget(self, client: Any, needed: frozenset[str]) -> None:
        """Delete the stored rows that a load did not name in its checkpoint."""
        if unneeded := (self._waiting | self._named()) - needed:
            self._store.forget(client, unneeded)
        self._waiting.clear()
        self._needed = needed

    def _steps(self, client: Any, batch: LoadBatch) -> Steps:
        steps = written_steps(batch, self._subfolder(FILES))
        if UNREPRESENTABLE_TABLE in steps:
            self._tables.fit(client, UNREPRESENTABLE_TABLE, UNREPRESENTABLE_SCHEMA, ())
        if batch.replacements:
            # The store decides which columns a replaced table has.
            self._tables.forget()
        return steps

    def _apply(self, client: Any, steps: Steps) -> None:
        """Apply the steps, several tables at the same time. The first failure stops the load; a
        refused table does not stop the others."""
        if not steps:
            return
        client.initialize_storage()  # creates the dataset if needed
        opened = threading.local()
        refused = RefusedTables(self._store, len(steps))
        last: TableFailed | None = None

        def apply(table: str) -> None:
            try:
                if not hasattr(opened, "client"):
                    opened.client = clients.enter_context(self._opened_client())
                self._store.apply(opened.client, table, steps[table])
            except BaseException as error:
                if not is_failure(error):
                    raise
                raise TableFailed(table) from error

        with ExitStack() as clients, ThreadPoolExecutor(TABLES_AT_ONCE) as pool:
            try:
                for applied in [pool.submit(apply, table) for table in steps]:
                    try:
                        applied.result()
                    except TableFailed as error:
                        if not refused.add(error.table, error):
                            raise
                        last = error
            except BaseException:  # including an interrupt: cancel what has not started
                pool.shutdown(cancel_futures=True)
                raise
        if last is not None and refused.for_a_common_cause:
            raise last
        refused.require_none()


def _import_packages() -> ModuleType:
    from adapters.dlt_destination.dlt.runtime import import_dlt

    # First: `packages` and the stores import parts of dlt.
    import_dlt()
    from adapters.dlt_destination.dlt import packages

    return packages


def _named(checkpoint: Checkpoint | None) -> frozenset[str]:
    """Return the names of stored rows in a checkpoint."""
    reading = None if checkpoint is None else checkpoint.reading
    return frozenset(stored.name for stored in reading.ranges) if reading else frozenset()
