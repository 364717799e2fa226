"""The destination's port over tables of plain Python."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from adapters.fakes.faults import FaultPlan
from adapters.fakes.history import (
    append_to_log,
    log_difference,
    merge_versions,
    truncate_log,
    version_difference,
)
from adapters.fakes.merges import all_rows, marked_as_deleted, merge_keyed, merge_multiset
from adapters.fakes.rows import Row, key_of
from cdc_core.fold.row_layout import loaded_schema
from cdc_core.values.checkpoint import Checkpoint
from cdc_core.values.errors import DestinationFailed
from cdc_core.values.history import (
    LOG_FIELDS,
    SORT_COLUMN,
    VERSION_FIELDS,
    LogAppend,
    LogTruncate,
)
from cdc_core.values.merges import (
    DELETED_AT_COLUMN,
    DELETED_AT_FIELD,
    METADATA_FIELDS,
    UNREPRESENTABLE_SCHEMA,
    UNREPRESENTABLE_TABLE,
    UPSERT,
    ColumnRename,
    ForgetUnrepresentable,
    KeyedMerge,
    LoadBatch,
    TableRename,
    TargetTable,
)
from cdc_core.values.naming import ANY_DESTINATION, TableNaming
from cdc_core.values.row_files import read_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from cdc_core.values.history import HistoryDifference, HistoryStep
    from cdc_core.values.merges import SchemaStep
    from cdc_core.values.row_files import RowFiles
    from cdc_core.values.runs import RunReceipt, RunTable


@dataclass
class LakeTable:
    columns: dict[str, pa.DataType]
    rows: list[Row] = field(default_factory=list)


@dataclass
class Lake:
    """What outlives a run: tables by name, the checkpoint as state, and stored rows by name."""

    tables: dict[str, LakeTable] = field(default_factory=dict)
    checkpoint: dict[str, Any] | None = None
    written: dict[str, list[Row]] = field(default_factory=dict)
    receipts: list[RunReceipt] = field(default_factory=list)
    run_tables: list[RunTable] = field(default_factory=list)

    def rows(self, table: str, *columns: str) -> list[Row]:
        """A table's rows; all columns but the metadata ones unless some are named."""
        metadata = {f.name for f in METADATA_FIELDS}
        return [
            {k: v for k, v in row.items() if (k in columns if columns else k not in metadata)}
            for row in self.tables[table].rows
        ]


@dataclass
class InMemoryRows:
    """`StagedRows`; gone after the load behind their staging."""

    rows: pa.Table | None

    def __len__(self) -> int:
        return len(self.read())

    def read(self) -> pa.Table:
        if self.rows is None:
            raise RuntimeError("staged rows were used after the load")
        return self.rows


