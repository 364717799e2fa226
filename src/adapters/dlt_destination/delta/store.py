"""Delta tables in a folder or bucket: `<bucket_url>/<dataset>/<table>`, one commit for each step.

delta-rs writes. If a merge needs values from its target first, DuckDB runs the same SQL as for the
other stores over the table's files. Sources: delta-rs documentation, "Merging a table"; Delta
protocol, "Primitive Types".
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pyarrow.fs import FSSpecHandler, PyFileSystem

from adapters.dlt_destination.columns import replaced_fields, with_columns
from adapters.dlt_destination.delta import queries
from adapters.dlt_destination.delta.column_order import order_columns
from adapters.dlt_destination.delta.run_log import DeltaRunLog
from adapters.dlt_destination.dlt.errors import root_cause
from adapters.dlt_destination.dlt.filesystem_client import storage_options
from adapters.dlt_destination.dlt.state_keeping import StateInFiles
from adapters.dlt_destination.failures import scrubbed
from adapters.dlt_destination.files import written_files
from adapters.dlt_destination.files.bounded_chunks import SCAN_BYTES, SCAN_ROWS, gathered
from adapters.dlt_destination.files.written_files import RowsInFiles
from adapters.dlt_destination.settings import local_folder
from adapters.dlt_destination.sql import history_sql, merge_sql
from adapters.dlt_destination.sql.dialect import DATAFUSION, DUCKDB, SPARK
from adapters.dlt_destination.store import Refusal, probe_name
from adapters.dlt_destination.table_steps import StagedCells, StagedHistory, StagedMerge, Step
from cdc_core.values.errors import DestinationFailed, DestinationUnavailable, SettingsError
from cdc_core.values.merges import (
    UNREPRESENTABLE_TABLE,
    KeyedMerge,
    MultisetMerge,
    Replacement,
)
from cdc_core.values.naming import FORBIDDEN_IN_TABLES, RESERVED_TABLES, TableNaming

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from adapters.dlt_destination.run import Run
    from adapters.dlt_destination.sql.merge_sql import MergeRules
    from cdc_core.values.errors import CdcError
    from cdc_core.values.history import HistoryStep
    from cdc_core.values.merges import Rename
    from cdc_core.values.runs import RunReceipt, RunTable
    from cdc_core.values.table_rules import ClusterBy

#: Rows of a row group, the least that a reader holds. delta-rs's default is eight times as large.
ROW_GROUP_ROWS = 128 * 1024
LOG_FOLDER = "_delta_log"

#: A table's folder is part of a URL. delta-rs and other readers refuse or misread these and control
#: characters. Source: `object_store`, "Path"; URL standard.
NOT_IN_ADDRESSES = "".join(map(chr, range(1, 32))) + "\x7f" + "[]^|%#?"
#: Other names in a dataset's folder: dlt's marker, a Delta log, files of stored rows.
NO_TABLES = ("init", LOG_FOLDER, written_files.FOLDER)

#: Larger merges are streamed, not read into memory.
STREAMED_ROWS = 2_000_000
STREAMED_BYTES = 256 << 20

#: Properties of new tables: how long unneeded files are kept for readers of earlier versions. Every
#: merge leaves such files behind.
PROPERTIES = {"delta.deletedFileRetentionDuration": "interval 1 hours"}

#: Every `UPKEEP_EVERY` commits of a table, small files are compacted and unneeded ones deleted.
UPKEEP_EVERY = 20

#: delta-rs's errors for a table to which users added constraints or features.
_REFUSING = {"DeltaError", "DeltaProtocolError", "SchemaMismatchError"}
_OF_THE_TABLE = re.compile(
    r"constraint|invariant|validation check|features|NOT NULL", re.IGNORECASE
)


class SchemasOnDemand(MutableMapping[str, pa.Schema]):
    """Columns of tables by name, read on first use: a batch changes few of many tables."""

    def __init__(self, names: Iterable[str], read: Callable[[str], pa.Schema]) -> None:
        self._schemas: dict[str, pa.Schema | None] = dict.fromkeys(names)
        self._read = read

    def __getitem__(self, name: str) -> pa.Schema:
        schema = self._schemas[name]
        if schema is None:
            schema = self._schemas[name] = self._read(name)
        return schema

    def __setitem__(self, name: str, schema: pa.Schema) -> None:
        self._schemas[name] = schema

    def __delitem__(self, name: str) -> None:
        del self._schemas[name]

    def __contains__(self, name: object) -> bool:
        return name in self._schemas

    def __iter__(self) -> Iterator[str]:
        return iter(self._schemas)

    def __len__(self) -> int:
        return len(self._schemas)


class DeltaStore(RowsInFiles):
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
        self._options = {name: dict(table) for name, table in options.items() if table is not None}

    def factory(self, run: Run) -> Any:
        from adapters.dlt_destination.dlt.load_jobs import state_factory

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

    def columns(self, client: Any) -> MutableMapping[str, pa.Schema]:
        return SchemasOnDemand(self._tables(client), lambda table: self._schema(client, table))

    def _tables(self, client: Any) -> list[str]:
        files = client.fs_client
        files.invalidate_cache()
        if not _is_folder(files, client.dataset_path):
            return []
        folders = [
            _last(entry["name"].rstrip("/\\"))
            for entry in files.ls(client.dataset_path, detail=True)
            if entry["type"] == "directory"
        ]
        return sorted(
            name
            for name in folders
            if not name.startswith("_dlt")
            and _is_folder(files, client.pathlib.join(client.dataset_path, name, LOG_FOLDER))
        )

    def current(self, client: Any, table: str) -> pa.Schema | None:
        log = client.pathlib.join(client.dataset_path, table, LOG_FOLDER)
        client.fs_client.invalidate_cache()
        return self._schema(client, table) if _is_folder(client.fs_client, log) else None

    def make_fit(self, client: Any, replacement: Replacement) -> None:
        """Does nothing: the commit that replaces the rows changes the schema too."""

    def create(
        self,
        client: Any,
        table: str,
        fields: Sequence[pa.Field],
        cluster_by: ClusterBy,  # noqa: ARG002 - delta-rs has no layout
    ) -> None:
        from deltalake import DeltaTable

        if not client.is_storage_initialized():
            client.initialize_storage()
        DeltaTable.create(
            _location(client, table),
            schema=_nullable(fields),
            mode="ignore",
            configuration=PROPERTIES,
            storage_options=storage_options(client),
        )

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Add columns before the metadata columns."""
        from deltalake import Schema

        names = with_columns(self.columns_of(client, table).names, fields)
        added = Schema.from_arrow(_nullable(fields)).fields
        self._open(client, table).alter.add_columns(added)
        self._order(client, table, names)

    def _order(self, client: Any, table: str, names: Sequence[str]) -> None:
        log_folder = client.pathlib.join(client.dataset_path, table, LOG_FOLDER)
        order_columns(self._open(client, table), client.fs_client, log_folder, names)

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        wider = {field.name: field.type for field in fields}
        self._rewrite(client, table, lambda f: f.with_type(wider[f.name]) if f.name in wider else f)

    def rename_column(self, client: Any, table: str, old: str, new: str) -> None:
        self._rewrite(client, table, lambda f: f.with_name(new) if f.name == old else f)

    def _rewrite(self, client: Any, table: str, change: Callable[[pa.Field], pa.Field]) -> None:
        """Rewrite the table with another schema, in one commit."""
        from deltalake import write_deltalake

        delta = self._open(client, table)
        dataset = delta.to_pyarrow_dataset()
        schema = pa.schema([change(field) for field in dataset.schema])
        batches = (
            rows.rename_columns(schema.names).cast(schema)
            for rows in _batches(dataset, dataset.schema.names)
        )
        write_deltalake(
            delta,
            _reader(batches, schema),
            mode="overwrite",
            schema_mode="overwrite",
            writer_properties=_row_groups(),
        )

    def rename_table(self, client: Any, old: str, new: str) -> None:
        source, target = (client.pathlib.join(client.dataset_path, name) for name in (old, new))
        if _is_folder(client.fs_client, target):
            # Not a table, so it was left by a killed rename or removal. To move a folder onto an
            # existing folder would move it into that folder.
            client.fs_client.rm(target, recursive=True)
        client.fs_client.mv(source, target, recursive=True)

    def rename_cells(self, client: Any, rename: Rename) -> None:
        values, where = merge_sql.renamed_cells(DATAFUSION, rename)
        self._open(client, UNREPRESENTABLE_TABLE).update(
            values, predicate=where, writer_properties=_row_groups()
        )

    def forget_cells(self, client: Any, table: str) -> None:
        where = merge_sql.cells_of(DATAFUSION, table)
        self._open(client, UNREPRESENTABLE_TABLE).delete(where, writer_properties=_row_groups())

    def durable_files(self, client: Any) -> dict[str, list[str]]:
        return written_files.by_name((_last(place), place) for place in self._places(client))

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
            if not stays(written_files.name_of(_last(place))):
                files.rm_file(place)
        folder = self._written_folder(client)
        if _is_folder(files, folder) and not self._places(client):
            files.rm(folder, recursive=True)

    def _places(self, client: Any) -> list[str]:
        """Return where the files of rows are that outlive the run."""
        files, folder = client.fs_client, self._written_folder(client)
        files.invalidate_cache()
        return list(files.ls(folder, detail=False)) if _is_folder(files, folder) else []

    def _written_folder(self, client: Any) -> str:
        return str(client.pathlib.join(client.dataset_path, written_files.FOLDER))

    def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
        for step in steps:
            self.statements += 1
            match step:
                case Replacement():
                    self._difference(client, step, (), self._stored_rows(client, step))
                    self._replace(client, table, step)
                case StagedHistory(part, paths):
                    self._write_history(client, part, paths)
                case StagedMerge(KeyedMerge() as merge):
                    self._difference(client, merge, step.paths, {})
                    self._merge_keyed(client, table, merge, step)
                case StagedMerge(MultisetMerge() as merge):
                    self._merge_multiset(client, table, merge, step)
                case StagedCells():
                    sql = merge_sql.cells_source(DUCKDB, queries.STAGED)
                    rules = merge_sql.cells_rules(DATAFUSION)
                    self._merge_result(client, table, sql, rules, step.paths)

    def _write_history(self, client: Any, step: HistoryStep, paths: Sequence[Path]) -> None:
        table, held = step.table.name, self.columns_of(client, step.table.name).names
        rules, query = (
            history_sql.step_merge(dialect, step, queries.STAGED, queries.relation, held)
            for dialect in (DATAFUSION, DUCKDB)
        )
        names = [step.name, *([table] if held else [])]
        self._merge_result(client, step.name, query.source, rules.rules, paths, names)

    def _difference(
        self,
        client: Any,
        step: Replacement | KeyedMerge,
        paths: Sequence[Path],
        relations: Mapping[str, Any],
    ) -> None:
        """Bring the history of a table to rows that were read: staged, or in these relations."""
        rows = queries.STAGED if paths else _union(relations)
        merges, found = (
            history_sql.difference_merges(dialect, step, rows, queries.relation)
            for dialect in (DATAFUSION, DUCKDB)
        )
        for merge, query in zip(merges, found, strict=True):
            self._merge_result(
                client, merge.name, query.source, merge.rules, paths, [merge.name], relations
            )

    def _merge_result(
        self,
        client: Any,
        table: str,
        sql: str,
        rules: MergeRules,
        paths: Sequence[Path],
        tables: Sequence[str] = (),
        relations: Mapping[str, Any] | None = None,
    ) -> None:
        """Merge the result of a query over these Delta tables."""
        datasets = {
            queries.of(name): self._open(client, name).to_pyarrow_dataset() for name in tables
        }
        folder = client.current_run.folder
        file = queries.result_file(sql, folder, paths, {**datasets, **(relations or {})})
        try:
            rows = pq.ParquetFile(file)
            small = rows.metadata.num_rows <= STREAMED_ROWS and _bytes_of([file]) <= STREAMED_BYTES
            schema = rows.schema_arrow
            source = pq.read_table(file) if small else _reader(_groups(file), schema)
            self._merge(client, table, source, rules)
        finally:
            file.unlink()

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
        rows = _union(relations)
        source = merge_sql.kept_from(DUCKDB, step, old, queries.relation(table), rows)
        sql = f"SELECT {', '.join(columns)} {source}"
        relations[queries.of(table)] = self._open(client, table).to_pyarrow_dataset()
        return queries.result_file(sql, client.current_run.folder, (), relations)

    def _replace(self, client: Any, table: str, step: Replacement) -> None:
        from deltalake import write_deltalake

        old = self.columns_of(client, table)
        new = pa.schema([_described(field, old) for field in _nullable(replaced_fields(step))])
        kept = [field for field in old if step.keeps(field.name)]
        schema = pa.schema([*new, *kept])
        marked = self._kept_rows(client, step, old)

        def batches() -> Iterator[pa.Table]:
            for opened in self._opened_files(client, step.written):
                with opened:
                    for rows in _groups(opened):
                        yield _with_columns(rows, schema)
            if marked is not None:
                for rows in _groups(marked):
                    yield _with_columns(rows, schema)

        write_deltalake(
            _location(client, table),
            _reader(batches(), schema),
            mode="overwrite",
            schema_mode="overwrite",
            configuration=PROPERTIES,
            writer_properties=_row_groups(),
            storage_options=storage_options(client),
        )
        # To delta-rs, a schema with another column order is the same schema.
        self._order(client, table, schema.names)

    def _opened_files(self, client: Any, names: Sequence[str]) -> Iterator[Any]:
        """Open the files of stored rows, one after another."""
        local, durable = self.files_of(client, names)
        yield from (path.open("rb") for path in local)
        yield from map(client.fs_client.open, durable)

    def columns_of(self, client: Any, table: str) -> pa.Schema:
        found = self.current(client, table)
        return pa.schema([]) if found is None else found

    def _schema(self, client: Any, table: str) -> pa.Schema:
        return pa.schema(self._open(client, table).schema().to_arrow())

    def _merge_keyed(self, client: Any, table: str, merge: KeyedMerge, step: StagedMerge) -> None:
        rules = merge_sql.keyed_rules(DATAFUSION, merge)
        if merge.has_hops:
            target = queries.relation(table)
            sql = merge_sql.keyed_source(DUCKDB, merge, queries.STAGED, target)
            self._merge_result(client, table, sql, rules, step.paths, [table])
            return
        if step.rows > STREAMED_ROWS or _bytes_of(step.paths) > STREAMED_BYTES:
            source = _reader(_staged(step), merge.rows.schema)
        else:
            source = pa.concat_tables([pq.read_table(path) for path in step.paths])
        self._merge(client, table, source, rules)

    def _merge_multiset(
        self, client: Any, table: str, merge: MultisetMerge, step: StagedMerge
    ) -> None:
        sql = merge_sql.multiset_source(DUCKDB, merge, queries.STAGED, queries.relation(table))
        rules = merge_sql.multiset_rules(DATAFUSION, merge)
        self._merge_result(client, table, sql, rules, step.paths, [table])

    def _merge(
        self, client: Any, table: str, source: pa.Table | pa.RecordBatchReader, rules: MergeRules
    ) -> None:
        """Merge in one commit; without changes there is no commit.

        delta-rs skips files by the key range of a source in memory. Large sources are streamed; so
        are those with decimals, because delta-rs keeps their range as inexact doubles.
        """
        in_memory = isinstance(source, pa.Table) and not any(map(_inexact, source.schema.types))
        delta = self._open(client, table)
        before = delta.version()
        merger = delta.merge(
            source,
            rules.on,
            source_alias="s",
            target_alias="t",
            streamed_exec=not in_memory,
            writer_properties=_row_groups(),
        )
        if rules.delete_if:
            merger = merger.when_matched_delete(rules.delete_if)
        if rules.update_if:
            merger = merger.when_matched_update(_quoted(rules.update), rules.update_if)
        if rules.mark_if:
            merger = merger.when_matched_update(_quoted(rules.mark), rules.mark_if)
        merger = merger.when_not_matched_insert(_quoted(rules.insert), rules.insert_if)
        if rules.unmatched_if and rules.unmatched:
            changes = _quoted(rules.unmatched)
            merger = merger.when_not_matched_by_source_update(changes, rules.unmatched_if)
        elif rules.unmatched_if:
            merger = merger.when_not_matched_by_source_delete(rules.unmatched_if)
        merger.execute()
        if delta.version() // UPKEEP_EVERY > before // UPKEEP_EVERY:
            _keep_up(delta)

    def count(self, client: Any, tables: Sequence[str]) -> dict[str, int]:
        return {table: self._open(client, table).count() for table in tables}

    def greatest(self, client: Any, table: str, column: str) -> int | None:
        dataset = self._open(client, table).to_pyarrow_dataset()
        last = (pc.max(chunk.column(0)).as_py() for chunk in _batches(dataset, [column]))
        return max((found for found in last if found is not None), default=None)

    def scan(self, client: Any, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        dataset = self._open(client, table).to_pyarrow_dataset()
        yield from gathered(_batches(dataset, columns), SCAN_ROWS, SCAN_BYTES)

    def write_receipt(
        self,
        client: Any,
        receipt: RunReceipt,
        tables: Sequence[RunTable],
        forget_before: datetime | None,
    ) -> None:
        self._run_log(client).write_receipt(receipt, tables, forget_before)

    def receipts(self, client: Any, limit: int) -> Sequence[RunReceipt]:
        return self._run_log(client).receipts(limit)

    def _run_log(self, client: Any) -> DeltaRunLog:
        place = partial(_location, client)
        return DeltaRunLog(place, storage_options(client), PROPERTIES, _keep_up)

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
                    _location(client, table), rows, mode="append", storage_options=options
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

    def volumes(self, client: Any) -> Mapping[str, Sequence[str]] | None:  # noqa: ARG002 - there are none
        return None

    def close(self) -> None:
        """Does nothing: the store holds nothing open."""

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

    def _open(self, client: Any, table: str) -> Any:
        from deltalake import DeltaTable

        return DeltaTable(_location(client, table), storage_options=storage_options(client))


def _keep_up(delta: Any) -> None:
    """Compact small files and delete old ones, so that merges stay fast and the folder small."""
    from deltalake.exceptions import DeltaError

    # Another tool can do the same at this moment; the table is correct either way.
    with contextlib.suppress(DeltaError):
        delta.optimize.compact()
        delta.vacuum(dry_run=False, enforce_retention_duration=False)


def _is_folder(files: Any, path: str) -> bool:
    """Like `isdir`, but raises if the store does not answer."""
    try:
        return bool(files.info(path)["type"] == "directory")
    except FileNotFoundError:
        return False


def _last(place: str) -> str:
    """Return the last part of a path, which may be a URL's."""
    return os.path.basename(place)  # noqa: PTH119


def _missing_folders(client: Any) -> list[Path]:
    """Return the missing local folders of the bucket's path, innermost first."""
    if not client.is_local_filesystem:
        return []
    bucket = Path(client.bucket_path)
    return [folder for folder in (bucket, *bucket.parents) if not folder.exists()]


def _location(client: Any, table: str) -> str:
    folder: str = client.pathlib.join(client.dataset_path, table)
    if client.is_local_filesystem:
        return folder
    url: str = client.make_remote_url(folder)
    return url


def _inexact(data_type: pa.DataType) -> bool:
    """Whether a double cannot represent every value of the type."""
    return bool(pa.types.is_decimal(data_type)) and data_type.precision > sys.float_info.dig


def _union(relations: Mapping[str, Any]) -> str:
    found = " UNION ALL ".join(f"SELECT * FROM {DUCKDB.quote(name)}" for name in relations)
    return f"({found})"


def _with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows with these columns; those that they lack are NULL."""
    columns = [
        rows.column(field.name).cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _bytes_of(paths: Iterable[Path]) -> int:
    """Return the uncompressed bytes of the rows in Parquet files."""
    files = map(pq.read_metadata, paths)
    return sum(f.row_group(n).total_byte_size for f in files for n in range(f.num_row_groups))


def _staged(step: StagedMerge) -> Iterator[pa.Table]:
    for path in step.paths:
        for group in _groups(path):
            yield group.cast(step.merge.rows.schema)


def _groups(source: Any) -> Iterator[pa.Table]:
    """Yield a Parquet file's row groups. Their size is bounded."""
    with pq.ParquetFile(source) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def _batches(dataset: Any, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield chunks of bounded size. By default, Arrow would read four files ahead."""
    batches = dataset.to_batches(
        columns=list(columns), batch_size=SCAN_ROWS, batch_readahead=2, fragment_readahead=1
    )
    return (pa.Table.from_batches([batch]) for batch in batches)


def _row_groups() -> Any:
    from deltalake import WriterProperties

    return WriterProperties(max_row_group_size=ROW_GROUP_ROWS)


def _nullable(fields: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in fields])


def _described(field: pa.Field, held: pa.Schema) -> pa.Field:
    """Return the field with the column's metadata, such as a comment."""
    place = held.get_field_index(field.name)
    said = held.field(place).metadata if place >= 0 else None
    return field.with_metadata(said) if said else field


def _quoted(assignments: Mapping[str, str]) -> dict[str, str]:
    return {DATAFUSION.quote(name): value for name, value in assignments.items()}


def _reader(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.RecordBatchReader:
    batches = (batch for table in tables for batch in table.to_batches())
    return pa.RecordBatchReader.from_batches(schema, batches)
