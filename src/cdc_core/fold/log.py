"""The log of a batch: from the changes of a table to the images of each event, in order.

A value that an event does not have is that of the previous event of the same row, if the changes
contain one. Otherwise the image marks the column, and the destination finds the value; see
`LogAppend`. Images are numbered by a counter of the checkpoint, so that the same events get the
same numbers in every run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdc_core.fold.lineage import NONE, follow, key_codes, lineage, unchanged_text
from cdc_core.fold.row_layout import arrange, log_schema, relaid, values_of
from cdc_core.fold.sections import sections
from cdc_core.values.changes import Op
from cdc_core.values.history import (
    BASE_COLUMN,
    CHANGE_TYPE_COLUMN,
    DELETE_IMAGE,
    INSERT,
    LOG_FIELDS,
    POSTIMAGE,
    PREIMAGE,
    SORT_COLUMN,
    TRUNCATE_NUMBERS,
    LogAppend,
    LogTruncate,
)
from cdc_core.values.merges import UNCHANGED_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdc_core.fold.lineage import Indexes, Mask
    from cdc_core.fold.row_layout import Values
    from cdc_core.values.changes import TableChanges
    from cdc_core.values.history import HistoryStep
    from cdc_core.values.merges import StagedRows, TargetTable

#: Bytes of images held in memory. Beyond this they are staged.
HELD_BYTES = 48 << 20

_KINDS = (INSERT, PREIMAGE, POSTIMAGE, DELETE_IMAGE)


def log_images(
    changes: TableChanges, target: TargetTable, key: Sequence[str], first: int
) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the images of changes without a TRUNCATE, numbered from `first`, and the columns in
    which some are marked.

    The images are rows of a `LogAppend`. `changes.rows` has exactly the target's columns.
    """
    count = len(changes)
    moved = changes.moved_from >= 0
    updated = changes.op == Op.UPDATE
    twofold = updated & ~moved
    images = 1 + twofold.astype(np.int64)
    last = np.cumsum(images) - 1
    event = np.repeat(np.arange(count, dtype=np.int64), images)
    pre = np.zeros(len(event), np.bool_)
    pre[last[twofold] - 1] = True
    moves_on = np.zeros(count, np.bool_)
    moves_on[changes.moved_from[moved]] = True

    values: dict[str, Values]
    unresolved: dict[str, Mask] = {}
    base: Values | None = None
    if not key or bool((changes.op == Op.INSERT).all()):
        # Every event has a whole row.
        values = values_of(changes.rows)
    else:
        every = np.arange(count, dtype=np.int64)
        before = lineage(changes, key_codes(changes.rows.select(list(key))), every)
        deleted = changes.op == Op.DELETE
        # The event whose row, as it was after that event, is the image.
        shown = np.where(pre | deleted[event], before[event], event)
        values = {}

        def found_at(unknown: Mask) -> tuple[Indexes, Mask]:
            """The event that has the value of each image, and where there is none."""
            place = follow(before, unknown)[shown]
            place[shown == NONE] = event[shown == NONE]
            return place, unknown[place] | (shown == NONE)

        of_sent_columns = found_at(deleted)
        for name in target.schema.names:
            column = changes.rows.column(name)
            if name in key:
                values[name] = column.take(pa.array(event))
                continue
            unsent = changes.unchanged.get(name)
            place, missing = of_sent_columns if unsent is None else found_at(deleted | unsent)
            values[name] = column.take(pa.array(place))
            if missing.any():
                unresolved[name] = missing
        if unresolved:
            root = follow(before, np.ones(count, np.bool_))[event]
            marked = np.logical_or.reduce(list(unresolved.values()))
            numbers = first + last[root] - twofold[root]
            base = pa.array(numbers, pa.int64(), mask=~marked)

    kind = np.full(count, _KINDS.index(INSERT))
    kind[updated | moved] = _KINDS.index(POSTIMAGE)
    kind[changes.op == Op.DELETE] = _KINDS.index(DELETE_IMAGE)
    kind[moves_on] = _KINDS.index(PREIMAGE)
    kinds = np.where(pre, _KINDS.index(PREIMAGE), kind[event])
    lsn, xid, at = (LOG_FIELDS[place].name for place in (1, 2, 3))
    values |= {
        CHANGE_TYPE_COLUMN: pa.array(_KINDS).take(pa.array(kinds)),
        lsn: pa.array(changes.commit_lsn[event].astype(np.int64)),
        xid: pa.array(changes.xid[event].astype(np.int64)),
        at: pa.array(changes.committed_at[event]).cast(LOG_FIELDS[3].type),
        SORT_COLUMN: pa.array(np.arange(first, first + len(event), dtype=np.int64)),
        UNCHANGED_COLUMN: unchanged_text(target.schema, unresolved, len(event)),
    }
    if base is not None:
        values[BASE_COLUMN] = base
    return arrange(log_schema(target), values, len(event)), tuple(unresolved)


