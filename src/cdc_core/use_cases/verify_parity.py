"""Verify parity: compare source and destination table by table, and repair rows that differ."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.full_load.read_tables import read_tables
from cdc_core.ports.progress import (
    Checkpointed,
    ChunkRead,
    Listeners,
    Progress,
    TableFinished,
    TableRepaired,
    TableStarted,
)
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.runs.recorder import RunRecorder
from cdc_core.slot.continuity import continuity_break, require_checkpoint
from cdc_core.tables.history_of_rows import has_history
from cdc_core.tables.schema_change import RULES_CHANGED, evolve, redefined, rules_changed
from cdc_core.tables.selection import choose_tables
from cdc_core.values.changes import Operations
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.errors import (
    CdcError,
    DestinationFailed,
    DestinationUnavailable,
    OperatorNeeded,
    SourceUnavailable,
)
from cdc_core.values.relation import tables_option
from cdc_core.verify.compare_table import TableSides
from cdc_core.verify.differing_keys import differing_keys
from cdc_core.verify.repair_table import RepairTable
from cdc_core.verify.report import DifferingKey, ParityReport, TableParity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.ports.catalog import Catalog, SourceTable
    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.snapshot_source import Snapshot, SnapshotSource
    from cdc_core.values.checkpoint import Checkpoint, TableState
    from cdc_core.verify.parity import Digest

#: How many keys are named per table; the counts are always complete.
KEY_LIMIT = 1000

#: How many tables the source may start to read ahead.
EXPECTED_TABLES = 50


@dataclass(frozen=True)
class VerifyParity:
    """Compares one snapshot of the source with the destination, while no other run writes to it.

    Each side is read once, and again where rows differ, to name their keys. Memory does not grow
    with the tables.
    """

    source: ChangeSource
    catalog: Catalog
    snapshots: SnapshotSource
    destination: Destination
    progress: Progress = field(default_factory=Listeners)
    key_limit: int = KEY_LIMIT
    runs: RunRecorder = field(default_factory=RunRecorder)

    def run(self, tables: Sequence[str] = (), *, repair: bool = False) -> ParityReport:
        """Compare the tables that match the globs; without globs, every table found. A table that
        cannot be compared does not stop the others.

        With `repair`, rows that differ are rewritten to match the source as of the snapshot, and
        nothing else is written. The checkpoint's position stays, and so does the slot's.
        """
        with (
            self.source,
            self.destination,
            self.runs.run("verify", self.source, self.destination) as run,
        ):
            report = self._run(tables, repair=repair)
            run.exit_code = report.exit_code
            run.error = report.summary
            return report

    def _run(self, tables: Sequence[str], *, repair: bool) -> ParityReport:
        found = self.destination.read_checkpoint()
        self.progress.emit(Checkpointed(found))
        checkpoint = require_checkpoint(found)
        source = self.source
        broken = continuity_break(
            checkpoint, source.identity(), source.slot(), source.current_lsn(),
            source.left_timeline,
        )  # fmt: skip
        if broken is not None and repair:
            raise broken
        chosen = choose_tables(self.catalog.tables(), tables)
        with self.snapshots.begin(create_slot=False) as snapshot:
            lines = self._compare_all(chosen, checkpoint, snapshot, repair=repair)
            lsn = snapshot.lsn
        return ParityReport(checkpoint.lsn, lsn, lines, str(broken) if broken else "")

    def _compare_all(
        self,
        tables: Sequence[SourceTable],
        checkpoint: Checkpoint,
        snapshot: Snapshot,
        *,
        repair: bool,
    ) -> list[TableParity]:
        lines: list[TableParity] = []
        expected = 0
        for number, table in enumerate(tables):
            if not expected:
                following = tables[number : number + EXPECTED_TABLES]
                snapshot.expect([(each.relation, WHOLE) for each in following])
                expected = len(following)
            line, checkpoint = self._table(table, checkpoint, snapshot, repair=repair)
            lines.append(line)
            # Reading a table twice, to name its rows, cancels what is expected, as an error does.
            cancelled = line.differing or not line.compared
            expected = 0 if cancelled else expected - 1
        return lines

    def _table(
        self, table: SourceTable, checkpoint: Checkpoint, snapshot: Snapshot, *, repair: bool
    ) -> tuple[TableParity, Checkpoint]:
        name = str(table.relation.table)
        self.progress.emit(TableStarted(name, table.estimated_rows))
        try:
            return self._compared(table, checkpoint, snapshot, repair=repair)
        except (SourceUnavailable, DestinationUnavailable):
            raise  # every other table would fail too
        except (CdcError, pa.ArrowException) as error:
            # For example a missing privilege, or a column that somebody dropped or changed.
            state = checkpoint.tables.get(table.relation.oid)
            line = TableParity(
                name,
                state.target if state else "",
                problem=_failure(name, error),
                compared=False,
                refused=isinstance(error, OperatorNeeded),
            )
            if repair:
                # An unfinished repair has marked the table to be read again.
                checkpoint = require_checkpoint(self.destination.read_checkpoint())
            return line, checkpoint
        finally:
            self.progress.emit(TableFinished(name))

    def _compared(
        self, table: SourceTable, checkpoint: Checkpoint, snapshot: Snapshot, *, repair: bool
    ) -> tuple[TableParity, Checkpoint]:
        name = str(table.relation.table)
        state = checkpoint.tables.get(table.relation.oid)
        if state is None:
            rows = 0
            for chunk in snapshot.read(table.relation):
                self._read(name, chunk.rows)
                rows += len(chunk.rows)
            problem = "not loaded yet; run: pgbronze cdc"
            return TableParity(name, "", rows, missing=rows, problem=problem), checkpoint
        sides = TableSides(snapshot, self.destination, table, state)
        digests = sides.digests(lambda rows: self._read(name, rows))
        source, target = digests
        line = TableParity(name, state.target, source.rows, target.rows, note=_note(table, state))
        repairing, again = None, False
        if repair and source.differing(target).any():
            refused = _refusal(table, state, sides) or self._changed(table)
            if refused:
                line = replace(line, note=refused)
            elif has_history(state) or not sides.pairing.target:
                again = True
            else:
                repairing = RepairTable(sides, checkpoint)
                repairing.begin()
        line = self._count_differences(line, sides, digests, repairing)
        if again:
            return self._read_again(line, table, sides, checkpoint)
        if repairing is None:
            return line, checkpoint
        return self._finish(line, table, repairing)

    def _read_again(
        self, line: TableParity, table: SourceTable, sides: TableSides, checkpoint: Checkpoint
    ) -> tuple[TableParity, Checkpoint]:
        """Repair a table by replacing all rows.

        Rows without columns cannot be identified one by one. A history gets the exact difference
        only this way: the repair of single rows can miss a change that somebody made both at the
        source and in the table.
        """
        checkpoint, counts = read_tables(
            sides.snapshot, [(table, sides.state.target)], self.catalog.tables, self.destination,
            checkpoint, self.progress,
        )  # fmt: skip
        for error in counts.refused.values():
            raise error
        state = checkpoint.tables[table.relation.oid]
        source, target = TableSides(sides.snapshot, self.destination, table, state).digests()
        if source.differing(target).any() or counts.unsteady:
            line = replace(line, note="the repair did not hold; cdc reads the table again")
            return line, checkpoint
        return replace(line, repaired=True), checkpoint

    def _read(self, table: str, rows: pa.Table) -> None:
        self.progress.emit(ChunkRead(table, len(rows), rows.nbytes))

    def _count_differences(
        self,
        line: TableParity,
        sides: TableSides,
        digests: tuple[Digest, Digest],
        repairing: RepairTable | None,
    ) -> TableParity:
        """Count the rows that differ, name their keys, and repair them."""
        keys: list[DifferingKey] = []
        for found in sides.differences(*digests):
            line = replace(
                line,
                missing=line.missing + int(found.missing_copies.sum()),
                extra=line.extra + int(found.extra_copies.sum()),
                different=line.different + len(found.different),
            )
            if sides.pairing.key and len(keys) < self.key_limit:
                keys += differing_keys(sides, found, self.key_limit - len(keys))
            if repairing is not None:
                repairing.repair(found)
        return replace(line, keys=tuple(keys), problem=_problem(sides))

    def _finish(
        self, line: TableParity, table: SourceTable, repairing: RepairTable
    ) -> tuple[TableParity, Checkpoint]:
        """Compare once more, and mark the table as repaired if both sides are equal."""
        source, target = repairing.sides.digests()
        if source.differing(target).any() or self._changed(table):
            note = "the repair did not hold; cdc reads the table again"
            return replace(line, note=note), repairing.checkpoint
        done = Operations(inserts=line.missing, updates=line.different, deletes=line.extra)
        self.progress.emit(TableRepaired(line.table, done))
        return replace(line, repaired=True), repairing.finish(table)

    def _changed(self, table: SourceTable) -> str:
        """Why the rows read may not be the table's: its definition changed meanwhile."""
        if not redefined([table], self.catalog.tables([table.relation.oid])):
            return ""
        name = table.relation.table
        return f"not repaired: the definition of {name} changed; run: pgbronze cdc"


