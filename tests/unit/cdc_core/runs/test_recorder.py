"""When a run writes receipts, and what they hold, on the fakes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from adapters.fakes import (
    FaultPlan,
    InjectedCrash,
    InMemoryDestination,
    ManualClock,
    RecordedProgress,
)
from cdc_core.ports.progress import Listeners, RunEnded, RunStarted
from cdc_core.runs.recorder import FORGET_SECONDS, RECEIPT_SECONDS, RunRecorder
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.values.errors import DestinationFailed, DestinationUnavailable, OperatorNeeded
from tests.support.fake_world import COLUMNS, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_core.values.runs import RunReceipt

START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


@dataclass
class Recorded:
    """A world whose runs are recorded by a clock held by hand."""

    world: World = field(default_factory=World)
    clock: ManualClock = field(default_factory=ManualClock)
    heard: RecordedProgress = field(default_factory=RecordedProgress)

    def __post_init__(self) -> None:
        self.table = self.world.postgres.create_table("keyed", COLUMNS)
        self.world.postgres.published.add(self.table)
        self.world.snapshot()
        self.written = 0

    def insert(self, rows: int = 1) -> None:
        with self.world.postgres.transaction() as tx:
            for _ in range(rows):
                self.written += 1
                tx.insert(self.table, id=self.written, n=0, big=None)

    def cdc(self, *, stop: Callable[[], bool] | None = None) -> None:
        source, progress = self.world.source(), Listeners(self.heard)
        lake = InMemoryDestination(self.world.lake, self.world.faults)
        runs = RunRecorder(
            progress,
            receipts=True,
            keep_days=1,
            version="v",
            clock=self.clock,
            now=lambda: START + dt.timedelta(seconds=self.clock.now),
            peak_memory=lambda: 5,
        )
        stream = StreamChanges(
            source, source, source, lake, clock=self.clock, progress=progress, runs=runs
        )
        stream.run(follow=stop is not None, stop=stop or (lambda: False))

    @property
    def receipts(self) -> list[RunReceipt]:
        return self.world.lake.receipts


def test_a_run_that_follows_writes_a_row_a_minute_while_there_is_something_to_report() -> None:
    run = Recorded()
    minutes = iter(range(1, 100))
    minute = next(minutes)

    def stop() -> bool:
        """Changes in the second and the third minute, none in any other."""
        nonlocal minute
        if run.clock.now >= minute * RECEIPT_SECONDS:
            if minute in (1, 2):
                run.insert(minute)
            minute = next(minutes)
        return run.clock.now > 6 * RECEIPT_SECONDS

    run.insert(5)
    run.cdc(stop=stop)
    rows = [
        (r.seq, r.exit_code, r.inserts, r.transactions, r.tables, r.batches) for r in run.receipts
    ]
    assert rows == [
        (0, None, 5, 1, 1, 1),
        (1, None, 1, 1, 1, 1),
        (2, None, 2, 1, 1, 1),
        (3, 0, 0, 0, 0, 0),
    ]
    assert len({r.run_id for r in run.receipts}) == 1
    assert {r.started_at for r in run.receipts} == {START}
    for before, after in zip(run.receipts, run.receipts[1:], strict=False):
        assert after.from_lsn == before.to_lsn
        assert after.ended_at - before.ended_at >= dt.timedelta(seconds=RECEIPT_SECONDS)
    named = [(t.seq, t.table_name, t.target, t.inserts) for t in run.world.lake.run_tables]
    assert named == [(n, "public.keyed", "keyed", count) for n, count in ((0, 5), (1, 1), (2, 2))]
    assert sum(r.statements for r in run.receipts) > 0


def test_a_backlog_is_reported_while_it_is_loaded() -> None:
    run = Recorded()
    run.world.batch_transactions = 1
    for _ in range(4):
        run.insert()
    seen: list[int] = []

    class Slow:
        def emit(self, event: object) -> None:
            if type(event).__name__ == "BatchLoaded":
                run.clock.pass_time(RECEIPT_SECONDS)
                seen.append(len(run.receipts))

    run.heard = Slow()  # type: ignore[assignment]
    run.cdc(stop=lambda: len(seen) == 4)
    assert seen == [0, 1, 2, 3]
    assert [r.inserts for r in run.receipts] == [1, 1, 1, 1, 0]
    lags = [r.lag_bytes or 0 for r in run.receipts]
    assert lags == sorted(lags, reverse=True)
    assert lags[0] > 0


def test_a_killed_run_leaves_what_it_wrote() -> None:
    run = Recorded()
    run.insert()

    def stop() -> bool:
        if run.clock.now > 3 * RECEIPT_SECONDS:
            raise InjectedCrash
        return False

    with pytest.raises(InjectedCrash):
        run.cdc(stop=stop)
    assert [(r.seq, r.exit_code, r.inserts) for r in run.receipts] == [(0, None, 1)]
    run.world.postgres.writer = None
    run.cdc()
    assert [r.seq for r in run.receipts] == [0, 0]
    assert len({r.run_id for r in run.receipts}) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperatorNeeded("what", "cure"), (3, "what; cure")),
        (DestinationFailed("what", "cure"), (1, "what; cure")),
        (ValueError("a row's value"), (1, "unexpected ValueError")),
        (DestinationUnavailable("gone"), None),
    ],
)
def test_an_error_is_in_the_last_row_unless_the_destination_is_gone(
    error: Exception, expected: tuple[int, str] | None
) -> None:
    run = Recorded()
    run.insert()
    run.world.faults = FaultPlan(named={"destination.load": error})
    with pytest.raises(type(error)):
        run.cdc()
    rows = [(r.exit_code, r.error) for r in run.receipts]
    assert rows == ([] if expected is None else [expected])
    started, ended = (e for e in run.heard.events if isinstance(e, RunStarted | RunEnded))
    assert started == RunStarted("cdc")
    assert isinstance(ended, RunEnded)
    assert ended.exit_code == (1 if expected is None else expected[0])


@pytest.mark.parametrize("refused", [DestinationFailed("no table can be made"), KeyError("value")])
def test_a_receipt_that_is_refused_is_warned_of_once_and_its_counts_come_later(
    refused: Exception,
) -> None:
    run = Recorded()
    times = iter((refused, refused))

    class Refusing(FaultPlan):
        def pass_by(self, call: str) -> None:
            if call == "destination.write_receipt" and (error := next(times, None)):
                raise error

    run.world.faults = Refusing()
    run.insert(3)
    run.cdc(stop=lambda: run.clock.now > 4 * RECEIPT_SECONDS)
    (warning,) = run.heard.warnings
    assert "value" not in warning
    assert [(r.seq, r.inserts) for r in run.receipts] == [(0, 3), (1, 0)]


def test_old_receipts_are_deleted_at_the_end_and_once_a_day() -> None:
    run = Recorded()
    counts: list[int] = []

    def stop() -> bool:
        if not counts or run.clock.now > len(counts) * FORGET_SECONDS / 2:
            run.clock.pass_time(RECEIPT_SECONDS)
            run.insert()
            counts.append(len(run.receipts))
        else:
            run.clock.pass_time(FORGET_SECONDS / 8)
        return len(counts) > 8

    run.cdc(stop=stop)
    assert max(counts) <= 6
    oldest = min(r.ended_at for r in run.receipts)
    assert run.receipts[-1].ended_at - oldest <= dt.timedelta(days=1)


def test_a_snapshot_that_reads_again_counts_what_it_reads() -> None:
    run = Recorded()
    run.insert(4)
    source, progress = run.world.source(), Listeners()
    lake = InMemoryDestination(run.world.lake)
    recorder = RunRecorder(progress, receipts=True)
    TakeSnapshot(source, source, source, lake, progress=progress, runs=recorder).run()
    (receipt,) = run.receipts
    assert (receipt.command, receipt.rows_read, receipt.tables) == ("snapshot", 4, 1)
    assert receipt.from_lsn is not None
    assert receipt.to_lsn is not None
    assert receipt.from_lsn < receipt.to_lsn
