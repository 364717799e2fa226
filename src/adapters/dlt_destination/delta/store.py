"""Delta tables in a folder or bucket: `<bucket_url>/<dataset>/<table>`, one commit for each step.

Source: Delta protocol, "Primitive Types".
"""

from __future__ import annotations

import contextlib
import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pyarrow.fs import FSSpecHandler, PyFileSystem

from adapters.dlt_destination.columns import replaced_fields
from adapters.dlt_destination.delta import queries
from adapters.dlt_destination.delta.definitions import Definitions, nullable
from adapters.dlt_destination.delta.folders import (
    LOG_FOLDER,
    is_folder,
    last_part,
    location,
    open_table,
)
from adapters.dlt_destination.delta.merges import merge_difference, merge_step
from adapters.dlt_destination.delta.parquet_rows import (
    as_reader,
    chunks,
    row_groups,
    writer_properties,
)
from adapters.dlt_destination.delta.run_log import DeltaRunLog
from adapters.dlt_destination.delta.upkeep import PROPERTIES
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.dlt.filesystem_client import storage_options
from adapters.dlt_destination.dlt.state_keeping import StateInFiles
from adapters.dlt_destination.failures import scrubbed
from adapters.dlt_destination.files import written_files
from adapters.dlt_destination.files.bounded_chunks import SCAN_BYTES, SCAN_ROWS, gathered
from adapters.dlt_destination.files.written_files import RowsInFiles
from adapters.dlt_destination.settings import local_folder
from adapters.dlt_destination.sql import merge_sql
from adapters.dlt_destination.sql.dialect import DUCKDB, SPARK
from adapters.dlt_destination.store import Refusal, StoreDefaults, probe_name
from adapters.dlt_destination.table_steps import StagedHistory, Step
from cdc_core.values.errors import DestinationFailed, DestinationUnavailable, SettingsError
from cdc_core.values.merges import Replacement
from cdc_core.values.naming import FORBIDDEN_IN_TABLES, RESERVED_TABLES, TableNaming

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from adapters.dlt_destination.run import Run
    from cdc_core.values.errors import CdcError

#: A table's folder is part of a URL. delta-rs and other readers refuse or misread these and control
#: characters. Source: `object_store`, "Path"; URL standard.
NOT_IN_ADDRESSES = "".join(map(chr, range(1, 32))) + "\x7f" + "[]^|%#?"
#: Other names in a dataset's folder: dlt's marker, a Delta log, files of stored rows.
NO_TABLES = ("init", LOG_FOLDER, written_files.FOLDER)

#: delta-rs's errors for a table to which users added constraints or features.
_REFUSING = {"DeltaError", "DeltaProtocolError", "SchemaMismatchError"}
_OF_THE_TABLE = re.compile(
    r"constraint|invariant|validation check|features|NOT NULL", re.IGNORECASE
)


