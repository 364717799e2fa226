"""Check source and destination for problems before a run; change nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdc_core.check.findings import Finding, fail, ok
from cdc_core.check.source_rules import continuity_findings, source_findings, unknown_continuity
from cdc_core.check.table_rules import passed_over_findings, rules_findings, tables_findings
from cdc_core.tables.selection import require_schemas
from cdc_core.tables.table_rules import NO_RULE_SET, RuleSet
from cdc_core.values.errors import CdcError, PoolerInFront, RulesError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cdc_core.ports.catalog import Catalog
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.source_inspector import SourceFacts, SourceInspector
    from cdc_core.values.checkpoint import Checkpoint, TableState


@dataclass
class _Reached:
    """The destination, as far as it could be read. Without `read`, a checkpoint may exist."""

    findings: list[Finding] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    read: bool = False


@dataclass(frozen=True)
class CheckSource:
    """Checks source and destination. A side that cannot be reached is a finding like any other.

    Writes a table to the destination to check its privileges, and drops it.
    """

    inspector: SourceInspector
    catalog: Catalog
    destination: Destination
    first_schema: str = "public"
    max_retained_wal: int | None = None
    rules: RuleSet = NO_RULE_SET

    def run(self) -> list[Finding]:
        """Return findings in the order in which to fix them: source, tables, destination."""
        facts = self._facts()
        destination = self._destination()
        if isinstance(facts, Finding):
            return [facts, *destination.findings]
        checkpoint = destination.checkpoint
        findings = list(source_findings(facts))
        findings += self._tables(facts, checkpoint.tables if checkpoint else {})
        findings += (
            continuity_findings(facts, checkpoint, self.max_retained_wal)
            if destination.read
            else unknown_continuity(facts)
        )
        return [*findings, *destination.findings]

    def _facts(self) -> SourceFacts | Finding:
        try:
            return self.inspector.facts()
        except PoolerInFront:
            raise  # every command ends here
        except CdcError as error:
            return fail("source", error.what, error.cure)

    def _tables(self, facts: SourceFacts, states: Mapping[int, TableState]) -> Iterator[Finding]:
        try:
            require_schemas(self.catalog.schemas_found(), states, self.catalog.names)
            tables, passed_over = self.catalog.tables(), self.catalog.passed_over()
        except RulesError:
            raise  # every command ends here
        except CdcError as error:
            yield fail("tables", error.what, error.cure)
            return
        naming = self.destination.naming
        yield from tables_findings(tables, facts, self.first_schema, states, naming)
        yield from passed_over_findings(passed_over)
        yield from rules_findings(self.rules, tables)

    def _destination(self) -> _Reached:
        """Read the checkpoint first, so that later failures do not hide it."""
        reached = _Reached()
        try:
            with self.destination as destination:
                reached.checkpoint, reached.read = destination.read_checkpoint(), True
                reached.findings.append(self._tables_there(destination, reached.checkpoint))
                reached.findings.append(self._rights(destination))
        except CdcError as error:
            reached.findings.append(fail("destination", error.what, error.cure))
        return reached

    @staticmethod
    def _tables_there(destination: Destination, checkpoint: Checkpoint | None) -> Finding:
        at = f"checkpoint {checkpoint.lsn}" if checkpoint else "no checkpoint yet"
        try:
            tables = destination.tables()
        except CdcError as error:
            return fail("destination", f"reached, {at}; its tables: {error.what}", error.cure)
        return ok("destination", f"reached and read: {len(tables)} tables, {at}")

    @staticmethod
    def _rights(destination: Destination) -> Finding:
        try:
            destination.try_writing()
        except CdcError as error:
            return fail("destination rights", error.what, error.cure)
        return ok("destination rights", "created, wrote and dropped a table")
