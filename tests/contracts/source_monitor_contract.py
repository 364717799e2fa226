"""What every `SourceMonitor` promises; a subclass says which, and over which database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cdc_core.ports.source_monitor import SourceMonitor
    from tests.contracts.sources import SourceUnderTest


class SourceMonitorContract:
    @pytest.fixture
    def db(self) -> SourceUnderTest:
        raise NotImplementedError

    def test_it_sees_what_a_run_under_way_sees_and_blocks_none(self, db: SourceUnderTest) -> None:
        with db.monitor() as monitor:
            assert monitor.slot() is None
            with db.change_source() as source, db.monitor() as other:
                assert monitor.identity() == other.identity() == source.identity()
                point = source.create_slot()
                slot = monitor.slot()
                assert slot is not None
                assert slot.confirmed_flush_lsn == point
                assert slot.name == db.slot_name
                assert not slot.lost
                assert source.drop_slot()
                assert other.slot() is None
        with db.change_source():
            pass

    def test_its_position_follows_the_commits(self, db: SourceUnderTest) -> None:
        oid = db.create_table("t")
        with db.monitor() as monitor:
            before = monitor.current_lsn()
            with db.transaction() as tx:
                tx.insert(oid, 1, "a")
            after = monitor.current_lsn()
            assert after > before
            assert monitor.current_lsn() >= after

    def test_its_clock_is_that_of_the_commits(self, db: SourceUnderTest) -> None:
        oid = db.create_table("t")
        db.catalog().publish()
        with db.monitor() as monitor, db.change_source() as source:
            point, before = source.create_slot(), monitor.now()
            with db.transaction() as tx:
                tx.insert(oid, 1, "a")
            after = monitor.now()
            batches = list(source.read(point, source.current_lsn(), {oid}))
            (committed_at,) = [b.last_committed_at for b in batches if b.changes]
            assert committed_at is not None
            assert before <= committed_at <= after

    def test_it_writes_nothing(self, db: SourceUnderTest) -> None:
        def look(monitor: SourceMonitor) -> None:
            monitor.identity()
            monitor.slot()
            monitor.now()
            monitor.current_lsn()

        with db.change_source() as source:
            source.create_slot()
            with db.monitor() as monitor:
                before = source.slot()
                look(monitor)
                after = source.slot()
        assert before is not None
        assert after is not None
        assert (before.confirmed_flush_lsn, before.restart_lsn) == (
            after.confirmed_flush_lsn,
            after.restart_lsn,
        )
