"""Layout of changes in a target's columns: versions of a relation become one `TableChanges`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdc_core.fold.row_layout import arrange
from cdc_core.values.changes import TableChanges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.fold.row_layout import RowLayout
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.merges import TargetTable

    Versions = Sequence[tuple[TableChanges, RowLayout]]


def lay_out(versions: Versions, target: TargetTable, snapshot_lsn: Lsn) -> TableChanges:
    """Return one `TableChanges` with exactly the target's columns, from versions in stream order.

    Each version is given with its layout. Changes that committed before `snapshot_lsn` are in the
    table already and are omitted.
    """
    parts = [_place(_after(changes, snapshot_lsn), layout, target) for changes, layout in versions]
    if len(parts) == 1:
        return parts[0]
    masks = {name for part in parts for name in part.unchanged}
    starts = np.cumsum([0, *(len(part) for part in parts)])
    moved = [
        np.where(part.moved_from >= 0, part.moved_from + start, -1)
        for part, start in zip(parts, starts, strict=False)
    ]
    return TableChanges(
        relation=parts[-1].relation,
        rows=pa.concat_tables([part.rows for part in parts]),
        op=np.concatenate([part.op for part in parts]),
        commit_lsn=np.concatenate([part.commit_lsn for part in parts]),
        committed_at=np.concatenate([part.committed_at for part in parts]),
        xid=np.concatenate([part.xid for part in parts]),
        moved_from=np.concatenate(moved),
        unchanged={
            name: np.concatenate(
                [part.unchanged.get(name, np.zeros(len(part), np.bool_)) for part in parts]
            )
            for name in masks
        },
    )


def _after(changes: TableChanges, snapshot_lsn: Lsn) -> TableChanges:
    """Return the changes that the snapshot does not contain.

    A commit record can start exactly at the snapshot's LSN; the snapshot does not contain it. Its
    changes get an LSN one byte later, where no record can start, so that they count as newer.
    """
    lsn = changes.commit_lsn
    first = int(np.searchsorted(lsn, np.uint64(snapshot_lsn)))
    at_snapshot = lsn == np.uint64(snapshot_lsn)
    if first == 0 and not at_snapshot.any():
        return changes
    newer = replace(changes, commit_lsn=lsn + at_snapshot.astype(np.uint64))
    return newer.between(first, len(changes))


def _place(changes: TableChanges, layout: RowLayout, target: TargetTable) -> TableChanges:
    values = layout.values(changes.rows)
    unchanged = {
        layout.columns[name].target: mask
        for name, mask in changes.unchanged.items()
        if layout.columns[name].rule.is_read
    }
    return TableChanges(
        relation=changes.relation,
        rows=arrange(target.schema, values, len(changes)),
        op=changes.op,
        commit_lsn=changes.commit_lsn,
        committed_at=changes.committed_at,
        xid=changes.xid,
        moved_from=changes.moved_from,
        unchanged=unchanged,
    )