@dataclass
class InMemoryDestination:
    """One run's view of a `Lake`. A fault between two tables leaves one applied and the other
    not."""

    lake: Lake = field(default_factory=Lake)
    faults: FaultPlan = field(default_factory=FaultPlan)
    naming: TableNaming = ANY_DESTINATION
    _staged: list[InMemoryRows] = field(default_factory=list)
    _folders: list[tempfile.TemporaryDirectory[str]] = field(default_factory=list)
    #: Loads so far.
    statements: int = 0

    def column_type(self, column: pa.Field, *, variant: bool = False) -> str:
        return "variant" if variant else str(column.type)

    def __enter__(self) -> Self:
        self.faults.pass_by("destination.open")
        self._forget_all_but(self._checkpoint())
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def read_checkpoint(self) -> Checkpoint | None:
        self.faults.pass_by("destination.read_checkpoint")
        return self._checkpoint()

    def stage(self, rows: pa.Table) -> InMemoryRows:
        self.faults.pass_by("destination.stage")
        self._staged.append(InMemoryRows(rows))
        return self._staged[-1]

    def write(self, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:  # noqa: ARG002 - any rows
        self.faults.pass_by("destination.write")
        stored = self._store(name, rows)
        self.faults.pass_by("destination.write.done")
        return stored

    def shared_folder(self, name: str) -> str:
        self.faults.pass_by("destination.shared_folder")
        self._folders.append(tempfile.TemporaryDirectory(prefix=f"{name}-"))
        return self._folders[-1].name

    def store_files(self, name: str, target: TargetTable, files: RowFiles) -> None:
        self.faults.pass_by("destination.store_files")
        self._store(name, read_files(files, loaded_schema(target)))
        self.faults.pass_by("destination.store_files.done")

    def stage_files(self, files: RowFiles) -> Sequence[InMemoryRows]:
        self.faults.pass_by("destination.stage_files")
        return [self.stage(rows) for rows in read_files(files, UNREPRESENTABLE_SCHEMA)]

    def _store(self, name: str, rows: Iterable[pa.Table]) -> int:
        self.lake.written[name] = [row for part in rows for row in part.to_pylist()]
        return len(self.lake.written[name])

    def written(self) -> frozenset[str]:
        self.faults.pass_by("destination.written")
        return frozenset(self.lake.written)

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        self.faults.pass_by("destination.load")
        self.statements += 1
        before, self._staged = self._staged, []
        for step in batch.steps:
            self.faults.pass_by("destination.step")
            self._step(step)
        for history in batch.history:
            self.faults.pass_by("destination.history")
            self._keep_history(history)
        for replacement in batch.replacements:
            rows = [row for name in replacement.written for row in self.lake.written[name]]
            if replacement.history is not None:
                self._compare(replacement.target, replacement.key, rows, replacement.history)
            self.faults.pass_by("destination.replace")
            soft_deletes = replacement.soft_deletes is not None
            table = self._table(replacement.target, soft_deletes=soft_deletes)
            if replacement.keeps_rows:
                rows += marked_as_deleted(table.rows, rows, replacement)
            table.columns = {
                name: kind
                for name, kind in table.columns.items()
                if replacement.has(name) or replacement.keeps(name)
            }
            table.rows = [{name: row.get(name) for name in table.columns} for row in rows]
        for merge in batch.merges:
            soft_deletes = isinstance(merge, KeyedMerge) and merge.soft_deletes
            if isinstance(merge, KeyedMerge) and merge.history is not None:
                self._compare(merge.target, merge.key, all_rows(merge), merge.history, scoped=True)
            self.faults.pass_by("destination.merge")
            table = self._table(merge.target, soft_deletes=soft_deletes)
            if isinstance(merge, KeyedMerge):
                table.rows = merge_keyed(table.rows, merge)
            else:
                table.rows = merge_multiset(table.rows, merge)
            table.rows = [{name: row.get(name) for name in table.columns} for row in table.rows]
        if batch.unrepresentable:
            self.faults.pass_by("destination.unrepresentable")
            columns = {f.name: f.type for f in UNREPRESENTABLE_SCHEMA}
            kept = self.lake.tables.setdefault(UNREPRESENTABLE_TABLE, LakeTable(columns))
            for values in batch.unrepresentable:
                rows = values if isinstance(values, pa.Table) else values.read()
                kept.rows += [r for r in rows.to_pylist() if r not in kept.rows]
        self.faults.pass_by("destination.checkpoint")
        self.lake.checkpoint = checkpoint.to_state()
        self._forget_all_but(checkpoint)
        for staged in before:
            staged.rows = None
        self.faults.pass_by("destination.load.done")

    def columns(
        self,
        tables: Collection[str],
        *,
        current: bool = False,  # noqa: ARG002 - always
    ) -> Mapping[str, Sequence[str]]:
        self.faults.pass_by("destination.columns")
        held = self.lake.tables
        return {table: list(held[table].columns) for table in tables if table in held}

    def last_numbers(self, logs: Collection[str]) -> Mapping[str, int]:
        self.faults.pass_by("destination.last_numbers")
        held = {log: self.lake.tables[log].rows for log in logs if log in self.lake.tables}
        return {log: max(row[SORT_COLUMN] for row in rows) for log, rows in held.items() if rows}

    def marked_rows(self, tables: Collection[str]) -> Mapping[str, int]:
        self.faults.pass_by("destination.marked_rows")
        held = {name: self.lake.tables[name].rows for name in tables if name in self.lake.tables}
        return {
            name: sum(row.get(DELETED_AT_COLUMN) is not None for row in rows)
            for name, rows in held.items()
        }

    def tables(self) -> Mapping[str, int]:
        self.faults.pass_by("destination.tables")
        return {name: len(table.rows) for name, table in self.lake.tables.items()}

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        self.faults.pass_by("destination.scan")
        stored = self.lake.tables.get(table)
        if stored is not None:
            if missing := [name for name in columns if name not in stored.columns]:
                raise DestinationFailed(f"table {table!r} has no column {missing[0]!r}")
            schema = pa.schema([(name, stored.columns[name]) for name in columns])
            if columns:
                rows = [{name: row[name] for name in columns} for row in stored.rows]
                yield pa.Table.from_pylist(rows, schema=schema)
            else:
                yield pa.table({"row": range(len(stored.rows))}).select([])

    def drop(self) -> Sequence[str]:
        self.faults.pass_by("destination.drop")
        self.lake.tables.clear()
        self.lake.written.clear()
        self.lake.receipts.clear()
        self.lake.run_tables.clear()
        self.lake.checkpoint = None
        self.faults.pass_by("destination.drop.done")
        return ["dataset"]

    def write_receipt(
        self,
        receipt: RunReceipt,
        tables: Sequence[RunTable],
        *,
        forget_before: datetime | None = None,
    ) -> None:
        self.faults.pass_by("destination.write_receipt")
        lake = self.lake
        if lake.checkpoint is None and not lake.tables:
            return
        known = {(each.run_id, each.seq) for each in lake.receipts}
        if (receipt.run_id, receipt.seq) not in known:
            lake.receipts.append(receipt)
            lake.run_tables += tables
        if forget_before is not None:
            lake.receipts = [each for each in lake.receipts if each.ended_at >= forget_before]
            known = {(each.run_id, each.seq) for each in lake.receipts}
            lake.run_tables = [each for each in lake.run_tables if (each.run_id, each.seq) in known]

    def receipts(self, limit: int) -> Sequence[RunReceipt]:
        self.faults.pass_by("destination.receipts")
        newest = sorted(self.lake.receipts, key=lambda each: (each.ended_at, each.seq))
        return newest[::-1][:limit]

    def try_writing(self) -> None:
        self.faults.pass_by("destination.try_writing")

    def volumes(self) -> Mapping[str, Sequence[str]] | None:
        self.faults.pass_by("destination.volumes")
        return None

    def _checkpoint(self) -> Checkpoint | None:
        state = self.lake.checkpoint
        return Checkpoint.from_state(state) if state else None

    def _forget_all_but(self, checkpoint: Checkpoint | None) -> None:
        """Remove stored rows that the checkpoint does not name."""
        reading = checkpoint.reading if checkpoint else None
        named = {stored.name for stored in reading.ranges} if reading else set()
        for name in self.lake.written.keys() - named:
            del self.lake.written[name]

    def _keep_history(self, step: HistoryStep) -> None:
        if isinstance(step, LogAppend):
            current = self.lake.tables.get(step.table.name)
            table_rows = current.rows if current else []
            with self._history(step.name, step.table, LOG_FIELDS) as rows:
                append_to_log(rows, table_rows, step)
        elif isinstance(step, LogTruncate):
            with self._history(step.name, step.table, LOG_FIELDS) as rows:
                truncate_log(rows, step)
        else:
            with self._history(step.name, step.table, VERSION_FIELDS) as rows:
                merge_versions(rows, step)

    def _compare(
        self,
        target: TargetTable,
        key: Sequence[str],
        rows: Sequence[Row],
        difference: HistoryDifference,
        *,
        scoped: bool = False,
    ) -> None:
        columns = target.schema.names
        scope = {key_of(row, key) for row in rows} if scoped else None
        new = [row for row in rows if row.get("_cdc_op", UPSERT) == UPSERT]
        if difference.log is not None:
            self.faults.pass_by("destination.history")
            with self._history(difference.log, target, LOG_FIELDS) as log:
                log_difference(log, new, columns, key, difference, scope)
        if difference.versions is not None:
            self.faults.pass_by("destination.history")
            with self._history(difference.versions, target, VERSION_FIELDS) as versions:
                version_difference(versions, new, columns, key, difference, scope)

    @contextmanager
    def _history(
        self, name: str, table: TargetTable, own: Sequence[pa.Field]
    ) -> Iterator[list[Row]]:
        """Yield the rows of a history table, which has every column of `table`, to be changed."""
        columns = {f.name: f.type for f in table.schema}
        columns |= {f.name: f.type for f in own}
        held = self._created(name, columns)
        yield held.rows
        held.rows = [{column: row.get(column) for column in held.columns} for row in held.rows]

    def _table(self, target: TargetTable, *, soft_deletes: bool = False) -> LakeTable:
        fields = [*METADATA_FIELDS, DELETED_AT_FIELD] if soft_deletes else METADATA_FIELDS
        return self._created(target.name, {f.name: f.type for f in [*target.schema, *fields]})

    def _created(self, name: str, columns: dict[str, pa.DataType]) -> LakeTable:
        table = self.lake.tables.setdefault(name, LakeTable(dict(columns)))
        for column, type_ in columns.items():
            if column not in table.columns:
                for row in table.rows:
                    row[column] = None
            elif table.columns[column] != type_:
                for row in table.rows:
                    row[column] = _cast(row[column], type_)
            table.columns[column] = type_
        return table

    def _step(self, step: SchemaStep) -> None:
        match step:
            case TableRename(old, new):
                if old in self.lake.tables and new not in self.lake.tables:
                    self.lake.tables[new] = self.lake.tables.pop(old)
                    for value in self._unrepresentable(old):
                        value["table_name"] = new
            case ColumnRename(name, old, new):
                table = self.lake.tables.get(name)
                if table is None or old not in table.columns or new in table.columns:
                    return
                table.columns = {new if k == old else k: v for k, v in table.columns.items()}
                table.rows = [{new if k == old else k: v for k, v in r.items()} for r in table.rows]
                for value in self._unrepresentable(name):
                    key = json.loads(value["key"])
                    key = {new if k == old else k: v for k, v in key.items()}
                    value["key"] = json.dumps(key, ensure_ascii=False)
                    if value["column_name"] == old:
                        value["column_name"] = new
            case ForgetUnrepresentable(name):
                stored = self.lake.tables.get(UNREPRESENTABLE_TABLE)
                if stored is not None:
                    stored.rows = [value for value in stored.rows if value["table_name"] != name]

    def _unrepresentable(self, table: str) -> list[Row]:
        stored = self.lake.tables.get(UNREPRESENTABLE_TABLE)
        return [value for value in stored.rows if value["table_name"] == table] if stored else []


def _cast(value: Any, kind: pa.DataType) -> Any:
    """The value in a column of another type; None if that cannot hold it."""
    try:
        return pa.scalar(value).cast(kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
