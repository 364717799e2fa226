"""The destination's port over tables of plain Python: the reference of what a merge means."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from adapters.fakes.faults import FaultPlan
from cdc_core.values.checkpoint import Checkpoint
from cdc_core.values.merges import (
    DELETE,
    HOP,
    LSN_COLUMN,
    METADATA_FIELDS,
    UNCHANGED_COLUMN,
    UNREPRESENTABLE_SCHEMA,
    UNREPRESENTABLE_TABLE,
    UPSERT,
    ColumnRename,
    KeyedMerge,
    LoadBatch,
    MultisetMerge,
    TableRename,
    TargetTable,
)
from cdc_core.values.naming import ANY_DESTINATION, TableNaming

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

Row = dict[str, Any]


@dataclass
class LakeTable:
    columns: dict[str, pa.DataType]
    rows: list[Row] = field(default_factory=list)


@dataclass
class Lake:
    """What outlives a run: tables by name, the checkpoint as state, and rows that are kept."""

    tables: dict[str, LakeTable] = field(default_factory=dict)
    checkpoint: dict[str, Any] | None = None
    kept: dict[str, list[Row]] = field(default_factory=dict)

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
    #: Whether the checkpoint speaks of rows that are kept, or soon will.
    _keeps: bool = False

    def column_type(self, column: pa.Field) -> str:
        return str(column.type)

    def __enter__(self) -> Self:
        self.faults.pass_by("destination.open")
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def read_checkpoint(self) -> Checkpoint | None:
        self.faults.pass_by("destination.read_checkpoint")
        state = self.lake.checkpoint
        checkpoint = Checkpoint.from_state(state) if state else None
        self._keeps = checkpoint is not None and checkpoint.reading is not None
        return checkpoint

    def stage(self, rows: pa.Table) -> InMemoryRows:
        self.faults.pass_by("destination.stage")
        self._staged.append(InMemoryRows(rows))
        return self._staged[-1]

    def keep(self, name: str, target: TargetTable, rows: Iterable[pa.Table]) -> int:  # noqa: ARG002 - any rows
        self.faults.pass_by("destination.keep")
        kept = [row for piece in rows for row in piece.to_pylist()]
        if not self._keeps:
            self.lake.kept.clear()  # of a run that was killed before it said so
        self._keeps = True
        self.lake.kept[name] = kept
        self.faults.pass_by("destination.keep.done")
        return len(kept)

    def kept(self) -> frozenset[str]:
        self.faults.pass_by("destination.kept")
        return frozenset(self.lake.kept)

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:
        self.faults.pass_by("destination.load")
        before, self._staged = self._staged, []
        for step in batch.steps:
            self.faults.pass_by("destination.step")
            self._step(step)
        for replacement in batch.replacements:
            rows = [row for name in replacement.kept for row in self.lake.kept[name]]
            rows += [row for part in replacement.rows for row in part.to_pylist()]
            self.faults.pass_by("destination.replace")
            table = self._table(replacement.target)
            names = {*replacement.target.schema.names, *(f.name for f in METADATA_FIELDS)}
            gone = replacement.gone
            table.columns = {
                name: kind
                for name, kind in table.columns.items()
                if name in names or not (gone is None or name in gone)
            }
            table.rows = [{name: row.get(name) for name in table.columns} for row in rows]
        for merge in batch.merges:
            self.faults.pass_by("destination.merge")
            table = self._table(merge.target)
            if isinstance(merge, KeyedMerge):
                table.rows = merge_keyed(table.rows, merge)
            else:
                table.rows = merge_multiset(table.rows, merge)
            table.rows = [{name: row.get(name) for name in table.columns} for row in table.rows]
        if batch.unrepresentable:
            self.faults.pass_by("destination.unrepresentable")
            columns = {f.name: f.type for f in UNREPRESENTABLE_SCHEMA}
            kept = self.lake.tables.setdefault(UNREPRESENTABLE_TABLE, LakeTable(columns))
            for cells in batch.unrepresentable:
                rows = cells if isinstance(cells, pa.Table) else cells.read()
                kept.rows += [r for r in rows.to_pylist() if r not in kept.rows]
        self.faults.pass_by("destination.checkpoint")
        self.lake.checkpoint = checkpoint.to_state()
        if checkpoint.reading is None:
            self.lake.kept.clear()
            self._keeps = False
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

    def tables(self) -> Mapping[str, int]:
        self.faults.pass_by("destination.tables")
        return {name: len(table.rows) for name, table in self.lake.tables.items()}

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        self.faults.pass_by("destination.scan")
        stored = self.lake.tables.get(table)
        if stored is not None:
            schema = pa.schema([(name, stored.columns[name]) for name in columns])
            if columns:
                rows = [{name: row[name] for name in columns} for row in stored.rows]
                yield pa.Table.from_pylist(rows, schema=schema)
            else:
                yield pa.table({"row": range(len(stored.rows))}).select([])

    def drop(self) -> Sequence[str]:
        self.faults.pass_by("destination.drop")
        self.lake.tables.clear()
        self.lake.kept.clear()
        self.lake.checkpoint = None
        self.faults.pass_by("destination.drop.done")
        return ["dataset"]

    def try_writing(self) -> None:
        self.faults.pass_by("destination.try_writing")

    def volumes(self) -> Mapping[str, Sequence[str]] | None:
        self.faults.pass_by("destination.volumes")
        return None

    def _table(self, target: TargetTable) -> LakeTable:
        columns = {f.name: f.type for f in [*target.schema, *METADATA_FIELDS]}
        table = self.lake.tables.setdefault(target.name, LakeTable(dict(columns)))
        for name, type_ in columns.items():
            if name not in table.columns:
                for row in table.rows:
                    row[name] = None
            table.columns[name] = type_
        return table

    def _step(self, step: ColumnRename | TableRename) -> None:
        match step:
            case TableRename(old, new):
                if old in self.lake.tables and new not in self.lake.tables:
                    self.lake.tables[new] = self.lake.tables.pop(old)
                    for cell in self._cells(old):
                        cell["table_name"] = new
            case ColumnRename(name, old, new):
                table = self.lake.tables.get(name)
                if table is None or old not in table.columns or new in table.columns:
                    return
                table.columns = {new if k == old else k: v for k, v in table.columns.items()}
                table.rows = [{new if k == old else k: v for k, v in r.items()} for r in table.rows]
                for cell in self._cells(name):
                    key = json.loads(cell["key"])
                    key = {new if k == old else k: v for k, v in key.items()}
                    cell["key"] = json.dumps(key, ensure_ascii=False)
                    if cell["column_name"] == old:
                        cell["column_name"] = new

    def _cells(self, table: str) -> list[Row]:
        cells = self.lake.tables.get(UNREPRESENTABLE_TABLE)
        return [cell for cell in cells.rows if cell["table_name"] == table] if cells else []


def _all_rows(merge: KeyedMerge | MultisetMerge) -> list[Row]:
    tables = [merge.rows, *(piece.read() for piece in merge.staged)]
    return [row for table in tables for row in table.to_pylist()]


def merge_keyed(rows: list[Row], merge: KeyedMerge) -> list[Row]:
    """The table after a `KeyedMerge`."""
    names = merge.target.schema.names
    held = {_key(row, merge.key): row for row in rows}
    result = dict(held)
    if merge.truncated_at is not None:
        result = {k: r for k, r in held.items() if _lsn(r) >= merge.truncated_at}
    staged = _all_rows(merge)
    hops: dict[int, list[Row]] = {}
    for row in staged:
        if row["_cdc_op"] == HOP:
            hops.setdefault(row["_cdc_ref"], []).append(row)
    for row in staged:
        key = _key(row, merge.key)
        current = held.get(key)
        if row["_cdc_op"] == HOP or (current and _lsn(current) >= row[LSN_COLUMN]):
            continue
        if row["_cdc_op"] == DELETE:
            result.pop(key, None)
            continue
        fresh = {name: row[name] for name in [*names, *(f.name for f in METADATA_FIELDS)]}
        marked = [names[int(p)] for p in (row[UNCHANGED_COLUMN] or "").split(".") if p]
        source = current
        for hop in sorted(hops.get(row["_cdc_ref"], ()), key=lambda h: -int(h[LSN_COLUMN])):
            earlier = held.get(_key(hop, merge.key))
            if earlier is not None and _lsn(earlier) >= hop[LSN_COLUMN]:
                source = earlier
                break
        fresh.update({name: source[name] if source else None for name in marked})
        result[key] = fresh
    return list(result.values())


def merge_multiset(rows: list[Row], merge: MultisetMerge) -> list[Row]:
    """The table after a `MultisetMerge`."""
    names = merge.target.schema.names
    metadata = [f.name for f in METADATA_FIELDS]
    if merge.truncated_at is not None:
        rows = [row for row in rows if _lsn(row) >= merge.truncated_at]
    events: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(_all_rows(merge), key=lambda r: int(r["_cdc_ref"])):
        events.setdefault(_content(row, merge.content), []).append(row)
    copies: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        copies.setdefault(_content(row, merge.content), []).append(row)
    for content, walk in events.items():
        present = copies.get(content, [])
        applied = max(map(_lsn, present), default=0)
        fresh = [event for event in walk if event[LSN_COLUMN] > applied]
        if not fresh:
            continue
        count = len(present)
        for event in fresh:
            count = max(0, count + (1 if event["_cdc_op"] == UPSERT else -1))
        stamp = {name: fresh[-1][name] for name in metadata}
        # Copies that the target has keep what it alone has: columns dropped at the source.
        added = [event for event in fresh if event["_cdc_op"] == UPSERT]
        pool = [*present, *added][:count]
        copies[content] = [{**{name: row.get(name) for name in names}, **stamp} for row in pool]
    return [row for group in copies.values() for row in group]


def _lsn(row: Row) -> int:
    """A row that somebody else wrote may have none; then it is older than any change."""
    return row[LSN_COLUMN] or 0


def _key(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(
        "NaN" if isinstance(v := row[name], float) and math.isnan(v) else v for name in names
    )


def _content(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    """As a key, but -0.0 is another value than 0.0."""
    return tuple(repr(v) if isinstance(v := row[name], float) else v for name in names)
