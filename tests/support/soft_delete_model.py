"""A plain-Python model of soft deletes: every change applied by itself, in commit order."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from cdc_core.values.changes import Op

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from adapters.fakes.postgres import Transaction

Row = dict[str, Any]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
METADATA = ("_cdc_lsn", "_cdc_committed_at", "_cdc_deleted_at")


def time_of(microseconds: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=microseconds)


class SoftDeletes:
    """A table with a key and soft deletes, from its rows at a snapshot on."""

    def __init__(self, key: Sequence[str], rows: Iterable[Row], lsn: int, taken_at: int) -> None:
        self.key = tuple(key)
        live = dict(zip(METADATA, (lsn, time_of(taken_at), None), strict=True))
        #: Each row that there ever was, with its metadata, by its key.
        self.rows: dict[tuple[Any, ...], Row] = {self._key(row): {**row, **live} for row in rows}

    def apply(self, transaction: Transaction, oid: int) -> None:
        lsn, at = int(transaction.commit_lsn), time_of(transaction.committed_at)
        live = dict(zip(METADATA, (lsn, at, None), strict=True))
        deleted = dict(zip(METADATA, (lsn, at, at), strict=True))
        for event in transaction.events:
            if event.oid != oid:
                continue
            if event.op is Op.TRUNCATE:
                for row in self.rows.values():
                    if row["_cdc_deleted_at"] is None:
                        row.update(deleted)
            elif event.op is Op.DELETE:
                self.rows[self._key(event.row)].update(deleted)
            else:
                values = dict(event.row)
                if event.op is Op.UPDATE:
                    old = self.rows[self._key(event.old or event.row)]
                    values |= {name: old[name] for name in event.unchanged}
                    if event.old is not None:
                        old.update(deleted)
                self.rows[self._key(values)] = {**values, **live}

    def _key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.key)
