"""Check goes on past what cannot be reached, and changes nothing."""

from __future__ import annotations

from adapters.fakes import FaultPlan, InMemoryDestination
from cdc_core.errors import DestinationFailed, DestinationUnavailable, OperatorNeeded
from cdc_core.findings import Level
from cdc_core.use_cases.check_source import CheckSource
from tests.unit.cdc_core.use_cases.test_convergence import World, build


def check(world: World) -> dict[str, Level]:
    source, destination = world.source(), InMemoryDestination(world.lake, world.faults)
    findings = CheckSource(source, source, destination).run()
    return {found.subject: found.level for found in findings}


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


def test_a_source_that_cannot_be_looked_at_is_a_failure_and_the_destination_is_looked_at() -> None:
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
    # Of the slot it is not known then what becomes of it.
    assert "slot dlt_cdc_slot" not in lines
