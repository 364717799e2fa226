"""The followed tables: how each is laid out now, which must be read again, which are set aside."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cdc_core.fold.row_layout import keyed_schema, multiset_schema
from cdc_core.tables.gone_partitions import Removal, in_the_way
from cdc_core.tables.history_conflicts import history_conflicts
from cdc_core.tables.lost_tables import lost_tables
from cdc_core.tables.renames import table_renames
from cdc_core.tables.schema_change import RULES_CHANGED, evolve, rules_changed
from cdc_core.tables.selection import require_schemas
from cdc_core.tables.target_names import target_names
from cdc_core.values.checkpoint import Checkpoint, FormerColumns, TableState, TableStatus
from cdc_core.values.fingerprint import ITSELF
from cdc_core.values.lsn import ZERO_LSN, Lsn
from cdc_core.values.merges import (
    KeyedMerge,
    LoadBatch,
    Merge,
    MultisetMerge,
    SchemaStep,
)
from cdc_core.values.naming import ANY_DESTINATION, TableNaming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog, SourceTable
    from cdc_core.tables.renames import ColumnsOf
    from cdc_core.values.errors import CdcError, DestinationRefused, OperatorNeeded
    from cdc_core.values.relation import TableName
    from cdc_core.values.table_rules import ColumnRules

    States = dict[int, TableState]


@dataclass
class FollowedTables:
    """The tables of a run, by oid, and what has become of each.

    `catalog` is asked again when the stream shows something new. `position` returns the end of the
    source's WAL, `columns` those of tables in the destination.
    """

    checkpoint: Checkpoint
    first_schema: str
    catalog: Catalog
    position: Callable[[], Lsn]
    columns: ColumnsOf
    #: Refuse changes of a known table's definition: the table is set aside.
    freeze: bool = False
    naming: TableNaming = ANY_DESTINATION
    #: Tables to read, for the first time or again, with the reason. The checkpoint marks those that
    #: were streamed before, so that the next run reads them if this one ends early.
    to_read: dict[int, str] = field(default_factory=dict)
    #: Tables that wait for an operator, with the reason: reading was refused, or `freeze` refuses a
    #: change. The other tables continue.
    set_aside: dict[int, str] = field(default_factory=dict)
    #: Whether `freeze` refused a change.
    frozen: bool = False
    #: Tables of `set_aside` that the destination refused.
    unfit: set[int] = field(default_factory=set)
    #: Tables that cannot be published while other sessions hold locks on them.
    locked: list[TableName] = field(default_factory=list)
    #: Tables that the source refuses to publish.
    unpublished: dict[int, CdcError] = field(default_factory=dict)
    #: Tables of `set_aside` that wait for a name; see `history_conflicts`.
    conflicts: dict[int, OperatorNeeded] = field(default_factory=dict)
    #: Sentences about changed definitions and their effect, each once.
    notes: dict[str, None] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    sources: dict[int, SourceTable] = field(default_factory=dict)
    targets: dict[int, str] = field(default_factory=dict)
    #: Rows of partitions that no longer exist, still to be removed.
    removals: dict[int, Removal] = field(default_factory=dict)
    #: The WAL position before the last comparison with the catalog.
    compared_at: Lsn = ZERO_LSN
    _removals_before: dict[int, Removal] = field(default_factory=dict)
    _steps: list[SchemaStep] = field(default_factory=list)
    _empty_merges: list[Merge] = field(default_factory=list)
    #: Whether the checkpoint differs from the durable one, besides its position.
    _changed: bool = False
    #: Tables with rows that committed after the last comparison.
    _new_rows: set[int] = field(default_factory=set)
    #: Columns, by table, that this run adds.
    _added: set[tuple[int, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        #: The last checkpoint that the destination holds.
        self.durable = self.checkpoint

    @property
    def streamed(self) -> frozenset[int]:
        """Oids of the tables whose changes are wanted from the stream."""
        return frozenset(
            oid
            for oid, state in self.checkpoint.tables.items()
            if state.status is TableStatus.STREAMING
        )

    @property
    def column_rules(self) -> dict[int, ColumnRules]:
        """How the stream's values are read, of each streamed table with such rules."""
        rules = {oid: self.checkpoint.tables[oid].column_rules for oid in self.streamed}
        return {oid: of_table for oid, of_table in rules.items() if of_table}

    @property
    def to_read_names(self) -> list[str]:
        return [str(self.sources[oid].relation.table) for oid in self.to_read]

    @property
    def set_aside_names(self) -> dict[str, str]:
        """Names of the tables that wait for an operator, with the reason."""
        reasons: dict[str, list[str]] = {}
        for oid, why in self.set_aside.items():
            state = self.checkpoint.tables.get(oid)
            if oid in self.sources or (state and state.status is TableStatus.NEEDS_SNAPSHOT):
                reasons.setdefault(str(self._name(oid)), []).append(why)
        return {name: "; ".join(dict.fromkeys(found)) for name, found in reasons.items()}

    # What the catalog shows.

    def refresh(self, after: Lsn = ZERO_LSN) -> None:
        """Publish and compare again; the WAL has reached `after`."""
        require_schemas(self.catalog.schemas_found(), self.checkpoint.tables, self.catalog.names)
        horizon = self.catalog.horizon()
        self.compare(self.catalog.publish(), after)
        self.checkpoint = replace(self.checkpoint, horizon=horizon)

    def compare(self, tables: Sequence[SourceTable], after: Lsn = ZERO_LSN) -> None:
        """Compare the checkpoint's tables with the catalog's, which were read after the WAL had
        reached `after`."""
        self.compared_at = max(self.compared_at, after)
        self.sources = {table.relation.oid: table for table in tables}
        self.to_read = {oid: why for oid, why in self.to_read.items() if oid in self.sources}
        self._removals_before, self.removals = self.removals, {}
        self.locked = [table.relation.table for table in tables if table.locked]
        self._note_unpublished()
        states = dict(self.checkpoint.tables)
        names = {oid: table.relation.table for oid, table in self.sources.items()}
        self.targets = target_names(names, states, self.first_schema, self.naming)
        self._note_conflicts(states)
        self._rename_tables(states)
        self._note_gone(states)
        for oid, table in self.sources.items():
            if oid not in self.set_aside and not table.locked:
                self._compare_table(states, table)
        self.checkpoint = replace(self.checkpoint, tables=states)
        self._new_rows.clear()

    def read_lost(self, before: Mapping[int, TableState]) -> None:
        """Have tables read again of which the destination has lost something; see `lost_tables`."""
        now = {oid: self.checkpoint.tables[oid] for oid in self.streamed}
        found = lost_tables(now, before, self._steps, self.columns)
        for oid, why in found.items():
            self.read_again(oid, why)
            self._changed = True
        # An empty table in the place of a lost one would hide that it was lost.
        lost = {now[oid].target for oid in found}
        self._empty_merges = [m for m in self._empty_merges if m.target.name not in lost]

    def take_definitions(self) -> LoadBatch | None:
        """Return the changes of definitions to load before any rows; None for none."""
        if not (self._steps or self._empty_merges or self._changed):
            return None
        batch = LoadBatch(merges=tuple(self._empty_merges), steps=tuple(self._steps))
        self._steps, self._empty_merges, self._changed = [], [], False
        return batch

    # What a run does with the tables.

    def note_new_rows(self, oid: int) -> None:
        """The stream brought rows of a table that committed after the last comparison."""
        self._new_rows.add(oid)

    def note_images(self, oid: int, next_image: int) -> None:
        """The log of a table has images up to before `next_image`, once the batch is loaded."""
        state = self.checkpoint.tables[oid]
        self.checkpoint = self.checkpoint.with_table(replace(state, next_image=next_image))

    def read_again(self, oid: int, why: str) -> None:
        """Have a table read, by this run or the next."""
        self.to_read[oid] = why
        self.removals.pop(oid, None)
        known = self.checkpoint.tables.get(oid)
        if known is not None and known.status is TableStatus.STREAMING:
            self.checkpoint = self.checkpoint.with_table(known.needs_snapshot(why))

    def beyond(self, lsn: Lsn) -> list[int]:
        """Return the oids of the tables that are to be read although they are at or past `lsn`."""
        states = self.checkpoint.tables
        return [oid for oid in self.to_read if oid in states and states[oid].snapshot_lsn >= lsn]

    def forget_written_ranges(self) -> None:
        """Drop the stored page ranges of a table that need not be read."""
        reading = self.checkpoint.reading
        if reading is not None and reading.oid not in self.to_read:
            self.checkpoint = replace(self.checkpoint, reading=None)

    def mark_read(self, checkpoint: Checkpoint, oids: Iterable[int]) -> None:
        """These tables were read; the destination holds `checkpoint`."""
        self.checkpoint = self.durable = checkpoint
        for oid in oids:
            self.to_read.pop(oid, None)
            self.removals.pop(oid, None)

    def mark_removed(self, oid: int) -> None:
        """The destination no longer has the rows of this table's partitions that are gone."""
        state, removal = self.checkpoint.tables[oid], self.removals.pop(oid)
        left = state.fingerprint.without(removal.gone)
        self.checkpoint = self.checkpoint.with_table(replace(state, fingerprint=left))

    def set_aside_table(self, oid: int, why: str) -> None:
        """Leave a table as it is until an operator has acted."""
        self.to_read.pop(oid, None)
        self.set_aside[oid] = why
        self.alerts.append(f"{self._name(oid)} is set aside: {why}")

    def set_aside_refused(self, refusal: DestinationRefused) -> bool:
        """Set aside the tables that the destination refused, and return to the durable checkpoint,
        so that the others can be loaded without them.

        Returns False if one of them is not followed, or all of them were set aside before.
        """
        held = {state.target: oid for oid, state in self.durable.tables.items()}
        held |= {target: oid for oid, target in self.targets.items()}
        refused = {
            held[target]: refusal.of(target).what for target in refusal.tables if target in held
        }
        if len(refused) < len(refusal.tables) or refused.keys() <= self.unfit:
            return False
        self._steps, self._empty_merges = [], []
        self.checkpoint = self.durable
        for oid, why in refused.items():
            self.unfit.add(oid)
            self.set_aside_table(oid, why)
            known = self.durable.tables.get(oid)
            if known is not None:
                self.checkpoint = self.checkpoint.with_table(known.needs_snapshot(why))
        # The durable checkpoint may not say yet that these have to be read. Their changes are left
        # out of the next load, so its checkpoint must.
        for oid, why in list(self.to_read.items()):
            self.read_again(oid, why)
        self._changed = True
        self.refresh()
        return True

    # The steps of a comparison; `states` are those of the new checkpoint.

    def _compare_table(self, states: States, table: SourceTable) -> None:
        oid = table.relation.oid
        known = states.get(oid)
        if table.refused and (known is None or known.status is not TableStatus.STREAMING):
            return
        if known is None or known.status is TableStatus.DROPPED:
            self._add(states, table)
        elif known.status is TableStatus.NEEDS_SNAPSHOT:
            # A refused change may have been undone, or may no longer be refused.
            if not self._refuses(states, known, evolve(known, table).changes):
                self.to_read.setdefault(oid, known.reason)
        elif known.status is TableStatus.STREAMING and table.not_streamed:
            # Read it once more: the stream no longer shows what committed while it was published.
            if not self._refuses(states, known, evolve(known, table).changes):
                self._must_read(states, known, f"it leaves the stream ({table.not_streamed})")
        elif known.status is TableStatus.STREAMING:
            self._evolve(states, known, table)
        elif rules_changed(known, table):
            self._must_read(states, known, RULES_CHANGED)
        elif not table.not_streamed:
            self.to_read.setdefault(oid, "it can be streamed now")

    def _add(self, states: States, table: SourceTable) -> None:
        """A table that is not at the destination; its place there may still be taken."""
        oid = table.relation.oid
        for other, why in self.set_aside.items():
            if other in states and states[other].target == self.targets[oid]:
                self.set_aside[oid] = why
                return
        self._note(f"{table.relation.table}: new table")
        self.to_read.setdefault(oid, "new table")

    def _evolve(self, states: States, known: TableState, table: SourceTable) -> None:
        oid = table.relation.oid
        removable = self._removable(known, table)
        evolution = evolve(
            known,
            table,
            unseen_rows=oid in self._new_rows,
            settled=self._settled(known, table) | removable,
            # Read after the catalog: what commits later has the labels that the catalog showed.
            until=self.position,
        )
        if self._refuses(states, known, evolution.changes):
            return
        for change in evolution.changes:
            self._note(f"{known.table}: {change}")
        added = self._added_columns(known, evolution.state)
        if reread := evolution.reread or self._name_in_use(known, added):
            self._must_read(states, known, reread)
            return
        self._added |= {(oid, name) for name in added}
        if removable:
            self._note_removal(oid, removable)
        if evolution.state != known:
            self._changed = True
            self._steps += evolution.renames
            if evolution.changes:
                self._empty_merges.append(_empty_merge(evolution.state))
            states[oid] = self._with_former(evolution.state, known)

    def _added_columns(self, known: TableState, state: TableState) -> list[str]:
        before = {column.attnum for column in known.columns}
        return [column.target for column in state.stored if column.attnum not in before]

    def _name_in_use(self, known: TableState, added: Iterable[str]) -> str:
        """Return why the table must be read again: the destination has a column with the name of an
        added one, whose values are somebody else's."""
        wanted = {name.casefold() for name in added if (known.oid, name) not in self._added}
        if not wanted:
            return ""
        loaded = self.durable.tables.get(known.oid, known)
        # The table may not have been renamed there yet.
        places = list(dict.fromkeys([loaded.target, known.target]))
        held = self.columns(places, current=True)
        names = next((held[place] for place in places if place in held), ())
        ours = {column.target for state in (loaded, known) for column in state.columns}
        taken = [name for name in names if name.casefold() in wanted and name not in ours]
        return f"the destination has a column {taken[0]} already" if taken else ""

    def _settled(self, known: TableState, table: SourceTable) -> frozenset[int]:
        """Return the new or changed files that are known to have the rows they had before."""
        before, oid = known.fingerprint, table.relation.oid
        moved, attached = table.fingerprint.moved(before), table.fingerprint.attached(before)
        if not (moved or attached):
            return frozenset()
        asked = {oid if leaf == ITSELF else leaf for leaf in moved}
        settled = self.catalog.settled(asked, attached, self.checkpoint.horizon)
        return frozenset(ITSELF if leaf == oid else leaf for leaf in settled)

    def _removable(self, known: TableState, table: SourceTable) -> frozenset[int]:
        """Return the partitions that are gone, if their rows can be removed by their bounds."""
        gone = table.fingerprint.gone(known.fingerprint)
        others = in_the_way(known, table.fingerprint) if gone else None
        if others is None or others - self.catalog.settled((), others, 0):
            return frozenset()
        return gone

    def _note_removal(self, oid: int, gone: frozenset[int]) -> None:
        known = self._removals_before.get(oid)
        if known is None or known.gone != gone:
            known = Removal(gone, self.position())
        self.removals[oid] = known

    def _with_former(self, state: TableState, known: TableState) -> TableState:
        last = known.fingerprint.last_column
        if state.names == known.names and state.fingerprint.last_column == last:
            return state
        # Read after the catalog: what commits later has the columns that the catalog showed.
        former = FormerColumns(known.names, last, until=self.position())
        return replace(state, former=(*known.former, former))

    def _refuses(self, states: States, known: TableState, changes: Sequence[str]) -> bool:
        """Whether `freeze` refuses the changes; the table then stays as it was."""
        if not (self.freeze and changes):
            return False
        self.frozen = True
        reason = f'schema_changes = "freeze" refuses: {", ".join(changes)}'
        waiting = known.needs_snapshot(reason)
        if waiting != known:
            states[known.oid] = waiting
            self._changed = True
        self.to_read.pop(known.oid, None)
        if known.oid not in self.set_aside:
            self.set_aside_table(known.oid, reason)
        return True

    def _must_read(self, states: States, known: TableState, reason: str) -> None:
        self._note(f"{known.table}: {reason}")
        self.to_read.setdefault(known.oid, reason)
        states[known.oid] = known.needs_snapshot(reason)
        self._changed = True

    def _rename_tables(self, states: States) -> None:
        """Follow renamed tables: in place where the name is free, else by reading them again."""
        moved = self._moved(states)
        targets = {oid: self.targets[oid] for oid in moved}
        renames = table_renames(states, targets, self.columns)
        self._steps += renames.possible
        blocked = {rename.old for rename in renames.blocked}
        for oid, state in moved.items():
            named = replace(state, table=self.sources[oid].relation.table, target=self.targets[oid])
            if state.target in blocked:
                reason = "its new name was another table's"
                if state.status is not TableStatus.NEEDS_SNAPSHOT:
                    self.to_read.setdefault(oid, reason)
                    named = named.needs_snapshot(reason)
                named = replace(named, misplaced=True)
            self._changed = True
            states[oid] = named

    def _moved(self, states: States) -> States:
        """Return the renamed tables whose rename is not refused; the others keep their target."""
        moved: States = {}
        for oid, state in list(states.items()):
            if oid not in self.sources or state.status is TableStatus.DROPPED:
                continue
            table = self.sources[oid].relation.table
            if state.table == table:
                continue
            change = f"table {state.table} renamed to {table}"
            waits = oid in self.unfit or oid in self.conflicts
            if waits or self._refuses(states, state, [change]):
                self.targets[oid] = state.target
            else:
                moved[oid] = state
                self._note(f"{state.table}: {change}")
        return moved

    def _note_gone(self, states: States) -> None:
        """Mark tables that are no longer found. Their data stays, unless a table that was created
        again under the same name takes the place."""
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
            # The new table takes the place once it is read.
            if not recreated:
                self._note(f"{state.table}: {_what_became(state, names.get(oid))}; its data stays")
            states[oid] = state.dropped()
            self._changed = True

    def _note_unpublished(self) -> None:
        reported, self.unpublished = self.unpublished, {}
        for oid, table in self.sources.items():
            if table.refused is not None:
                self.unpublished[oid] = table.refused
                if oid not in reported:
                    self.alerts.append(f"{self._name(oid)} is set aside: {table.refused}")

    def _note_conflicts(self, states: States) -> None:
        """Set aside tables whose history cannot have its names, or that have such a name; follow
        those again for which this has changed."""
        before = self.conflicts
        self.conflicts = history_conflicts(self.sources.values(), self.targets, states)
        for oid in before.keys() - self.conflicts.keys():
            if self.set_aside.get(oid) == str(before[oid]):
                del self.set_aside[oid]
        for oid, error in self.conflicts.items():
            known = states.get(oid)
            if known is not None and known.status is not TableStatus.DROPPED:
                waiting = known.needs_snapshot(error.what)
                if waiting != known:
                    states[oid] = waiting
                    self._changed = True
            if oid not in self.set_aside:
                self.set_aside_table(oid, str(error))

    def _name(self, oid: int) -> TableName:
        if oid in self.sources:
            return self.sources[oid].relation.table
        return self.checkpoint.tables[oid].table

    def _note(self, text: str) -> None:
        self.notes[text] = None


def _what_became(state: TableState, now: TableName | None) -> str:
    """What became of a table that the settings no longer find; `now` is its name today."""
    if now is None:
        return "dropped"
    if now == state.table:
        return "excluded, or a partition of another table"
    return f"it is {now} now, which schemas, include and exclude leave out"


def _empty_merge(state: TableState) -> Merge:
    """Return a merge without rows: the destination's table gets the state's columns."""
    target, key = state.target_table, state.target_key
    if key:
        return KeyedMerge(target, key, keyed_schema(target).empty_table())
    return MultisetMerge(target, multiset_schema(target).empty_table(), ())
