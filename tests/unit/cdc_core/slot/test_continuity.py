"""When slot and checkpoint speak of one history, and what each break of it is called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_core.ports.change_source import SlotState
from cdc_core.slot.continuity import confirmable, continuity_break, require_checkpoint
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
from cdc_core.values.errors import ContinuityLost, OperatorNeeded
from cdc_core.values.lsn import Lsn

SOURCE = SourceIdentity("77", "shop", "dlt_cdc_slot")
CHECKPOINT = Checkpoint(SOURCE, Lsn(500))
SLOT = SlotState(
    name="dlt_cdc_slot",
    plugin="pgoutput",
    database="shop",
    active_pid=None,
    restart_lsn=Lsn(400),
    confirmed_flush_lsn=Lsn(500),
    wal_status="reserved",
    retained_bytes=0,
    safe_bytes=None,
)


@pytest.mark.parametrize("confirmed", [1, 499, 500])
@pytest.mark.parametrize("status", ["reserved", "extended", "unreserved"])
def test_a_slot_at_or_behind_the_checkpoint_continues(confirmed: int, status: str) -> None:
    slot = replace(SLOT, confirmed_flush_lsn=Lsn(confirmed), wal_status=status)
    assert continuity_break(CHECKPOINT, SOURCE, slot) is None


@pytest.mark.parametrize(
    ("source", "slot", "told"),
    [
        (replace(SOURCE, system_id="78"), SLOT, "cluster 77, this is 78"),
        (replace(SOURCE, database="other"), SLOT, "database 'shop', this is 'other'"),
        (replace(SOURCE, slot_name="s2"), SLOT, "slot 'dlt_cdc_slot', the setting names 's2'"),
        (SOURCE, None, "does not exist"),
        (SOURCE, replace(SLOT, database="other"), "belongs to database 'other'"),
        (SOURCE, replace(SLOT, plugin="", database=""), "is a physical slot"),
        (SOURCE, replace(SLOT, wal_status="lost"), "is lost"),
        (SOURCE, replace(SLOT, restart_lsn=None), "is lost"),
        (SOURCE, replace(SLOT, confirmed_flush_lsn=None), "is lost"),
        (SOURCE, replace(SLOT, confirmed_flush_lsn=Lsn(501)), "0/1F5, past the checkpoint 0/1F4"),
    ],
)
def test_every_break_names_what_happened_and_its_cure(
    source: SourceIdentity, slot: SlotState | None, told: str
) -> None:
    broken = continuity_break(CHECKPOINT, source, slot)
    assert isinstance(broken, ContinuityLost)
    assert told in str(broken)
    assert "pgbronze snapshot" in broken.cure
    assert broken.exit_code == 3


def test_a_slot_with_two_phase_is_refused() -> None:
    broken = continuity_break(CHECKPOINT, SOURCE, replace(SLOT, two_phase=True))
    assert broken is not None
    assert "TWO_PHASE false" in broken.cure
    assert broken.exit_code == 3


def test_without_a_checkpoint_there_is_nothing_to_go_on_from() -> None:
    with pytest.raises(OperatorNeeded, match="run: pgbronze snapshot"):
        require_checkpoint(None)
    assert require_checkpoint(CHECKPOINT) is CHECKPOINT


def test_only_what_is_durable_may_be_confirmed() -> None:
    assert confirmable(CHECKPOINT.advanced(Lsn(600))) == 600
    assert confirmable(CHECKPOINT.advanced(Lsn(400))) == 500


ON_TIMELINE_2 = replace(CHECKPOINT, source=replace(SOURCE, timeline=2))


@pytest.mark.parametrize(
    ("timeline", "left", "told"),
    [
        (2, {}, None),
        (3, {2: Lsn(500)}, None),
        (3, {2: Lsn(501)}, None),
        (3, {2: Lsn(499)}, "is on timeline 2, the source is on 3 and left it at 0/1F3"),
        (3, {}, "the source is on 3 and was never on it"),
        (1, {1: Lsn(900)}, "the source is on 1 and was never on it"),
    ],
)
def test_another_timeline_continues_what_was_loaded_before_it_began(
    timeline: int, left: dict[int, Lsn], told: str | None
) -> None:
    source = replace(SOURCE, timeline=timeline)
    broken = continuity_break(ON_TIMELINE_2, source, SLOT, Lsn(900), left.get)
    assert (broken is None) is (told is None)
    if broken is not None:
        assert isinstance(broken, ContinuityLost)
        assert str(told) in str(broken)


def test_a_timeline_that_is_not_known_is_not_compared() -> None:
    """That of a checkpoint from before timelines were kept, or where nobody can be asked."""
    later = replace(SOURCE, timeline=3)
    assert continuity_break(CHECKPOINT, later, SLOT, Lsn(900), {}.get) is None
    assert continuity_break(ON_TIMELINE_2, later, SLOT, Lsn(900)) is None


@pytest.mark.parametrize(("end", "continues"), [(499, False), (500, True), (501, True)])
def test_a_source_whose_wal_ends_before_the_checkpoint_was_restored(
    end: int, continues: bool
) -> None:
    broken = continuity_break(CHECKPOINT, SOURCE, SLOT, Lsn(end))
    assert (broken is None) is continues
    if broken is not None:
        assert isinstance(broken, ContinuityLost)
        assert "WAL ends at 0/1F3, before the checkpoint 0/1F4" in str(broken)
