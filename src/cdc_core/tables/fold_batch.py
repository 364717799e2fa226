"""Folding a batch: from the changes of many tables to one load.

Each change is laid out in the columns that its table has now. A table whose changes cannot be laid
out with certainty is left out of the load and read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cdc_core.fold.fold import fold
from cdc_core.fold.layout import lay_out
from cdc_core.fold.log import LogParts
from cdc_core.fold.multi_part_batch import BatchParts, Entangled
from cdc_core.fold.row_layout import RowLayout
from cdc_core.fold.unrepresentable import HeldUnrepresentable, unrepresentable_rows
from cdc_core.fold.versions import VersionParts
from cdc_core.tables.enum_labels import has_stray_label
from cdc_core.tables.message_columns import has_names, resolve_columns
from cdc_core.tables.schema_change import widens
from cdc_core.values.changes import Op
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import EMPTY_BATCH, LoadBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from cdc_core.tables.followed_tables import FollowedTables
    from cdc_core.values.changes import ChangeBatch, TableChanges
    from cdc_core.values.checkpoint import ColumnState, TableState
    from cdc_core.values.history import HistoryStep
    from cdc_core.values.merges import Merge, StagedRows
    from cdc_core.values.relation import Column


class BatchFolding:
    """Folds batches of the followed tables; holds the parts of a batch until the last one.

    `stage` stores rows at the destination that memory should not hold.
    """

    def __init__(self, tables: FollowedTables, stage: Callable[[pa.Table], StagedRows]) -> None:
        self._tables = tables
        self._parts: BatchParts[int] = BatchParts(stage)
        self._logs, self._versions = LogParts(stage), VersionParts(stage)
        self._unrepresentable = HeldUnrepresentable(stage)

    @property
    def holds_parts(self) -> bool:
        """Whether a batch has begun whose last part is still to come."""
        return bool(self._parts.places or self._unrepresentable.oids)

    def forget_parts(self) -> None:
        """Drop the parts of a batch that will be read again from its start."""
        self._parts.clear()
        self._logs.clear()
        self._versions.clear()
        self._unrepresentable.take()

    def apply(self, batch: ChangeBatch) -> LoadBatch | None:
        """Return the load of a batch, with its earlier parts and the pending changes of
        definitions; None until its last part."""
        versions: dict[int, list[TableChanges]] = {}
        states = self._tables.checkpoint.tables
        wanted = self._tables.streamed - self._tables.to_read.keys()
        for changes in batch.tables:
            oid = changes.relation.oid
            # Changes from before the snapshot may have a definition that is no longer known.
            if oid in wanted and changes.commit_lsn[-1] >= states[oid].snapshot_lsn:
                versions.setdefault(oid, []).append(changes)
        for oid, versions_of_table in versions.items():
            self._fold(oid, versions_of_table)
        if not batch.complete:
            for parts in (self._parts, self._logs, self._versions):
                parts.make_room()
            return None
        merges: list[Merge] = []
        history: list[HistoryStep] = []
        for oid in self._parts.places:
            merge, steps = self._merge(oid)
            merges += merge
            history += steps
        unrepresentable = self._unrepresentable.take()
        self.forget_parts()
        pending = self._tables.take_definitions() or EMPTY_BATCH
        merged = {merge.target.name for merge in merges}
        definitions = [merge for merge in pending.merges if merge.target.name not in merged]
        return LoadBatch(
            merges=(*definitions, *merges),
            steps=pending.steps,
            history=tuple(history),
            unrepresentable=unrepresentable,
        )

    def _fold(self, oid: int, versions: list[TableChanges]) -> None:
        """Fold a table's changes and hold the result."""
        layouts = self._resolve(oid, versions)
        if layouts is None:
            return
        state = self._tables.checkpoint.tables[oid]
        if any(_has_unrepresentable_key(changes, state) for changes in versions):
            # The key is NULL at the destination, so it identifies no row there.
            self._tables.read_again(oid, "a key that its destination type cannot hold changed")
            return
        target = state.target_table
        laid_out = lay_out(list(zip(versions, layouts, strict=True)), target, state.snapshot_lsn)
        key = state.target_key
        merge = fold(
            laid_out, target, key, state.dropped_columns, self._parts.rows_of(oid),
            soft_deletes=state.soft_deletes,
        )  # fmt: skip
        if merge is not None:
            self._parts.add(oid, versions[-1].relation, merge)
            if state.log is not None:
                self._logs.add(oid, state.log, laid_out, target, key, state.next_image)
            if state.versions is not None:
                self._versions.add(oid, laid_out, target, key)
        for rows in _unrepresentable(state, versions, layouts):
            self._unrepresentable.add(oid, rows)

    def _merge(self, oid: int) -> tuple[list[Merge], list[HistoryStep]]:
        """Return the merge of a table's parts and its history; none if the table must be read
        again."""
        if oid in self._tables.to_read or oid not in self._tables.streamed:
            self._discard(oid)
            return [], []
        state = self._tables.checkpoint.tables[oid]
        target = state.target_table
        if oid in self._unrepresentable.oids and self._parts.renamed(oid, target):
            # The values have the old names, which no later rename would find.
            self._discard(oid)
            self._tables.read_again(oid, "it was renamed within a large transaction")
            return [], []
        key = state.target_key
        steps: list[HistoryStep] = []
        try:
            merge = self._parts.take(oid, target, key, state.dropped_columns)
            if state.versions is not None:
                steps += self._versions.take(oid, state.versions, target, key)
        except Entangled:
            self._discard(oid)
            self._tables.read_again(oid, "keys changed all over a large transaction")
            return [], []
        if state.log is not None:
            images, next_image = self._logs.take(oid, state.log, target, key)
            steps += images
            if next_image is not None:
                self._tables.note_images(oid, next_image)
        return [merge], steps

    def _discard(self, oid: int) -> None:
        self._parts.discard(oid)
        self._logs.discard(oid)
        self._versions.discard(oid)
        self._unrepresentable.discard(oid)

    def _resolve(self, oid: int, versions: list[TableChanges]) -> list[RowLayout] | None:
        """Return the layout of each version; None once the table must be read again."""
        tables = self._tables
        newest = Lsn(max(int(changes.commit_lsn[-1]) for changes in versions))
        # Changes that committed after the last comparison may have a newer definition.
        compared = newest <= tables.compared_at
        layouts = self._fitting(oid, versions, known_names=not compared)
        if layouts is None:
            tables.refresh(newest)
            if oid in tables.to_read or oid not in tables.streamed:
                return None
            compared = newest <= tables.compared_at
            layouts = self._fitting(oid, versions, known_names=not compared)
        if layouts is None:
            fingerprint = tables.checkpoint.tables[oid].fingerprint
            stray = any(has_stray_label(changes, fingerprint) for changes in versions)
            tables.read_again(
                oid,
                "a label of an enum may have been renamed"
                if stray
                else "its definition changed in a way that the stream does not show",
            )
        elif not compared:
            tables.note_new_rows(oid)
        return layouts

    def _fitting(
        self, oid: int, versions: list[TableChanges], *, known_names: bool
    ) -> list[RowLayout] | None:
        """Return the layout of each version; None if one cannot be laid out with certainty.

        With `known_names` each version must have exactly the column names of the state or of a
        former column set. Without, other names may fit too: they were in use between two of them.
        """
        state = self._tables.checkpoint.tables[oid]
        hasher = self._tables.sources[oid].rules.hasher
        found = []
        for changes in versions:
            former = state.past(Lsn(int(changes.commit_lsn[0]))).former
            if known_names and not has_names(changes.relation, state, former):
                return None
            columns = resolve_columns(changes.relation, state, former)
            if columns is None or not _fits(changes, columns, state):
                return None
            if has_stray_label(changes, state.fingerprint):
                return None
            names = changes.relation.column_names
            found.append(RowLayout(dict(zip(names, columns, strict=True)), hasher))
        return found


