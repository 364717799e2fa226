"""The plan of each table: its columns at both ends, and the definitions that it would get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdc_core.plan.plan import Action, LeftOutColumn, PlannedColumn, PlannedTable
from cdc_core.tables.losses import losses
from cdc_core.tables.schema_change import first_state, state_when_read
from cdc_core.tables.table_rules import rules_shown
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.lsn import ZERO_LSN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from cdc_core.plan.definitions import HeldTables, TypeName
    from cdc_core.plan.plan import Definition
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.source_inspector import TableFacts
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.errors import CdcError


@dataclass(frozen=True)
class TablePlanner:
    """Plans single tables.

    `refusals` are the errors of the tables that cannot be read, by oid. `renamed` are the renames
    that come before anything else; `held` are the destination's tables after them.
    """

    type_of: TypeName
    facts: Mapping[int, TableFacts]
    refusals: Mapping[int, CdcError]
    held: HeldTables
    renamed: Sequence[Definition]

    def read(
        self, table: SourceTable, target: str, before: TableState | None, why: str
    ) -> PlannedTable:
        """Plan a table that is read whole; `before` is None if the checkpoint does not know it."""
        refusal = self.refusals.get(table.relation.oid)
        if refusal is not None:
            return self.set_aside(table, target, str(refusal), before)
        state, renames = state_when_read(before, table, target, ZERO_LSN)
        definitions = (
            *self.held.rename(renames),
            *self.held.history(before, state),
            self.held.replace(state),
        )
        notes = [
            f"column {column} was dropped at the source: after the read it holds NULL"
            for column in state.dropped_columns
        ]
        if table.not_streamed:
            notes.append(f"later changes are not streamed: {table.not_streamed}")
        planned = self._planned(table, state, Action.READ, why)
        return replace(
            planned,
            definitions=(*planned.definitions, *definitions),
            notes=(*planned.notes, *notes),
            rows=max(0, table.estimated_rows),
            bytes=max(0, table.total_bytes),
            history=tuple(filter(None, (state.log, state.versions))),
        )

    def stream(
        self, table: SourceTable, state: TableState, before: TableState | None, reason: str
    ) -> PlannedTable:
        """Plan a streamed table; `before` is its former state if its definition has changed."""
        planned = self._planned(table, state, Action.STREAM, reason)
        fitted = tuple(self.held.fit(before, state, self.type_of)) if before else ()
        return replace(planned, definitions=(*planned.definitions, *fitted))

    def stay(
        self, table: SourceTable, target: str, why: str, state: TableState | None
    ) -> PlannedTable:
        """Plan a table that is not streamed and was read before."""
        return self._planned(table, state or first_state(table, target, ZERO_LSN), Action.STAY, why)

    def set_aside(
        self, table: SourceTable, target: str, why: str, state: TableState | None = None
    ) -> PlannedTable:
        """Plan a table that waits for an operator."""
        known = state or first_state(table, target, ZERO_LSN)
        return self._planned(table, known, Action.SET_ASIDE, why)

    def gone(
        self, states: Mapping[int, TableState], taken: Collection[str]
    ) -> Iterator[PlannedTable]:
        """Plan the tables that the source no longer has, unless another takes the place."""
        for state in states.values():
            if state.status is TableStatus.DROPPED and state.target not in taken:
                yield PlannedTable(str(state.table), state.target, Action.STAY, state.reason)

    def _planned(
        self, table: SourceTable, state: TableState, action: Action, why: str
    ) -> PlannedTable:
        known = self.facts.get(table.relation.oid)
        notes = []
        if known is not None and known.row_filter:
            notes.append(f"only rows that the publication sends: WHERE {known.row_filter}")
        return PlannedTable(
            table=str(table.relation.table),
            target=state.target,
            action=action,
            reason=why,
            columns=tuple(self._columns(table, state)),
            left_out=(*_excluded(table), *(_left_out(known) if known else ())),
            dropped_columns=state.dropped_columns,
            definitions=tuple(d for d in self.renamed if d.table == state.target),
            notes=tuple(notes),
            rules=rules_shown(table),
        )

    def _columns(self, table: SourceTable, state: TableState) -> Iterator[PlannedColumn]:
        """Yield the source's columns; a table that is set aside may not have all of them yet."""
        targets = {
            column.attnum: column.target
            for column in state.columns
            if column.rule.is_stored and not column.dropped
        }
        held, key = state.target_table, {*table.relation.key}
        for column in table.relation.columns:
            target = targets.get(column.attnum)
            if target is None:
                continue
            yield PlannedColumn(
                name=column.name,
                type=column.pg_type,
                target=target,
                target_type=self.type_of(
                    held.schema.field(target), variant=target in held.variants
                ),
                key=column.name in key,
                losses=tuple(losses(column)),
            )


def _excluded(table: SourceTable) -> Iterator[LeftOutColumn]:
    for column in table.relation.columns:
        if not column.rule.is_stored:
            yield LeftOutColumn(column.name, "the rules of the table exclude it")


def _left_out(known: TableFacts) -> Iterator[LeftOutColumn]:
    for name in known.unlisted_columns:
        yield LeftOutColumn(name, "the publication's column list omits it")
    for name in known.generated_columns:
        virtual = name in known.virtual_columns
        why = (
            "a virtual generated column, which no version of PostgreSQL sends"
            if virtual
            else "a generated column, which the publication does not send"
        )
        yield LeftOutColumn(name, why)
