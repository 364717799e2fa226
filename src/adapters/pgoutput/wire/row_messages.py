"""Row messages of one relation to rows of a `TableChanges`. An update may become two rows.

Source: PostgreSQL manual, "Logical Replication Message Formats", "REPLICA IDENTITY".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pyarrow.compute as pc

from adapters.pgoutput.wire import messages as wire
from adapters.pgoutput.wire.text import TextColumn, gather
from adapters.pgoutput.wire.tuples import Values, walk
from cdc_core.check.table_rules import qualified
from cdc_core.values.changes import Op
from cdc_core.values.errors import DecodeError
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import Relation, ReplicaIdentity, tables_option

if TYPE_CHECKING:
    import numpy.typing as npt

    from adapters.pgoutput.wire.messages import Messages, Transactions
    from adapters.pgoutput.wire.text import Mask, Positions

NONE = -1


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that are not decoded yet: one entry of `columns` per column, and each row's operation.

    `source` is the index of each row's event. `moved_from` is the index of the update's old row, or
    -1.
    """

    columns: list[Values]
    op: npt.NDArray[np.uint8]
    source: Positions
    moved_from: Positions


class RowReader:
    """Reads `events`: the indexes of row messages of one relation, in order."""

    def __init__(
        self, messages: Messages, transactions: Transactions, relation: Relation, events: Positions
    ) -> None:
        self.messages = messages
        self.transactions = transactions
        self.relation = relation
        self.events = events
        self.key = [name in relation.key for name in relation.column_names]
        self.starts = messages.starts[events]
        self.ends = messages.ends[events]
        self.kinds = messages.kinds[events]

    def read(self) -> Rows:
        every = np.arange(len(self.events), dtype=np.int64)
        truncated = self.kinds == wire.TRUNCATE
        tags = self.messages.tags[self.events]
        has_old = ((tags == wire.KEY_TUPLE) | (tags == wire.OLD_TUPLE)) & ~truncated
        self._check_tags(every, tags, has_old)
        if not (has_old.any() or truncated.any()):
            columns, after = self._walk(every, self.starts + 6)
            self._check("is longer than its tuple", after != self.ends, every)
            self._check_key_sent(columns, every)
            return Rows(columns, self.kinds, every, np.full(len(every), NONE, dtype=np.int64))
        return self._read_with_old(every, tags, has_old, truncated)

    def _check_tags(self, every: Positions, tags: npt.NDArray[np.uint8], has_old: Mask) -> None:
        new = tags == wire.NEW_TUPLE
        inserts, updates = self.kinds == wire.INSERT, self.kinds == wire.UPDATE
        deletes = self.kinds == wire.DELETE
        self._check("has a malformed tuple", inserts & ~new, every)
        self._check("has a malformed tuple", updates & ~(new | has_old), every)
        self._check("has a malformed tuple", deletes & ~has_old, every)
        if not self.relation.key:
            whole = tags == wire.OLD_TUPLE
            self._check(
                "has no old row, though the table has neither key nor replica identity",
                (updates | deletes) & ~whole,
                every,
            )

    def _read_with_old(
        self, every: Positions, tags: npt.NDArray[np.uint8], has_old: Mask, truncated: Mask
    ) -> Rows:
        deletes = self.kinds == wire.DELETE
        with_old = np.flatnonzero(has_old)
        old, after_old = self._walk(with_old, self.starts[with_old] + 6)
        for values in old:
            if values.unchanged is not None:
                self._check("has an old row without a value", values.unchanged, with_old)
        deleted = deletes[with_old]
        self._check(
            "is longer than its tuple", deleted & (after_old != self.ends[with_old]), with_old
        )
        # Eight bytes after a message's end are readable; see `walk`.
        new_tag = self.messages.data[after_old] == wire.NEW_TUPLE
        cut = ~deleted & ~(new_tag & (after_old < self.ends[with_old]))
        self._check("has a malformed tuple", cut, with_old)

        new_at = self.starts + 6
        new_at[with_old] = after_old + 1
        with_new = np.flatnonzero(~(deletes | truncated))
        new, after_new = self._walk(with_new, new_at[with_new])
        self._check("is longer than its tuple", after_new != self.ends[with_new], with_new)

        whole = tags[with_old] == wire.OLD_TUPLE
        # For each event, its row in `old` and in `new`.
        old_row = _inverse(with_old, len(every))
        new_row = _inverse(with_new, len(every))
        for column, in_key in enumerate(self.key):
            _fill_unchanged(new[column], old[column], whole | in_key, old_row[with_new])
            if in_key:
                missing = ~old[column].valid & ~whole
                self._check("has an old key without a value", missing, with_old)
        self._check_key_sent(new, with_new)

        updated = np.flatnonzero(has_old & (self.kinds == wire.UPDATE))
        twofold = np.zeros(len(every), dtype=np.bool_)
        twofold[updated] = self._moved(old, new, old_row[updated], new_row[updated])
        return self._lay_out(old, new, whole, deletes, twofold, old_row, new_row)

    def _moved(
        self, old: list[Values], new: list[Values], old_rows: Positions, new_rows: Positions
    ) -> Mask:
        """Updates that become two rows, because the key differs or there is none."""
        if not self.relation.key:
            return np.ones(len(old_rows), dtype=np.bool_)
        moved = np.zeros(len(old_rows), dtype=np.bool_)
        for column, in_key in enumerate(self.key):
            if in_key:
                before, now = old[column].take(old_rows), new[column].take(new_rows)
                moved |= _differ(self.messages, before, now)
        return moved

    def _lay_out(
        self,
        old: list[Values],
        new: list[Values],
        whole: Mask,
        deletes: Mask,
        twofold: Mask,
        old_row: Positions,
        new_row: Positions,
    ) -> Rows:
        """Put old and new rows into the order of events. Of a twofold event, the old row is
        first."""
        counts = 1 + twofold.astype(np.int64)
        first = np.cumsum(counts) - counts
        last = first + twofold
        total = int(counts.sum())
        source = np.repeat(np.arange(len(counts), dtype=np.int64), counts)

        op = self.kinds[source]
        old_places = np.flatnonzero(deletes | twofold)
        op[first[old_places]] = Op.DELETE
        moved_from = np.full(total, NONE, dtype=np.int64)
        moved_from[last[twofold]] = first[twofold]
        if not self.relation.key:
            op[last[twofold]] = Op.INSERT

        new_places = np.flatnonzero(new_row != NONE)
        from_old, to_old = old_row[old_places], first[old_places]
        from_new, to_new = new_row[new_places], last[new_places]
        complete = whole[from_old] & (self.relation.identity is ReplicaIdentity.FULL)
        columns = []
        for column, in_key in enumerate(self.key):
            starts = self.starts[source]
            ends = starts.copy()
            valid = np.zeros(total, dtype=np.bool_)
            before, now = old[column], new[column]
            for values, rows, places in ((before, from_old, to_old), (now, from_new, to_new)):
                starts[places] = values.starts[rows]
                ends[places] = values.ends[rows]
                valid[places] = values.valid[rows]
            if not in_key:
                hidden = to_old[~complete]
                valid[hidden] = False
                ends[hidden] = starts[hidden]
            unchanged = None
            if now.unchanged is not None and now.unchanged.any():
                unchanged = np.zeros(total, dtype=np.bool_)
                unchanged[to_new] = now.unchanged[from_new]
            binary = before.binary or now.binary
            columns.append(Values(starts, ends, valid, unchanged, binary))
        return Rows(columns, op, source, moved_from)

    def _check_key_sent(self, columns: list[Values], events: Positions) -> None:
        for values, in_key, column in zip(columns, self.key, self.relation.columns, strict=True):
            if in_key and values.unchanged is not None and values.unchanged.any():
                table = self.relation.table
                self._fail(
                    f"leaves out the unchanged value of key column {column.name!r}",
                    events[values.unchanged],
                    f"run: ALTER TABLE {qualified(table)} REPLICA IDENTITY "
                    f"FULL, then: pgbronze snapshot {tables_option([str(table)])}",
                )

    def _walk(self, rows: Positions, at: Positions) -> tuple[list[Values], Positions]:
        def fail(what: str, bad: Mask) -> NoReturn:
            self._fail(what, rows[bad])

        return walk(self.messages, at, self.ends[rows], len(self.relation.columns), fail)

    def _check(self, what: str, bad: Mask, events: Positions) -> None:
        if bad.any():
            self._fail(what, events[bad])

    def _fail(self, what: str, events: Positions, cure: str = "") -> NoReturn:
        """Raise `DecodeError` for the first of these events."""
        event = self.events[events[0]]
        kind = Op(int(self.messages.kinds[event])).name
        lsn = Lsn(int(self.transactions.commit_lsns[self.transactions.of_message[event]]))
        raise DecodeError(
            f"{kind} message of {self.relation.table} in the transaction that commits at {lsn} "
            f"{what}",
            cure,
        )