def _fits(changes: TableChanges, columns: Sequence[ColumnState], state: TableState) -> bool:
    """Whether a version's columns and key can be laid out in the state's."""
    pairs = list(zip(changes.relation.columns, columns, strict=True))
    if not all(_fits_column(column, found) for column, found in pairs):
        return False
    names = {column.name: found.target for column, found in pairs}
    return {names[name] for name in changes.relation.key} == set(state.target_key)


def _fits_column(sent: Column, found: ColumnState) -> bool:
    """Whether values as they were read can become those of a target column."""
    if not found.rule.is_read:
        return True
    return sent.rule is found.rule and widens(sent.arrow_type, found.arrow_type)


def _unrepresentable(
    state: TableState, versions: list[TableChanges], layouts: Sequence[RowLayout]
) -> Iterator[pa.Table]:
    for changes, layout in zip(versions, layouts, strict=True):
        # The old row that a DELETE carries brings no value to the destination.
        fresh = (changes.commit_lsn >= np.uint64(state.snapshot_lsn)) & (changes.op != Op.DELETE)
        values = [value for value in changes.unrepresentable if fresh[value.row]]
        if values:
            yield unrepresentable_rows(
                state.target, layout, changes.relation.key, changes.rows, values,
                changes.commit_lsn, changes.committed_at,
            )  # fmt: skip


def _has_unrepresentable_key(changes: TableChanges, state: TableState) -> bool:
    """Whether a row that the snapshot did not contain has a key that no destination type holds."""
    key = set(changes.relation.key)
    return any(
        value.column in key and changes.commit_lsn[value.row] >= np.uint64(state.snapshot_lsn)
        for value in changes.unrepresentable
    )