@dataclass
class _Log:
    """The log of one table in a batch: its steps so far, and the next number."""

    first: int
    next: int
    steps: list[HistoryStep] = field(default_factory=list)


class LogParts:
    """The logs of a batch so far, by the oid of their table, in limited memory."""

    def __init__(self, stage: Callable[[pa.Table], StagedRows]) -> None:
        self._stage = stage
        self._logs: dict[int, _Log] = {}

    def add(
        self,
        oid: int,
        name: str,
        changes: TableChanges,
        target: TargetTable,
        key: tuple[str, ...],
        first: int,
    ) -> None:
        """Add the changes of a table to its log `name`. `first` is the first number of the batch.

        `changes.rows` has exactly the target's columns.
        """
        log = self._logs.setdefault(oid, _Log(first, first))
        for section in sections(changes):
            if section.truncated is not None:
                log.steps.append(
                    LogTruncate(name, target, key, log.next, section.truncated, section.xid)
                )
                log.next += TRUNCATE_NUMBERS
            if len(section.changes):
                images, marked = log_images(section.changes, target, key, log.next)
                log.steps.append(LogAppend(name, target, key, images, log.next, log.first, marked))
                log.next += len(images)

    def make_room(self) -> None:
        """Stage images that memory should not hold while more parts arrive."""
        held = sum(
            step.rows.nbytes
            for log in self._logs.values()
            for step in log.steps
            if isinstance(step, LogAppend)
        )
        if held <= HELD_BYTES:
            return
        for log in self._logs.values():
            log.steps = [self._staged(step) for step in log.steps]

    def _staged(self, step: HistoryStep) -> HistoryStep:
        if not isinstance(step, LogAppend) or not len(step.rows):
            return step
        staged = (*step.staged, self._stage(step.rows))
        return replace(step, rows=step.rows.schema.empty_table(), staged=staged)

    def discard(self, oid: int) -> None:
        self._logs.pop(oid, None)

    def clear(self) -> None:
        self._logs.clear()

    def take(
        self, oid: int, name: str, target: TargetTable, key: tuple[str, ...]
    ) -> tuple[list[HistoryStep], int | None]:
        """Return and forget the steps of a table's log, and its next number; None for no changes.

        Names and columns are those of `target`, which may have changed since the first part.
        """
        log = self._logs.pop(oid, None)
        if log is None:
            return [], None
        steps: list[HistoryStep] = []
        for step in log.steps:
            assert isinstance(step, LogAppend | LogTruncate)
            now = self._relaid(step, name, target, key)
            before = steps[-1] if steps else None
            if (
                isinstance(now, LogAppend)
                and isinstance(before, LogAppend)
                and not now.unchanged_columns
            ):
                # Nothing to look up: the images can be written together with those before them.
                steps[-1] = _joined(before, now)
            else:
                steps.append(now)
        return steps, log.next

    def _relaid(
        self, step: LogAppend | LogTruncate, name: str, target: TargetTable, key: tuple[str, ...]
    ) -> LogAppend | LogTruncate:
        if (step.name, step.table, step.key) == (name, target, key):
            return step
        if isinstance(step, LogTruncate):
            return replace(step, name=name, table=target, key=key)
        names = dict(zip(step.table.schema.names, target.schema.names, strict=False))
        return replace(
            step,
            name=name,
            table=target,
            key=key,
            rows=relaid(step.rows, step.table, target),
            staged=tuple(
                self._stage(relaid(chunk.read(), step.table, target)) for chunk in step.staged
            ),
            unchanged_columns=tuple(names[column] for column in step.unchanged_columns),
        )


def _joined(before: LogAppend, after: LogAppend) -> LogAppend:
    if not len(after.rows):
        return replace(before, staged=(*before.staged, *after.staged))
    return replace(
        before,
        rows=pa.concat_tables([before.rows, after.rows]),
        staged=(*before.staged, *after.staged),
    )
