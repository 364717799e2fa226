"""Which tables a run follows, how each is laid out now, and which must be read again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from cdc_core.fold.fold import fold
from cdc_core.fold.layout import lay_out
from cdc_core.fold.multi_part_batch import BatchParts, Entangled
from cdc_core.fold.unrepresentable import HeldCells, unrepresentable_rows
from cdc_core.tables.enum_labels import has_stray_label
from cdc_core.tables.gone_partitions import Removal, in_the_way
from cdc_core.tables.renames import table_renames
from cdc_core.tables.schema_change import (
    dropped_columns,
    evolve,
    fingerprint_of,
    has_names,
    last_column,
    resolve_columns,
    target_key,
    target_table,
    widens,
)
from cdc_core.tables.selection import require_schemas
from cdc_core.tables.target_names import target_names
from cdc_core.values.changes import Op
from cdc_core.values.checkpoint import Checkpoint, FormerColumns, TableState, TableStatus
from cdc_core.values.fingerprint import ITSELF
from cdc_core.values.lsn import ZERO_LSN, Lsn
from cdc_core.values.merges import (
    EMPTY_BATCH,
    KEYED_CONTROL_FIELDS,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
    ColumnRename,
    KeyedMerge,
    LoadBatch,
    Merge,
    MultisetMerge,
    TableRename,
)
from cdc_core.values.naming import ANY_DESTINATION, TableNaming

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog, SourceTable
    from cdc_core.values.changes import ChangeBatch, TableChanges
    from cdc_core.values.checkpoint import ColumnState
    from cdc_core.values.errors import CdcError, DestinationRefused
    from cdc_core.values.merges import StagedRows
    from cdc_core.values.relation import TableName


class ColumnsOf(Protocol):
    """`Destination.columns`."""

    def __call__(
        self, tables: Collection[str], *, current: bool
    ) -> Mapping[str, Collection[str]]: ...


@dataclass
class TablePlan:
    """The tables of a run, by oid. `catalog` is asked again when the stream knows more, `position`
    for the end of the source's WAL; `stage` puts rows at the destination that memory should not
    hold."""

    checkpoint: Checkpoint
    first_schema: str
    catalog: Catalog
    position: Callable[[], Lsn]
    stage: Callable[[pa.Table], StagedRows]
    #: Changes of a known table's definition are not followed: the table is set aside.
    freeze: bool = False
    naming: TableNaming = ANY_DESTINATION
    #: Tables to read again, or for the first time, by oid, with the reason. What was streamed once
    #: is marked in the checkpoint too, so that it is read even if this run ends before.
    to_read: dict[int, str] = field(default_factory=dict)
    #: Tables that wait for an operator, because their reading was refused or `freeze` refuses what
    #: was done to them, with the reason; the others go on.
    refused: dict[int, str] = field(default_factory=dict)
    frozen: bool = False
    #: Those of them that the destination refused.
    unfit: set[int] = field(default_factory=set)
    #: Tables that cannot be published as long as other sessions have them locked.
    locked: list[TableName] = field(default_factory=list)
    #: Tables that the source refuses to publish, by oid.
    unpublished: dict[int, CdcError] = field(default_factory=dict)
    #: Sentences about what changed in the tables' definitions, and what became of it.
    notes: dict[str, None] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    unrepresentable: int = 0
    sources: dict[int, SourceTable] = field(default_factory=dict)
    targets: dict[int, str] = field(default_factory=dict)
    #: Tables with rows of partitions that are gone.
    removals: dict[int, Removal] = field(default_factory=dict)
    _removals_before: dict[int, Removal] = field(default_factory=dict)
    _steps: list[ColumnRename | TableRename] = field(default_factory=list)
    _empty_merges: list[Merge] = field(default_factory=list)
    _changed: bool = False
    _looked: Lsn = ZERO_LSN
    #: Tables of which rows came that were committed after the last look.
    _unseen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        #: What the destination has taken last.
        self.durable = self.checkpoint
        self._parts = BatchParts(self.stage)
        self._cells = HeldCells(self.stage)

    @property
    def followed(self) -> frozenset[int]:
        """Oids whose changes are wanted from the stream."""
        return frozenset(
            oid
            for oid, state in self.checkpoint.tables.items()
            if state.status is TableStatus.STREAMING
        )

    @property
    def to_read_names(self) -> list[str]:
        return [str(self.sources[oid].relation.table) for oid in self.to_read]

    @property
    def set_aside(self) -> dict[str, str]:
        """Tables that wait for an operator, with the reason."""
        reasons: dict[str, list[str]] = {}
        for oid, why in self.refused.items():
            state = self.checkpoint.tables.get(oid)
            if oid in self.sources or (state and state.status is TableStatus.NEEDS_SNAPSHOT):
                reasons.setdefault(str(self._name(oid)), []).append(why)
        return {name: "; ".join(dict.fromkeys(found)) for name, found in reasons.items()}

    def _name(self, oid: int) -> TableName:
        if oid in self.sources:
            return self.sources[oid].relation.table
        return self.checkpoint.tables[oid].table

    def ask(self, after: Lsn = ZERO_LSN) -> None:
        """Look at the catalog as it is now; the WAL has come to `after`."""
        require_schemas(self.catalog.schemas_found(), self.checkpoint.tables, self.catalog.names)
        horizon = self.catalog.horizon()
        self.look(self.catalog.publish(), after)
        self.checkpoint = replace(self.checkpoint, horizon=horizon)

    def look(self, tables: Sequence[SourceTable], after: Lsn = ZERO_LSN) -> None:
        """Compare the checkpoint's tables with the catalog's, asked for when the WAL had come to
        `after`."""
        self._looked = max(self._looked, after)
        self.sources = {table.relation.oid: table for table in tables}
        self.to_read = {oid: why for oid, why in self.to_read.items() if oid in self.sources}
        self._removals_before, self.removals = self.removals, {}
        self.locked = [table.relation.table for table in tables if table.locked]
        self._note_unpublished()
        states = dict(self.checkpoint.tables)
        names = {oid: table.relation.table for oid, table in self.sources.items()}
        self.targets = target_names(names, states, self.first_schema, self.naming)
        self._rename_tables(states)
        self._note_gone(states)
        for oid, table in self.sources.items():
            known = states.get(oid)
            if oid in self.refused or table.locked:
                continue
            if table.refused and (known is None or known.status is not TableStatus.STREAMING):
                continue
            if known is None or known.status is TableStatus.DROPPED:
                held = self._held_by_refused(states, oid)
                if held:
                    self.refused[oid] = held
                    continue
                self._note(f"{table.relation.table}: new table")
                self.to_read.setdefault(oid, "new table")
            elif known.status is TableStatus.NEEDS_SNAPSHOT:
                # What was refused may be undone, or no longer be refused.
                if not self._refuses(states, known, evolve(known, table).changes):
                    self.to_read.setdefault(oid, known.reason)
            elif known.status is TableStatus.STREAMING:
                if table.not_streamed:
                    self._leave_stream(states, known, table)
                else:
                    self._evolve(states, known, table)
            elif not table.not_streamed:
                self.to_read.setdefault(oid, "it can be streamed now")
        self.checkpoint = replace(self.checkpoint, tables=states)
        self._unseen.clear()

    def read_lost(
        self,
        columns: ColumnsOf,
        before: Mapping[int, TableState],
    ) -> None:
        """Have tables read again of which the destination has lost something: the stream brings
        changes only.

        `columns` tells what the destination has, `before` are the states before the look: its
        renames are still to be done, or were done by a run that was killed before its checkpoint.
        """
        now = {oid: self.checkpoint.tables[oid] for oid in self.followed}
        found = self._find_lost(now, before, columns, current=False)
        if found:  # what the destination shows at once may be of a while ago
            now = {oid: now[oid] for oid in found}
            found = self._find_lost(now, before, columns, current=True)
        lost = set()
        for oid, why in found.items():
            lost.add(now[oid].target)
            self._wait_for_reading(oid, why)
            self._changed = True
        # An empty table in its place would not tell any more that it was lost.
        definitions = self._empty_merges
        self._empty_merges = [m for m in definitions if m.target.name not in lost]

    def _find_lost(
        self,
        now: Mapping[int, TableState],
        before: Mapping[int, TableState],
        columns: ColumnsOf,
        *,
        current: bool,
    ) -> dict[int, str]:
        """Tables of which something is missing, with what it is."""
        targets = {state.target for oid in now for state in (before[oid], now[oid])}
        held = dict(columns(targets, current=current))
        for step in self._steps:
            if isinstance(step, TableRename) and step.old in held:
                moved = held.pop(step.old)
                # In the way of the new name may be what a dropped table left.
                if held.pop(step.new, None) is None:
                    held[step.new] = moved
        found = {
            oid: _lost(before[oid], state, held.get(state.target)) for oid, state in now.items()
        }
        return {oid: why for oid, why in found.items() if why}

    def pending(self) -> LoadBatch | None:
        """Changes of definition alone, to be loaded before any rows; None for none."""
        if not (self._steps or self._empty_merges or self._changed):
            return None
        batch = LoadBatch(merges=tuple(self._empty_merges), steps=tuple(self._steps))
        self._steps, self._empty_merges, self._changed = [], [], False
        return batch

    @property
    def holds_parts(self) -> bool:
        """Whether a batch has begun of which the last part is still to come."""
        return bool(self._parts.oids or self._cells.oids)

    def forget_parts(self) -> None:
        """The reading ended within a batch, which will come again from its start."""
        self._parts.clear()
        self._cells.take()

    def apply(self, batch: ChangeBatch) -> LoadBatch | None:
        """What a batch of changes, with the parts of it that came before, leaves to load; None
        while more parts are to come."""
        versions: dict[int, list[TableChanges]] = {}
        wanted = self.followed - self.to_read.keys()
        for changes in batch.tables:
            oid = changes.relation.oid
            # What a reading has already may be of a definition that nobody knows any more.
            if oid in wanted and changes.commit_lsn[-1] >= self.checkpoint.tables[oid].snapshot_lsn:
                versions.setdefault(oid, []).append(changes)
        for oid, versions_of_table in versions.items():
            self._fold(oid, versions_of_table)
        if not batch.complete:
            self._parts.make_room()
            return None
        merges = [merge for oid in self._parts.oids if (merge := self._merge(oid)) is not None]
        cells = self._cells.take()
        self.unrepresentable += sum(map(len, cells))
        self.forget_parts()
        pending = self.pending() or EMPTY_BATCH
        merged = {merge.target.name for merge in merges}
        definitions = [merge for merge in pending.merges if merge.target.name not in merged]
        return LoadBatch(merges=(*definitions, *merges), steps=pending.steps, unrepresentable=cells)

    def _fold(self, oid: int, versions: list[TableChanges]) -> None:
        """Fold a table's changes, and hold them."""
        columns = self._resolve(oid, versions)
        if columns is None:
            return
        state = self.checkpoint.tables[oid]
        if any(_has_odd_key(changes, state) for changes in versions):
            # NULL in the destination, such a key names no row there.
            self._wait_for_reading(oid, "a key that its destination type cannot hold changed")
            return
        target = target_table(state)
        laid_out = lay_out(list(zip(versions, columns, strict=True)), target, state.snapshot_lsn)
        merge = fold(
            laid_out, target, target_key(state), dropped_columns(state), self._parts.rows_of(oid)
        )
        if merge is not None:
            self._parts.add(versions[-1].relation, merge)
        for cells in self._unrepresentable(state, versions, columns):
            self._cells.add(oid, cells)

    def _merge(self, oid: int) -> Merge | None:
        """What the parts of a table leave; None if it must be read again."""
        if oid in self.to_read or oid not in self.followed:
            self._parts.discard(oid)
            self._cells.discard(oid)
            return None
        state = self.checkpoint.tables[oid]
        target = target_table(state)
        if oid in self._cells.oids and self._parts.renamed(oid, target):
            # The values have the names of before, which no later rename would find.
            self._parts.discard(oid)
            self._cells.discard(oid)
            self._wait_for_reading(oid, "it was renamed within a large transaction")
            return None
        try:
            return self._parts.take(oid, target, target_key(state), dropped_columns(state))
        except Entangled:
            self._cells.discard(oid)
            self._wait_for_reading(oid, "keys changed all over a large transaction")
            return None

    def read_done(self, checkpoint: Checkpoint, oids: Iterable[int], unrepresentable: int) -> None:
        self.checkpoint = self.durable = checkpoint
        self.unrepresentable += unrepresentable
        for oid in oids:
            self.to_read.pop(oid, None)
            self.removals.pop(oid, None)

    def read_anew(self, oid: int, why: str) -> None:
        """Have a table read, whatever is known of it."""
        known = self.checkpoint.tables.get(oid)
        self.removals.pop(oid, None)
        if known is not None and known.status is TableStatus.STREAMING:
            self._wait_for_reading(oid, why)
        else:
            self.to_read[oid] = why

    def forget_reading(self) -> None:
        """What is kept of a table that need not be read is of no use."""
        reading = self.checkpoint.reading
        if reading is not None and reading.oid not in self.to_read:
            self.checkpoint = replace(self.checkpoint, reading=None)

    def read_refused(self, oid: int, why: str) -> None:
        self.to_read.pop(oid, None)
        self._set_aside(oid, why)

    def refuse(self, refusal: DestinationRefused) -> bool:
        """Set tables aside that the destination refused, and go back to what it has taken, so that
        the others can be loaded without them; whether they are tables of the plan."""
        held = {state.target: oid for oid, state in self.durable.tables.items()}
        held |= {target: oid for oid, target in self.targets.items()}
        refused = {
            held[target]: refusal.of(target).what for target in refusal.tables if target in held
        }
        if len(refused) < len(refusal.tables) or refused.keys() <= self.unfit:
            return False
        self.forget_parts()
        self._steps, self._empty_merges = [], []
        self.checkpoint = self.durable
        for oid, why in refused.items():
            self.unfit.add(oid)
            self.read_refused(oid, why)
            known = self.durable.tables.get(oid)
            if known is not None:
                waiting = replace(known, status=TableStatus.NEEDS_SNAPSHOT, reason=why)
                self.checkpoint = self.checkpoint.with_table(waiting)
        self._changed = True
        self.ask()
        return True

    def _set_aside(self, oid: int, why: str) -> None:
        self.refused[oid] = why
        self.alerts.append(f"{self._name(oid)} is set aside: {why}")

    def _note_unpublished(self) -> None:
        told, self.unpublished = self.unpublished, {}
        for oid, table in self.sources.items():
            if table.refused is not None:
                self.unpublished[oid] = table.refused
                if oid not in told:
                    self.alerts.append(f"{self._name(oid)} is set aside: {table.refused}")

    def _held_by_refused(self, states: dict[int, TableState], oid: int) -> str:
        """Why a new table cannot be read: its place is still that of one that was set aside."""
        return next(
            (
                why
                for other, why in self.refused.items()
                if other in states and states[other].target == self.targets[oid]
            ),
            "",
        )

    def _refuses(
        self, states: dict[int, TableState], known: TableState, changes: Sequence[str]
    ) -> bool:
        """Whether the changes are refused; the table then stays as it was."""
        if not (self.freeze and changes):
            return False
        self.frozen = True
        reason = f'schema_changes = "freeze" refuses: {", ".join(changes)}'
        waiting = replace(known, status=TableStatus.NEEDS_SNAPSHOT, reason=reason)
        if waiting != known:
            states[known.oid] = waiting
            self._changed = True
        self.to_read.pop(known.oid, None)
        if known.oid not in self.refused:
            self._set_aside(known.oid, reason)
        return True

    def _resolve(self, oid: int, parts: list[TableChanges]) -> list[tuple[ColumnState, ...]] | None:
        """Target columns of each version; None once the table must be read again."""
        newest = Lsn(max(int(part.commit_lsn[-1]) for part in parts))
        for attempt in ("known", "asked again"):
            state = self.checkpoint.tables[oid]
            moments = [state.past(Lsn(int(part.commit_lsn[0]))).former for part in parts]
            columns = [
                resolve_columns(part.relation, state, former)
                for part, former in zip(parts, moments, strict=True)
            ]
            # Names of no known moment, which may still fit, as where a column was dropped, are of
            # one that passed before the look, or there is news.
            passed = newest <= self._looked
            known = all(
                has_names(part.relation, state, former)
                for part, former in zip(parts, moments, strict=True)
            )
            fitting = [
                resolved
                for part, resolved in zip(parts, columns, strict=True)
                if resolved is not None and self._fits(part, resolved, state)
            ]
            fingerprint = fingerprint_of(state)
            stray = any(has_stray_label(part, fingerprint) for part in parts)
            if (passed or known) and len(fitting) == len(parts) and not stray:
                if not passed:
                    self._unseen.add(oid)
                return fitting
            if attempt == "known":
                self.ask(newest)
                if oid in self.to_read or oid not in self.followed:
                    return None
        self._wait_for_reading(
            oid,
            "a label of an enum may have been renamed"
            if stray
            else "its definition changed in a way the stream does not tell",
        )
        return None

    def _wait_for_reading(self, oid: int, reason: str) -> None:
        """Have a table read again, be it by the next run."""
        self.to_read[oid] = reason
        waiting = replace(
            self.checkpoint.tables[oid], status=TableStatus.NEEDS_SNAPSHOT, reason=reason
        )
        self.checkpoint = self.checkpoint.with_table(waiting)

    @staticmethod
    def _fits(part: TableChanges, columns: Sequence[ColumnState], state: TableState) -> bool:
        """Whether a version's columns and key can be laid out in the state's."""
        targets = target_table(state).schema
        for column, resolved in zip(part.relation.columns, columns, strict=True):
            wanted = targets.field(resolved.target).type
            if not widens(column.arrow_type, wanted):
                return False
        names = {c.name: r.target for c, r in zip(part.relation.columns, columns, strict=True)}
        return {names[name] for name in part.relation.key} == set(target_key(state))

    def _unrepresentable(
        self, state: TableState, parts: list[TableChanges], columns: Sequence[Sequence[ColumnState]]
    ) -> list[pa.Table]:
        found = []
        for part, resolved in zip(parts, columns, strict=True):
            # An old row that a DELETE carries brings no value to the destination.
            fresh = (part.commit_lsn >= np.uint64(state.snapshot_lsn)) & (part.op != Op.DELETE)
            values = [value for value in part.unrepresentable if fresh[value.row]]
            if values:
                names = {
                    c.name: r.target for c, r in zip(part.relation.columns, resolved, strict=True)
                }
                found.append(
                    unrepresentable_rows(
                        state.target, names, part.relation.key, part.rows, values,
                        part.commit_lsn, part.committed_at,
                    )
                )  # fmt: skip
        return found

    def _note_gone(self, states: dict[int, TableState]) -> None:
        """Tables that are not found any more: their data stays, unless one recreated under their
        name takes the place."""
        gone = {
            oid: state
            for oid, state in states.items()
            if oid not in self.sources and state.status is not TableStatus.DROPPED
        }
        names = self.catalog.names(gone) if gone else {}
        taken = {self.targets[oid] for oid in self.sources}
        for oid, state in gone.items():
            recreated = state.target in taken
            if recreated and self._refuses(states, state, ["table dropped and created again"]):
                continue
            # A recreated one takes the place once it is read.
            if not recreated:
                self._note(f"{state.table}: {_what_became(state, names.get(oid))}; its data stays")
            states[oid] = state.dropped()
            self._changed = True

    def _rename_tables(self, states: dict[int, TableState]) -> None:
        """Follow renamed tables: in place where the name is free, else by reading them again."""
        moved = {
            oid: state
            for oid, state in states.items()
            if oid in self.sources
            and state.status is not TableStatus.DROPPED
            and state.table != self.sources[oid].relation.table
        }
        for oid, state in list(moved.items()):
            table = self.sources[oid].relation.table
            if oid in self.unfit or self._refuses(
                states, state, [f"table {state.table} renamed to {table}"]
            ):
                del moved[oid]
                self.targets[oid] = state.target
                continue
            self._note(f"{state.table}: table {state.table} renamed to {table}")
        renames = table_renames(states, {oid: self.targets[oid] for oid in moved})
        self._steps += renames.possible
        blocked = {rename.old for rename in renames.blocked}
        for oid, state in moved.items():
            named = replace(state, table=self.sources[oid].relation.table, target=self.targets[oid])
            if state.target in blocked and state.status is not TableStatus.NEEDS_SNAPSHOT:
                reason = "its new name was another table's"
                self.to_read.setdefault(oid, reason)
                named = replace(named, status=TableStatus.NEEDS_SNAPSHOT, reason=reason)
            self._changed = True
            states[oid] = named

    def _leave_stream(
        self, states: dict[int, TableState], known: TableState, table: SourceTable
    ) -> None:
        """Read it once more: what was committed while it was published is not told any more."""
        if self._refuses(states, known, evolve(known, table).changes):
            return
        self._must_read(states, known, f"it leaves the stream ({table.not_streamed})")

    def _evolve(self, states: dict[int, TableState], known: TableState, table: SourceTable) -> None:
        oid = table.relation.oid
        removable = self._removable(known, table)
        evolution = evolve(
            known,
            table,
            unseen_rows=oid in self._unseen,
            settled=self._settled(known, table) | removable,
            # Asked for after the look: what commits past it has the labels that the look saw.
            until=self.position,
        )
        if self._refuses(states, known, evolution.changes):
            return
        for change in evolution.changes:
            self._note(f"{known.table}: {change}")
        if removable and not evolution.reread:
            self._note_removal(oid, removable)
        if evolution.reread:
            self._must_read(states, known, evolution.reread)
        elif evolution.state != known:
            self._changed = True
            self._steps += evolution.renames
            if evolution.changes:
                self._empty_merges.append(_empty_merge(evolution.state))
            states[oid] = self._with_former(evolution.state, known)

    def _settled(self, known: TableState, table: SourceTable) -> frozenset[int]:
        """Of files that are new or others, those that are known to have the rows they had."""
        before, oid = fingerprint_of(known), table.relation.oid
        moved, attached = table.fingerprint.moved(before), table.fingerprint.attached(before)
        if not (moved or attached):
            return frozenset()
        asked = {oid if leaf == ITSELF else leaf for leaf in moved}
        settled = self.catalog.settled(asked, attached, self.checkpoint.horizon)
        return frozenset(ITSELF if leaf == oid else leaf for leaf in settled)

    def _removable(self, known: TableState, table: SourceTable) -> frozenset[int]:
        """Partitions that are gone, if their rows can be removed by their bounds."""
        gone = table.fingerprint.gone(fingerprint_of(known))
        others = in_the_way(known, table.fingerprint) if gone else None
        if others is None or others - self.catalog.settled((), others, 0):
            return frozenset()
        return gone

    def _note_removal(self, oid: int, gone: frozenset[int]) -> None:
        known = self._removals_before.get(oid)
        if known is None or known.gone != gone:
            known = Removal(gone, self.position())
        self.removals[oid] = known

    def removed(self, oid: int) -> None:
        """The rows of its partitions that are gone are no longer at the destination."""
        state, removal = self.checkpoint.tables[oid], self.removals.pop(oid)
        left = fingerprint_of(state).without(removal.gone)
        self.checkpoint = self.checkpoint.with_table(replace(state, fingerprint=left.to_text()))

    def _must_read(self, states: dict[int, TableState], known: TableState, reason: str) -> None:
        self._note(f"{known.table}: {reason}")
        self.to_read.setdefault(known.oid, reason)
        states[known.oid] = replace(known, status=TableStatus.NEEDS_SNAPSHOT, reason=reason)
        self._changed = True

    def _with_former(self, state: TableState, known: TableState) -> TableState:
        last = last_column(known)
        if state.names == known.names and last_column(state) == last:
            return state
        # Asked for after the look: what commits past it has the columns that the look saw.
        former = FormerColumns(known.names, last, until=self.position())
        return replace(state, former=(*known.former, former))

    def _note(self, text: str) -> None:
        self.notes[text] = None


