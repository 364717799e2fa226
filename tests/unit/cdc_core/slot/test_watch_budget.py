from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from adapters.fakes import (
    InMemoryDestination,
    InMemoryPostgres,
    InMemorySource,
    Lake,
    RecordedProgress,
)
from adapters.fakes.source import InMemoryMonitor
from cdc_core.ports.change_source import SlotState
from cdc_core.slot.wal_budget import budget_exceeded, budget_warning
from cdc_core.use_cases.show_status import ShowStatus
from cdc_core.use_cases.stream_changes import LOOK_SECONDS, StreamChanges
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.values.errors import OperatorNeeded
from cdc_core.values.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET = 10_000
SLOT = SlotState("s", "pgoutput", "db", None, Lsn(1), Lsn(1), "reserved", 0, None)


@dataclass
class FastClock:
    """Every sleep takes as long as a look at the catalog."""

    now: float = 0.0
    then: Callable[[float], None] = lambda now: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += LOOK_SECONDS
        self.then(self.now)


@dataclass
class Run:
    postgres: InMemoryPostgres = field(default_factory=InMemoryPostgres)
    lake: Lake = field(default_factory=Lake)
    progress: RecordedProgress = field(default_factory=RecordedProgress)
    clock: FastClock = field(default_factory=FastClock)

    def __post_init__(self) -> None:
        self.table = self.postgres.create_table("t", {"id": pa.int64()})
        self.postgres.published.add(self.table)
        source = InMemorySource(self.postgres)
        TakeSnapshot(source, source, source, InMemoryDestination(self.lake)).run()

    def write(self, key: int, size: int) -> None:
        with self.postgres.transaction() as transaction:
            transaction.insert(self.table, id=key)
        self.postgres.write_wal(size)

    def cdc(self, budget: int | None = BUDGET, **how: object) -> None:
        source = InMemorySource(self.postgres)
        changes = StreamChanges(
            source, source, source, InMemoryDestination(self.lake),
            max_retained_wal=budget, clock=self.clock, progress=self.progress,
        )  # fmt: skip
        changes.run(**how)  # type: ignore[arg-type]

    @property
    def loaded(self) -> list[object]:
        return [row["id"] for row in self.lake.rows("t")]


@pytest.mark.parametrize(("size", "warned"), [(7_000, False), (8_000, True), (30_000, True)])
def test_a_run_warns_when_most_is_used_and_ends_well_once_all_is_loaded(
    size: int, warned: bool
) -> None:
    run = Run()
    run.write(1, size)
    run.cdc()
    assert run.loaded == [1]
    assert [
        ("of sources.pg_replication.max_retained_wal" in text) for text in run.progress.warnings
    ] == ([True] if warned else [])


def test_what_an_open_transaction_holds_ends_the_run_after_it_has_loaded_all() -> None:
    run = Run()
    run.postgres.oldest_transaction = run.postgres.lsn
    run.write(1, BUDGET)
    with pytest.raises(OperatorNeeded, match=r"max_retained_wal.*pg_stat_activity") as told:
        run.cdc()
    assert told.value.exit_code == 3
    assert run.loaded == [1]
    run.cdc(budget=None)
    run.postgres.oldest_transaction = None
    run.cdc()


def test_a_run_that_follows_ends_once_it_lasts() -> None:
    run = Run()
    run.postgres.oldest_transaction = run.postgres.lsn
    run.clock.then = lambda now: run.write(int(now), BUDGET) if now < 4 * LOOK_SECONDS else None
    with pytest.raises(OperatorNeeded, match="max_retained_wal"):
        run.cdc(follow=True, stop=lambda: run.clock.now > 100 * LOOK_SECONDS)
    assert run.clock.now < 10 * LOOK_SECONDS
    assert len(run.progress.warnings) == 1


def test_following_continues_after_a_backlog() -> None:
    run = Run()
    run.write(1, 5 * BUDGET)
    run.cdc(follow=True, stop=lambda: run.clock.now > 10 * LOOK_SECONDS)
    assert run.loaded == [1]


def test_status_warns() -> None:
    run = Run()
    run.postgres.oldest_transaction = run.postgres.lsn
    run.write(1, BUDGET)
    source = InMemorySource(run.postgres)
    for budget, warned in ((BUDGET, True), (10 * BUDGET, False), (None, False)):
        report = ShowStatus(
            InMemoryMonitor(run.postgres), source, InMemoryDestination(run.lake), budget
        ).run()
        assert bool(report.warning) is warned


def test_the_servers_limit_counts_too() -> None:
    state = replace(SLOT, retained_bytes=800, safe_bytes=200)
    assert "80 % of max_slot_wal_keep_size" in budget_warning(state, None)
    assert budget_exceeded(state, None) is None
    assert not budget_warning(replace(state, safe_bytes=300), None)
    past = budget_exceeded(replace(state, safe_bytes=-1), 10_000)
    assert past is not None
    assert "raise max_slot_wal_keep_size" in past.cure
    lost = replace(state, wal_status="lost", safe_bytes=-1)
    assert budget_exceeded(lost, 1) is None
    assert not budget_warning(lost, 1)
