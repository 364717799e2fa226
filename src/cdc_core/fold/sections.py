"""Sections of a table's changes: what lies between two TRUNCATEs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cdc_core.values.changes import Op
from cdc_core.values.history import Moment
from cdc_core.values.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdc_core.values.changes import TableChanges


@dataclass(frozen=True, eq=False)
class Section:
    """Changes without a TRUNCATE. `truncated` and `xid` are those of the one before them; None at
    the start of the changes."""

    changes: TableChanges
    truncated: Moment | None = None
    xid: int | None = None


def sections(changes: TableChanges) -> Iterator[Section]:
    """Yield the sections in order; the first may be empty, and so may those after a TRUNCATE."""
    start, truncated, xid = 0, None, None
    for stop in np.flatnonzero(changes.op == Op.TRUNCATE).tolist():
        yield Section(changes.between(start, stop), truncated, xid)
        lsn, committed_at = int(changes.commit_lsn[stop]), int(changes.committed_at[stop])
        start, truncated, xid = stop + 1, Moment(Lsn(lsn), committed_at), int(changes.xid[stop])
    yield Section(changes.between(start, len(changes)), truncated, xid)
