"""Check goes on past what cannot be reached, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.fakes import FaultPlan, InMemoryDestination
from cdc_core.errors import DestinationUnavailable, OperatorNeeded
from cdc_core.findings import Level
from cdc_core.use_cases.check_source import CheckSource
from tests.unit.cdc_core.test_source_rules import GOOD
from tests.unit.cdc_core.use_cases.test_convergence import World, build

if TYPE_CHECKING:
    from cdc_core.ports.source_inspector import SourceFacts


@dataclass
class Inspector:
    found: SourceFacts | OperatorNeeded

    def facts(self) -> SourceFacts:
        if isinstance(self.found, OperatorNeeded):
            raise self.found
        return self.found


def check(world: World, found: SourceFacts | OperatorNeeded = GOOD) -> dict[str, Level]:
    destination = InMemoryDestination(world.lake, world.faults)
    findings = CheckSource(Inspector(found), world.source(), destination).run()
    return {found.subject: found.level for found in findings}


def test_every_table_and_both_ends_have_a_line() -> None:
    world, _ = build(1)
    lines = check(world)
    assert set(lines.values()) == {Level.OK}
    assert {"server", "public.keyed", "public.other", "public.heap", "slot slot"} <= lines.keys()
    assert world.lake.checkpoint is None
    assert world.postgres.slot is None


def test_a_source_that_cannot_be_looked_at_is_a_failure_and_the_destination_is_looked_at() -> None:
    world, _ = build(1)
    refused = OperatorNeeded("PostgreSQL 12 is not supported", "upgrade it to 14 or newer")
    assert check(world, refused) == {"source": Level.FAIL, "destination": Level.OK}


def test_a_destination_that_is_gone_is_a_failure() -> None:
    world, _ = build(1)
    world.faults = FaultPlan(named={"destination.open": DestinationUnavailable("gone")})
    lines = check(world)
    assert lines["destination"] is Level.FAIL
    assert lines["server"] is Level.OK
