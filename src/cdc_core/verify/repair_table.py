"""Repair table: make the rows that differ the source's, as of the snapshot, and no other.

A mended table is at the snapshot as if it had been read whole: its state says so, and the stream
goes on from there. Until it is, the checkpoint marks it as needing a snapshot, so that a repair
that was cut short is finished by the next run of `cdc`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdc_core.fold.unrepresentable import unrepresentable_rows
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.merges import (
    DELETE,
    EMPTY_BATCH,
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
    UPSERT,
    KeyedMerge,
    LoadBatch,
    MultisetMerge,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.snapshot_source import RowChunk
    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.row_hash import Hashes
    from cdc_core.verify.compare_table import TableSides
    from cdc_core.verify.parity import Differences

    Indexes = npt.NDArray[np.int64]

#: Rows mended by one load, and bytes of them.
LOAD_ROWS = 200_000
LOAD_BYTES = 128 << 20


@dataclass
class RepairTable:
    """Mends one table; `checkpoint` is what the destination holds now."""

    sides: TableSides
    checkpoint: Checkpoint
    _rows: list[pa.Table] = field(default_factory=list)
    _cells: list[pa.Table] = field(default_factory=list)

    def begin(self) -> None:
        waiting = self.sides.state.needs_snapshot("a repair was cut short")
        self.checkpoint = self.checkpoint.with_table(waiting)
        self.sides.destination.load(EMPTY_BATCH, self.checkpoint)

    def mend(self, found: Differences) -> None:
        """Take out what is too much, then put in what is missing or different."""
        if self.sides.pairing.key:
            # A merge cannot make one row of several: those go, and one comes back.
            self._take_out(np.concatenate([found.extra, found.duplicated]), None)
            self._put_in(np.concatenate([found.missing, found.different]), None)
        else:
            self._take_out(found.extra, found.extra_copies)
            self._put_in(found.missing, found.missing_copies)

    def finish(self, table: SourceTable) -> Checkpoint:
        """The table is at the snapshot."""
        streamed = table.published and not table.not_streamed
        mended = replace(
            self.sides.state,
            snapshot_lsn=self.sides.snapshot.lsn,
            status=TableStatus.STREAMING if streamed else TableStatus.NOT_STREAMED,
            reason=table.not_streamed,
            fingerprint=table.fingerprint,
        )
        self.checkpoint = self.checkpoint.with_table(mended)
        self.sides.destination.load(EMPTY_BATCH, self.checkpoint)
        return self.checkpoint

    def _take_out(self, keys: Hashes, copies: Indexes | None) -> None:
        wanted = _Wanted(keys, copies)
        names = self.sides.pairing.key_target or self.sides.pairing.target
        while wanted.left:
            before = wanted.left
            for rows, hashes in self.sides.target_chunks():
                picked = wanted.take(hashes.keys)
                if len(picked):
                    self._rows.append(rows.select(list(names)).take(pa.array(picked)))
                # The scan ends before the table that it reads is written.
                if self._full():
                    break
            self._load(DELETE)
            if wanted.left == before:
                return

    def _put_in(self, keys: Hashes, copies: Indexes | None) -> None:
        wanted = _Wanted(keys, copies)
        for chunk, hashes in self.sides.source_chunks():
            picked = wanted.take(hashes.keys)
            if len(picked):
                names = self.sides.pairing
                rows = chunk.rows.select(list(names.source)).take(pa.array(picked))
                self._rows.append(rows.rename_columns(list(names.target)))
                self._keep_cells(chunk, picked)
            if self._full():
                self._load(UPSERT)
        self._load(UPSERT)

    def _keep_cells(self, chunk: RowChunk, picked: Indexes) -> None:
        rows = set(picked.tolist())
        values = [value for value in chunk.unrepresentable if value.row in rows]
        if values:
            pairing, snapshot = self.sides.pairing, self.sides.snapshot
            names = dict(zip(pairing.source, pairing.target, strict=True))
            relation, target = self.sides.relation, self.sides.state.target
            self._cells.append(
                unrepresentable_rows(
                    target, names, relation.key, chunk.rows, values,
                    int(snapshot.lsn), snapshot.taken_at,
                )
            )  # fmt: skip

    def _full(self) -> bool:
        rows = sum(len(part) for part in self._rows)
        return rows >= LOAD_ROWS or sum(part.nbytes for part in self._rows) >= LOAD_BYTES

    def _load(self, operation: str) -> None:
        if not self._rows:
            return
        rows = pa.concat_tables(self._rows)
        batch = LoadBatch(
            merges=(self._merge(rows, operation),),
            unrepresentable=tuple(self._cells),
        )
        self._rows, self._cells = [], []
        self.sides.destination.load(batch, self.checkpoint)

    def _merge(self, rows: pa.Table, operation: str) -> KeyedMerge | MultisetMerge:
        state, snapshot = self.sides.state, self.sides.snapshot
        target, key, count = state.target_table, state.target_key, len(rows)
        columns = {name: rows.column(name) for name in rows.column_names}
        values = [
            columns[f.name].cast(f.type) if f.name in columns else pa.nulls(count, f.type)
            for f in target.schema
        ]
        values += [
            pa.repeat(pa.scalar(int(snapshot.lsn), pa.int64()), count),
            pa.repeat(pa.scalar(snapshot.taken_at, METADATA_FIELDS[1].type), count),
            pa.repeat(pa.scalar(operation), count),
        ]
        if not key:
            schema = pa.schema([*target.schema, *METADATA_FIELDS, *MULTISET_CONTROL_FIELDS])
            staged = pa.table([*values, pa.array(np.arange(count))], schema=schema)
            gone = state.dropped_columns
            content = tuple(name for name in target.schema.names if name not in gone)
            return MultisetMerge(target, staged, content)
        schema = pa.schema([*target.schema, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])
        values += [pa.nulls(count, pa.string()), pa.nulls(count, pa.int64())]
        return KeyedMerge(target, key, pa.table(values, schema=schema))


class _Wanted:
    """Rows still to be picked, one for each hash; `copies` says how often each is loaded.

    All copies of a content are of one load: a later one with the same LSN would count as applied.
    """

    def __init__(self, hashes: Hashes, copies: Indexes | None) -> None:
        order = np.argsort(hashes)
        self._hashes = hashes[order]
        self._copies = np.ones(len(hashes), np.int64) if copies is None else copies[order]

    @property
    def left(self) -> int:
        return len(self._hashes)

    def take(self, hashes: Hashes) -> Indexes:
        """Rows of a chunk that are wanted, as often as they are; they are not wanted again."""
        rows = np.flatnonzero(np.isin(hashes, self._hashes))
        found, first = np.unique(hashes[rows], return_index=True)
        place = np.searchsorted(self._hashes, found)
        picked: Indexes = np.repeat(rows[first], self._copies[place])
        kept = np.ones(len(self._hashes), np.bool_)
        kept[place] = False
        self._hashes, self._copies = self._hashes[kept], self._copies[kept]
        return picked