def _what_became(state: TableState, now: TableName | None) -> str:
    """Of a table that is not found by the settings any more."""
    if now is None:
        return "dropped"
    if now == state.table:
        return "excluded, or a partition of another table"
    return f"it is {now} now, which schemas, include and exclude leave out"


def _has_odd_key(part: TableChanges, state: TableState) -> bool:
    """Whether a row that the table does not have already has a key no destination type holds."""
    key = set(part.relation.key)
    return any(
        value.column in key and part.commit_lsn[value.row] >= np.uint64(state.snapshot_lsn)
        for value in part.unrepresentable
    )


def _lost(before: TableState, state: TableState, held: Collection[str] | None) -> str:
    """What a table at the destination has no more of what was loaded (empty: nothing)."""
    if held is None:
        return f"the destination has no table {state.target}"
    now = {column.attnum: column.target for column in state.columns}
    for column in before.columns:
        names = {column.target, now[column.attnum]}
        # Under both names, or neither, it was renamed in between: which values are its own?
        if not column.dropped and len(names.intersection(held)) != 1:
            return f"the destination has no column {column.target} of it as it was loaded"
    return ""


def _empty_merge(state: TableState) -> Merge:
    """No rows: makes the destination's table take the state's columns."""
    target, key = target_table(state), target_key(state)
    control = KEYED_CONTROL_FIELDS if key else MULTISET_CONTROL_FIELDS
    rows = pa.schema([*target.schema, *METADATA_FIELDS, *control]).empty_table()
    return KeyedMerge(target, key, rows) if key else MultisetMerge(target, rows, ())
