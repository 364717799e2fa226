"""Show status: slot, checkpoint, lag and tables, without changing anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdc_core.slot.continuity import continuity_break
from cdc_core.slot.wal_budget import budget_warning, nearest_limit
from cdc_core.tables.history_conflicts import history_conflicts
from cdc_core.tables.schema_change import RULES_CHANGED, rules_changed
from cdc_core.tables.table_rules import rules_shown
from cdc_core.tables.target_names import target_names
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.errors import CdcError, ContinuityLost

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cdc_core.ports.catalog import Catalog, PassedOver, SourceTable
    from cdc_core.ports.change_source import SlotState
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.source_monitor import SourceMonitor
    from cdc_core.slot.wal_budget import WalUse
    from cdc_core.values.checkpoint import Checkpoint, SourceIdentity, TableState
    from cdc_core.values.lsn import Lsn


@dataclass(frozen=True)
class TableLine:
    """`rows` are live rows. `deleted_rows` are those that soft deletes keep; None without them."""

    table: str
    target: str
    state: str
    reason: str
    rows: int | None
    dropped_columns: tuple[str, ...] = ()
    #: The rules of the settings that are not the default; see `rules_shown`.
    rules: Mapping[str, Any] = field(default_factory=dict)
    deleted_rows: int | None = None


@dataclass(frozen=True)
class StatusReport:
    """`lag_bytes` is the WAL written since the checkpoint. `lag_seconds` is the age of its last
    commit by the source's clock; 0 without lag."""

    source: SourceIdentity
    slot: SlotState | None
    checkpoint: Checkpoint | None
    current_lsn: Lsn
    lag_bytes: int | None
    lag_seconds: float | None
    problem: str
    tables: Sequence[TableLine]
    #: How much WAL the slot retains, once that is most of what it may; why rows are not counted.
    warning: str = ""
    #: What is in the schemas and no run reads.
    passed_over: Sequence[PassedOver] = ()
    #: The WAL that the slot retains, against its nearest limit; None without a limit.
    wal_use: WalUse | None = None


@dataclass(frozen=True)
class ShowStatus:
    monitor: SourceMonitor
    catalog: Catalog
    destination: Destination
    max_retained_wal: int | None = None
    first_schema: str = "public"

    def run(self) -> StatusReport:
        with self.monitor, self.destination:
            identity, slot = self.monitor.identity(), self.monitor.slot()
            now, current = self.monitor.now(), self.monitor.current_lsn()
            checkpoint = self.destination.read_checkpoint()
            found = {table.relation.oid: table for table in self.catalog.tables()}
            passed_over = self.catalog.passed_over()
            states = checkpoint.tables if checkpoint else {}
            marking = {state.target for state in states.values() if state.soft_deletes}
            rows, marked, uncounted = self._count(marking)
            broken = checkpoint and continuity_break(
                checkpoint, identity, slot, current, self.monitor.left_timeline
            )
        if checkpoint is None:
            problem = "no snapshot was taken yet; run: pgbronze snapshot"
            lag_bytes = lag_seconds = None
        else:
            problem = str(broken) if broken else ""
            lag_bytes = max(0, current - checkpoint.lsn)
            behind = checkpoint.committed_at is not None and lag_bytes > 0
            lag_seconds = max(0.0, (now - (checkpoint.committed_at or 0)) / 1e6) if behind else 0.0
        waiting = self._waiting(found, states)
        lost = isinstance(broken, ContinuityLost)
        lines = [
            TableLine(
                str(state.table), state.target, _status(state, lost=lost).value,
                waiting.get(oid) or _reason(state, found.get(oid)),
                _live(rows.get(state.target), marked.get(state.target, 0)),
                tuple(c.name for c in state.stored if c.dropped),
                rules_shown(found[oid]) if oid in found else {},
                marked.get(state.target),
            )
            for oid, state in states.items()
        ]  # fmt: skip
        lines += [
            TableLine(
                str(table.relation.table),
                "",
                "not loaded yet",
                waiting.get(oid, table.not_streamed),
                None,
                rules=rules_shown(table),
            )
            for oid, table in found.items()
            if oid not in states
        ]
        lines.sort(key=lambda line: line.table)
        warnings = [budget_warning(slot, self.max_retained_wal) if slot is not None else ""]
        warning = "; ".join(filter(None, [*warnings, uncounted]))
        return StatusReport(
            identity, slot, checkpoint, current, lag_bytes, lag_seconds, problem, lines, warning,
            passed_over, nearest_limit(slot, self.max_retained_wal) if slot is not None else None,
        )  # fmt: skip

    def _waiting(
        self, found: Mapping[int, SourceTable], states: Mapping[int, TableState]
    ) -> Mapping[int, str]:
        """Why tables wait for a name, by oid."""
        names = {oid: table.relation.table for oid, table in found.items()}
        targets = target_names(names, states, self.first_schema, self.destination.naming)
        conflicts = history_conflicts(found.values(), targets, states)
        return {oid: str(error) for oid, error in conflicts.items()}

    def _count(self, marking: Collection[str]) -> tuple[Mapping[str, int], Mapping[str, int], str]:
        """Rows by table, those that are marked as deleted in the tables `marking`, and why they
        could not be counted: that stops nothing else."""
        try:
            rows = self.destination.tables()
            return rows, self.destination.marked_rows(marking) if marking else {}, ""
        except CdcError as error:
            return {}, {}, f"rows were not counted: {error}"


def _live(rows: int | None, marked: int) -> int | None:
    # A run may have written between the two counts.
    return None if rows is None else max(0, rows - marked)


def _reason(state: TableState, table: SourceTable | None) -> str:
    if table is not None and not state.reason and rules_changed(state, table):
        return f"{RULES_CHANGED}; cdc reads it again"
    return state.reason


def _status(state: TableState, *, lost: bool) -> TableStatus:
    """What the checkpoint says, unless its history is gone: then nothing streams."""
    streaming = state.status is TableStatus.STREAMING
    return TableStatus.NEEDS_SNAPSHOT if lost and streaming else state.status
