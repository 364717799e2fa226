"""Check goes on past what cannot be reached, and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.fakes import FaultPlan, InMemoryDestination
from cdc_core.check.findings import Finding, Level
from cdc_core.check.source_rules import continuity_findings
from cdc_core.use_cases.check_source import CheckSource
from cdc_core.values.checkpoint import Checkpoint
from cdc_core.values.errors import DestinationFailed, DestinationUnavailable, OperatorNeeded
from tests.support.fake_world import World, build


def _findings(world: World) -> list[Finding]:
    source, destination = world.source(), InMemoryDestination(world.lake, world.faults)
    return CheckSource(source, source, destination).run()


def check(world: World) -> dict[str, Level]:
    return {found.subject: found.level for found in _findings(world)}


def test_every_table_and_both_ends_have_a_line() -> None:
    world, _ = build(1)
    for _ in ("before the snapshot", "after it"):
        before = (world.lake.checkpoint, world.postgres.slot, world.postgres.lsn)
        lines = check(world)
        assert set(lines.values()) == {Level.OK}
        wanted = {"server", "public.keyed", "public.other", "public.heap", "slot dlt_cdc_slot"}
        assert wanted <= lines.keys()
        assert (world.lake.checkpoint, world.postgres.slot, world.postgres.lsn) == before
        world.snapshot()


def test_a_lost_slot_is_a_failure() -> None:
    world, _ = build(1)
    world.snapshot()
    world.postgres.slot = None
    assert check(world)["slot dlt_cdc_slot"] is Level.FAIL


def test_an_unreachable_source_is_a_failure_and_the_destination_is_still_checked() -> None:
    world, _ = build(1)
    refused = OperatorNeeded("PostgreSQL 12 is not supported", "upgrade it to 14 or newer")
    world.faults = FaultPlan(named={"source.facts": refused})
    assert check(world) == {
        "source": Level.FAIL,
        "destination": Level.OK,
        "destination rights": Level.OK,
    }


def test_a_destination_that_may_not_be_written_is_a_failure() -> None:
    world, _ = build(1)
    refused = DestinationFailed("may not create tables", "GRANT CREATE TABLE")
    world.faults = FaultPlan(named={"destination.try_writing": refused})
    lines = check(world)
    assert lines["destination"] is Level.OK
    assert lines["destination rights"] is Level.FAIL
    assert lines["server"] is Level.OK


def test_a_destination_that_is_gone_is_a_failure() -> None:
    world, _ = build(1)
    world.faults = FaultPlan(named={"destination.open": DestinationUnavailable("gone")})
    lines = check(world)
    assert lines["destination"] is Level.FAIL
    assert lines["server"] is Level.OK


def test_tables_that_cannot_be_counted_say_nothing_of_the_checkpoint() -> None:
    world, _ = build(1)
    world.snapshot()
    refused = DestinationFailed("counting rows: it failed", "mend it")
    world.faults = FaultPlan(named={"destination.tables": refused})
    findings = {found.subject: found for found in _findings(world)}
    assert findings["slot dlt_cdc_slot"].level is Level.OK
    assert "continues the checkpoint" in findings["slot dlt_cdc_slot"].sentence
    assert findings["destination"].level is Level.FAIL
    assert "reached, checkpoint " in findings["destination"].sentence
    assert findings["destination rights"].level is Level.OK


@pytest.mark.parametrize("call", ["destination.open", "destination.read_checkpoint"])
@pytest.mark.parametrize("slot", [True, False])
def test_a_checkpoint_that_cannot_be_read_is_not_a_missing_one(call: str, *, slot: bool) -> None:
    """Nor is the slot that a checkpoint may need one that a snapshot is yet to create."""
    world, _ = build(1)
    world.snapshot()
    if not slot:
        world.postgres.slot = None
    world.faults = FaultPlan(named={call: DestinationUnavailable("gone")})
    (found,) = (found for found in _findings(world) if found.subject == "slot dlt_cdc_slot")
    assert found.level is Level.WARN
    assert "not known, because the destination's checkpoint could not be read" in found.sentence
    assert "creates" not in found.sentence + found.cure


def test_a_source_without_identity_does_not_continue_the_checkpoint() -> None:
    world, _ = build(1)
    world.snapshot()
    facts, checkpoint = world.source().facts(), Checkpoint.from_state(world.lake.checkpoint or {})
    (found,) = continuity_findings(replace(facts, identity=None), checkpoint)
    assert "not known, because the source's identity could not be read" in found.sentence