class DeltaStore(Definitions, RowsInFiles, StoreDefaults):
    """`bucket_url`, `credentials` and `options` are those of dlt's filesystem; None: dlt's
    settings."""

    kind = "delta"
    section = "destination.filesystem"
    naming = TableNaming(FORBIDDEN_IN_TABLES + NOT_IN_ADDRESSES, (*RESERVED_TABLES, *NO_TABLES))

    def __init__(
        self,
        bucket_url: str | None = None,
        credentials: Any = None,
        **options: Mapping[str, Any] | None,
    ) -> None:
        self.statements = 0
        self._bucket_url = bucket_url
        self._credentials = credentials
        self._options: dict[str, Any] = {
            name: dict(table) for name, table in options.items() if table is not None
        }

    def factory(self, run: Run) -> Any:
        from adapters.dlt_destination.dlt.state_factory import state_factory

        return state_factory(
            "filesystem",
            self,
            run,
            (StateInFiles,),
            bucket_url=self._bucket_url,
            credentials=self._credentials,
            destination_name="filesystem",
            **self._options,
        )

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:  # noqa: ARG002 - has no such type
        return SPARK.sql_type(column.type)

    def run_log(self, client: Any) -> DeltaRunLog:
        return DeltaRunLog(client)

    def durable_files(self, client: Any) -> dict[str, list[str]]:
        return written_files.by_name((last_part(place), place) for place in self._places(client))

    def store_files(self, client: Any, files: Sequence[Path]) -> None:
        if not client.is_storage_initialized():
            client.initialize_storage()
        folder = self._written_folder(client)
        client.fs_client.makedirs(folder, exist_ok=True)
        for file in files:
            client.fs_client.put_file(str(file), client.pathlib.join(folder, file.name))

    def remove_files(self, client: Any, names: Collection[str]) -> None:
        self._remove_but(client, lambda name: name not in names)

    def sweep(self, client: Any, needed: Collection[str]) -> None:
        self._remove_but(client, lambda name: name in needed)

    def _remove_but(self, client: Any, stays: Callable[[str | None], bool]) -> None:
        """Delete durable files, except those of rows with such names."""
        files = client.fs_client
        for place in self._places(client):
            if not stays(written_files.name_of(last_part(place))):
                files.rm_file(place)
        folder = self._written_folder(client)
        if is_folder(files, folder) and not self._places(client):
            files.rm(folder, recursive=True)

    def _places(self, client: Any) -> list[str]:
        """Return where the files of rows are that outlive the run."""
        files, folder = client.fs_client, self._written_folder(client)
        files.invalidate_cache()
        return list(files.ls(folder, detail=False)) if is_folder(files, folder) else []

    def _written_folder(self, client: Any) -> str:
        return str(client.pathlib.join(client.dataset_path, written_files.FOLDER))

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        for step in steps:
            self.statements += 1
            if isinstance(step, Replacement):
                merge_difference(client, step, (), self._stored_rows(client, step))
                self._replace(client, table, step)
            else:
                looks_up = isinstance(step, StagedHistory)
                held = self.columns_of(client, table).names if looks_up else ()
                merge_step(client, table, step, held)

    def _stored_rows(self, client: Any, step: Replacement) -> dict[str, Any]:
        """Return the stored rows of a replacement as datasets, where they are needed."""
        if step.history is None and step.soft_deletes is None:
            return {}
        local, durable = self.files_of(client, step.written)
        found = {}
        if local:
            found["rows here"] = pads.dataset([*map(str, local)], format="parquet")
        if durable:
            files = PyFileSystem(FSSpecHandler(client.fs_client))
            found["rows stored"] = pads.dataset(durable, format="parquet", filesystem=files)
        return found

    def _kept_rows(self, client: Any, step: Replacement, old: pa.Schema) -> Path | None:
        """Return a file of the rows that a replacement with soft deletes keeps, marked."""
        if not (step.keeps_rows and len(old)):
            return None
        values = merge_sql.kept_values(DUCKDB, step, old)
        columns = [f"{value} AS {DUCKDB.quote(name)}" for name, value in values.items()]
        columns += [DUCKDB.column("t", name) for name in old.names if step.keeps(name)]
        relations, table = self._stored_rows(client, step), step.target.name
        rows = queries.union(relations)
        source = merge_sql.kept_from(DUCKDB, step, old, queries.relation(table), rows)
        sql = f"SELECT {', '.join(columns)} {source}"
        relations[queries.of(table)] = open_table(client, table).to_pyarrow_dataset()
        return queries.result_file(sql, client.current_run.folder, (), relations)

    def _replace(self, client: Any, table: str, step: Replacement) -> None:
        from deltalake import write_deltalake

        old = self.columns_of(client, table)
        new = pa.schema([_described(field, old) for field in nullable(replaced_fields(step))])
        kept = [field for field in old if step.keeps(field.name)]
        schema = pa.schema([*new, *kept])
        marked = self._kept_rows(client, step, old)

        def batches() -> Iterator[pa.Table]:
            for opened in self._opened_files(client, step.written):
                with opened:
                    for rows in row_groups(opened):
                        yield _with_columns(rows, schema)
            if marked is not None:
                for rows in row_groups(marked):
                    yield _with_columns(rows, schema)

        write_deltalake(
            location(client, table),
            as_reader(batches(), schema),
            mode="overwrite",
            schema_mode="overwrite",
            configuration=PROPERTIES,
            writer_properties=writer_properties(),
            storage_options=storage_options(client),
        )
        # To delta-rs, a schema with another column order is the same schema.
        self.order(client, table, schema.names)

    def _opened_files(self, client: Any, names: Sequence[str]) -> Iterator[Any]:
        """Open the files of stored rows, one after another."""
        local, durable = self.files_of(client, names)
        yield from (path.open("rb") for path in local)
        yield from map(client.fs_client.open, durable)

    def count(self, client: Any, tables: Sequence[str], column: str = "") -> dict[str, int]:
        opened = {table: open_table(client, table) for table in tables}
        if not column:
            return {table: found.count() for table, found in opened.items()}
        there = ~pc.is_null(pc.field(column))
        return {
            table: found.to_pyarrow_dataset().count_rows(filter=there)
            for table, found in opened.items()
        }

    def greatest(self, client: Any, table: str, column: str) -> int | None:
        dataset = open_table(client, table).to_pyarrow_dataset()
        last = (pc.max(chunk.column(0)).as_py() for chunk in chunks(dataset, [column]))
        return max((found for found in last if found is not None), default=None)

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        dataset = open_table(client, table).to_pyarrow_dataset()
        yield from gathered(chunks(dataset, columns), SCAN_ROWS, SCAN_BYTES)

    def try_writing(self, client: Any, file: Path) -> None:
        from deltalake import write_deltalake

        there = client.is_storage_initialized()
        table = probe_name()
        made = _missing_folders(client)
        try:
            if not there:
                client.initialize_storage()
            rows, options = pq.read_table(file), storage_options(client)
            for _ in ("made", "written"):
                write_deltalake(
                    location(client, table), rows, mode="append", storage_options=options
                )
        finally:
            folder = client.pathlib.join(client.dataset_path, table)
            if client.fs_client.exists(folder):
                client.fs_client.rm(folder, recursive=True)
            if not there and client.is_storage_initialized():
                client.drop_storage()
            for parent in made:
                with contextlib.suppress(OSError):  # another run can be using it
                    parent.rmdir()

    def drop(self, client: Any) -> list[str]:
        if not client.is_storage_initialized():
            return []
        client.drop_storage()
        return [f"dataset {client.dataset_name!r}"]

    def refusal(self, error: BaseException) -> Refusal | None:
        if type(error).__name__ not in _REFUSING or not _OF_THE_TABLE.search(str(error)):
            return None
        return Refusal(scrubbed(error))

    def failure(self, error: BaseException, where: str) -> CdcError:
        cause = root_cause(error)
        key = "destination.filesystem.bucket_url"
        if isinstance(cause, ValueError) and str(cause).startswith("Protocol not known"):
            return SettingsError(
                f"{key} has a protocol that is not known", "name a folder, or a URL such as s3://…"
            )
        if isinstance(cause, OSError) and self._cannot_be_made(cause):
            return SettingsError(
                f"{key} names a place that cannot be written ({cause.strerror})",
                "name a folder that can be made and written",
            )
        if isinstance(cause, OSError):
            return DestinationUnavailable(
                f"{where}: {scrubbed(cause)}",
                f"make sure that {key} can be reached and written; run again",
            )
        return DestinationFailed(f"{where}: {scrubbed(cause)}", "run again with LOG_LEVEL=DEBUG")

    def _cannot_be_made(self, error: OSError) -> bool:
        """Whether no run can create the folder. An object store's error can be temporary."""
        folder = local_folder(self._bucket_url) if self._bucket_url else None
        hopeless = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
        return folder is not None and not folder.is_dir() and error.errno in hopeless


def _missing_folders(client: Any) -> list[Path]:
    """Return the missing local folders of the bucket's path, innermost first."""
    if not client.is_local_filesystem:
        return []
    bucket = Path(client.bucket_path)
    return [folder for folder in (bucket, *bucket.parents) if not folder.exists()]


def _with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows with these columns; those that they lack are NULL."""
    columns = [
        rows.column(field.name).cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _described(field: pa.Field, held: pa.Schema) -> pa.Field:
    """Return the field with the column's metadata, such as a comment."""
    place = held.get_field_index(field.name)
    said = held.field(place).metadata if place >= 0 else None
    return field.with_metadata(said) if said else field
