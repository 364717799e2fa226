"""Repair table: rewrite only the rows that differ, to match the source as of the snapshot.

Tables with a history are read again instead.

A repaired table is at the snapshot, as if it had been read completely; the stream continues from
there. Until the repair is finished, the checkpoint marks the table as needing a snapshot, so that
the next `cdc` completes an interrupted repair.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdc_core.fold.row_layout import (
    arrange,
    keyed_schema,
    metadata_of,
    multiset_schema,
    values_of,
)
from cdc_core.fold.unrepresentable import unrepresentable_rows
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.merges import (
    DELETE,
    EMPTY_BATCH,
    OP_COLUMN,
    REF_COLUMN,
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

#: Rows repaired by one load, and their bytes.
LOAD_ROWS = 200_000
LOAD_BYTES = 128 << 20


@dataclass
class RepairTable:
    """Repairs one table; `checkpoint` is the one that the destination holds."""

    sides: TableSides
    checkpoint: Checkpoint
    _rows: list[pa.Table] = field(default_factory=list)
    _unrepresentable: list[pa.Table] = field(default_factory=list)

    def begin(self) -> None:
        waiting = self.sides.state.needs_snapshot("a repair was cut short")
        self.checkpoint = self.checkpoint.with_table(waiting)
        self.sides.destination.load(EMPTY_BATCH, self.checkpoint)

    def repair(self, found: Differences) -> None:
        """Delete extra rows, then write missing and different ones."""
        if self.sides.pairing.key:
            # A merge cannot turn several rows into one: delete them all and write one.
            self._delete(np.concatenate([found.extra, found.duplicated]), None)
            self._write(np.concatenate([found.missing, found.different]), None)
        else:
            self._delete(found.extra, found.extra_copies)
            self._write(found.missing, found.missing_copies)

    def finish(self, table: SourceTable) -> Checkpoint:
        """Mark the table as being at the snapshot; return the checkpoint."""
        streamed = table.published and not table.not_streamed
        repaired = replace(
            self.sides.state,
            snapshot_lsn=self.sides.snapshot.lsn,
            status=TableStatus.STREAMING if streamed else TableStatus.NOT_STREAMED,
            reason=table.not_streamed,
            fingerprint=table.fingerprint,
        )
        self.checkpoint = self.checkpoint.with_table(repaired)
        self.sides.destination.load(EMPTY_BATCH, self.checkpoint)
        return self.checkpoint

    def _delete(self, keys: Hashes, copies: Indexes | None) -> None:
        wanted = _Wanted(keys, copies)
        names = self.sides.pairing.key_target or self.sides.pairing.target
        while wanted.left:
            before = wanted.left
            for chunk in self.sides.target_chunks():
                picked = wanted.take(chunk.hashes.keys)
                if len(picked):
                    self._rows.append(chunk.rows.select(list(names)).take(pa.array(picked)))
                # The scan ends before the table that it reads is written.
                if self._full():
                    break
            self._load(DELETE)
            if wanted.left == before:
                return

    def _write(self, keys: Hashes, copies: Indexes | None) -> None:
        wanted = _Wanted(keys, copies)
        for chunk in self.sides.source_chunks():
            picked = wanted.take(chunk.hashes.keys)
            if len(picked):
                self._rows.append(chunk.rows.take(pa.array(picked)))
                self._keep_unrepresentable(chunk.read, picked)
            if self._full():
                self._load(UPSERT)
        self._load(UPSERT)

    def _keep_unrepresentable(self, chunk: RowChunk, picked: Indexes) -> None:
        rows = set(picked.tolist())
        values = [value for value in chunk.unrepresentable if value.row in rows]
        if values:
            sides, snapshot = self.sides, self.sides.snapshot
            self._unrepresentable.append(
                unrepresentable_rows(
                    sides.state.target, sides.layout, sides.relation.key, chunk.rows, values,
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
            unrepresentable=tuple(self._unrepresentable),
        )
        self._rows, self._unrepresentable = [], []
        self.sides.destination.load(batch, self.checkpoint)

    def _merge(self, rows: pa.Table, operation: str) -> KeyedMerge | MultisetMerge:
        state, count = self.sides.state, len(rows)
        target, key = state.target_table, state.target_key
        values = values_of(rows) | metadata_of(self.sides.snapshot)
        values[OP_COLUMN] = pa.scalar(operation)
        if key:
            rows = arrange(keyed_schema(target), values, count)
            return KeyedMerge(target, key, rows, soft_deletes=state.soft_deletes)
        values[REF_COLUMN] = pa.array(np.arange(count))
        gone = state.dropped_columns
        content = tuple(name for name in target.schema.names if name not in gone)
        return MultisetMerge(target, arrange(multiset_schema(target), values, count), content)


class _Wanted:
    """Rows still to be picked, one for each hash; `copies` says how often each is loaded.

    All copies of a row must be in one load: a later load with the same LSN would count as applied.
    """

    def __init__(self, hashes: Hashes, copies: Indexes | None) -> None:
        order = np.argsort(hashes)
        self._hashes = hashes[order]
        self._copies = np.ones(len(hashes), np.int64) if copies is None else copies[order]

    @property
    def left(self) -> int:
        return len(self._hashes)

    def take(self, hashes: Hashes) -> Indexes:
        """Return the indexes of wanted rows in a chunk, repeated by their copies; these rows are no
        longer wanted."""
        rows = np.flatnonzero(np.isin(hashes, self._hashes))
        found, first = np.unique(hashes[rows], return_index=True)
        place = np.searchsorted(self._hashes, found)
        picked: Indexes = np.repeat(rows[first], self._copies[place])
        kept = np.ones(len(self._hashes), np.bool_)
        kept[place] = False
        self._hashes, self._copies = self._hashes[kept], self._copies[kept]
        return picked