def _failure(name: str, error: Exception) -> str:
    """Why a table was not compared, and the cure. Omits Arrow's text, which may contain values."""
    again = f"run: pgbronze snapshot {tables_option([name])}"
    match error:
        case DestinationFailed():
            return f"{error.what}; {again}"
        case CdcError():
            return str(error)
        case _:
            return (
                f"its columns in the destination have other types ({type(error).__name__}); {again}"
            )


def _note(table: SourceTable, state: TableState) -> str:
    match state.status:
        case TableStatus.STREAMING:
            return f"not streamed: {table.not_streamed}" if table.not_streamed else ""
        case TableStatus.NOT_STREAMED:
            return f"not streamed: {state.reason}"
        case TableStatus.NEEDS_SNAPSHOT:
            return f"set aside: {state.reason}; cdc reads it again"
        case TableStatus.DROPPED:
            return "was dropped or excluded; cdc reads it again"


def _problem(sides: TableSides) -> str:
    problems = list(sides.other_types.values())
    if rules_changed(sides.state, sides.table):
        problems.append(f"{RULES_CHANGED} since it was read; run: pgbronze cdc")
    if sides.pairing.lacking:
        name = str(sides.table.relation.table)
        streamed = not sides.table.not_streamed
        command = "cdc" if streamed else f"snapshot {tables_option([name])}"
        problems.append(
            f"not in the destination yet: {', '.join(sides.pairing.lacking)}; "
            f"run: pgbronze {command}"
        )
    return "; ".join(problems)


def _refusal(table: SourceTable, state: TableState, sides: TableSides) -> str:
    """Why the rows of the table cannot be repaired one by one; empty if they can."""
    name = table.relation.table
    if state.table != name or rules_changed(state, table) or evolve(state, table).changes:
        return f"not repaired: the definition of {name} changed since; run: pgbronze cdc"
    if sides.other_types:
        return (
            f"not repaired: its types differ; run: pgbronze snapshot {tables_option([str(name)])}"
        )
    return ""