def _inverse(rows: Positions, count: int) -> Positions:
    inverse = np.full(count, NONE, dtype=np.int64)
    inverse[rows] = np.arange(len(rows), dtype=np.int64)
    return inverse


def _fill_unchanged(new: Values, old: Values, sent: Mask, old_row: Positions) -> None:
    """Fill values of `new` that were not sent from the old row, where it has them (`sent`).

    If a root has REPLICA IDENTITY FULL, the old row may be that of a leaf that sends only its key.
    A NULL there is not the old value, because NULL is always sent.
    """
    if new.unchanged is None:
        return
    rows = np.flatnonzero(new.unchanged & (old_row != NONE))
    rows = rows[(sent & old.valid)[old_row[rows]]]
    sources = old_row[rows]
    new.starts[rows] = old.starts[sources]
    new.ends[rows] = old.ends[sources]
    new.valid[rows] = old.valid[sources]
    new.unchanged[rows] = False


def _differ(messages: Messages, left: Values, right: Values) -> Mask:
    """Mask of rows in which two columns of the same length differ. NULL equals NULL."""
    differ: Mask = left.valid != right.valid
    differ |= (left.ends - left.starts) != (right.ends - right.starts)
    alike = np.flatnonzero(~differ & left.valid)
    if len(alike):
        texts = [
            gather(TextColumn(messages.data, v.starts[alike], v.ends[alike], v.valid[alike]))
            for v in (left, right)
        ]
        differ[alike] = np.asarray(pc.not_equal(*texts))
    return differ
