"""From receipts to runs, and to what was true at each moment of the time that they cover."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from cdc_core.values.runs import RunReceipt

#: Points of a chart.
BUCKETS = 168
#: The usual interval between runs is that of the last ones, and is not known from fewer.
INTERVALS_USED = 50
INTERVALS_NEEDED = 5
#: A run that follows and loads changes leaves a receipt each minute. Without one for so long, it
#: may have been killed.
SILENCE = timedelta(minutes=5)


@dataclass(frozen=True)
class RunSummary:
    """A run with the sums of its receipts. `exit_code` is None if no receipt has one: the run
    `goes_on`, or it was killed."""

    command: str
    started_at: datetime
    ended_at: datetime
    exit_code: int | None
    goes_on: bool
    error: str
    changes: int
    rows_read: int
    tables: int

    @property
    def failed(self) -> bool:
        return self.exit_code != 0 and not self.goes_on

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class Episode:
    """A run that ended well, or runs of one command that failed one after another with the same
    error; `runs` are newest first."""

    runs: tuple[RunSummary, ...]

    @property
    def last(self) -> RunSummary:
        return self.runs[0]

    @property
    def first(self) -> RunSummary:
        return self.runs[-1]


@dataclass(frozen=True)
class Point:
    """What a chart shows for the time from `start` on; None: nothing is known of it."""

    start: datetime
    value: float | None


@dataclass(frozen=True)
class History:
    """`receipts` are sorted by time. With `since` they are those from then on, and `reached` is the
    state of the destination at that time."""

    receipts: Sequence[RunReceipt]
    now: datetime
    since: datetime | None = None
    reached: datetime | None = None

    @classmethod
    def of(cls, receipts: Iterable[RunReceipt], now: datetime) -> History:
        # A table of another version may lack columns; its receipts have None there.
        dated = [receipt for receipt in receipts if receipt.started_at and receipt.ended_at]
        return cls(sorted(dated, key=lambda receipt: (receipt.ended_at, receipt.seq or 0)), now)

    def last(self, time: timedelta) -> History:
        """The history of this time until now; all of it if it is shorter."""
        since = self.now - time
        if since <= self.start:
            return self
        recent = [receipt for receipt in self.receipts if receipt.ended_at >= since]
        earlier = (receipt for receipt in self.receipts if receipt.ended_at < since)
        reached = max((moment for each in earlier if (moment := as_of(each))), default=None)
        return History(recent, self.now, since, reached)

    @cached_property
    def runs(self) -> list[RunSummary]:
        """The runs, newest first."""
        groups: dict[str, list[RunReceipt]] = {}
        for receipt in self.receipts:
            groups.setdefault(receipt.run_id, []).append(receipt)
        found = [self._summary(group) for group in groups.values()]
        return sorted(found, key=lambda run: (run.started_at, run.ended_at), reverse=True)

    @cached_property
    def episodes(self) -> list[Episode]:
        """The runs in episodes, newest first."""
        found: list[list[RunSummary]] = []
        open_: dict[str, list[RunSummary]] = {}
        for run in self.runs:
            same = open_.get(run.command)
            if (
                same
                and run.failed
                and (run.exit_code, run.error)
                == (
                    same[-1].exit_code,
                    same[-1].error,
                )
            ):
                same.append(run)
                continue
            open_[run.command] = [run]
            found.append(open_[run.command])
        return [Episode(tuple(runs)) for runs in found]

    def _summary(self, rows: Sequence[RunReceipt]) -> RunSummary:
        last = max(rows, key=lambda receipt: receipt.seq or 0)
        return RunSummary(
            command=last.command,
            started_at=last.started_at,
            ended_at=last.ended_at,
            exit_code=last.exit_code,
            goes_on=last.exit_code is None and self.now - last.ended_at < SILENCE,
            error=last.error or "",
            changes=sum(map(changes, rows)),
            rows_read=sum(receipt.rows_read or 0 for receipt in rows),
            tables=max(receipt.tables or 0 for receipt in rows),
        )

    @cached_property
    def as_of(self) -> datetime | None:
        """The moment whose state the destination has, by the receipts."""
        return max((m for receipt in self.receipts if (m := as_of(receipt))), default=None)

    @cached_property
    def interval(self) -> timedelta | None:
        """How far apart the receipts of successful loads usually are; None if there are few."""
        ends = [r.ended_at for r in self.receipts if r.exit_code in (0, None) and _loads(r)]
        gaps = [later - earlier for earlier, later in pairwise(ends)]
        if len(gaps) < INTERVALS_NEEDED:
            return None
        return timedelta(seconds=median(gap.total_seconds() for gap in gaps[-INTERVALS_USED:]))

    @cached_property
    def start(self) -> datetime:
        first = min((receipt.started_at for receipt in self.receipts), default=self.now)
        return self.since or first

    @cached_property
    def step(self) -> timedelta:
        return max((self.now - self.start) / BUCKETS, timedelta(milliseconds=1))

    def bucket(self, moment: datetime) -> int:
        return min(BUCKETS - 1, max(0, int((moment - self.start) / self.step)))

    def ages(self) -> list[Point]:
        """How old the destination's state was at most, in seconds."""
        found: list[float | None] = [None] * BUCKETS
        state = self.reached
        moments = [(receipt.ended_at, as_of(receipt)) for receipt in self.receipts]
        ends = [(self.start + self.step * (n + 1), None) for n in range(BUCKETS)]
        # Before a receipt's own state counts, the former has become as old as it will.
        for moment, reached in sorted([*moments, *ends], key=lambda pair: pair[0]):
            if state is not None:
                # The end of a bucket belongs to it.
                place = self.bucket(moment - timedelta(microseconds=1))
                age = (moment - state).total_seconds()
                found[place] = max(found[place] or 0.0, age)
            if reached is not None:
                state = max(state or reached, reached)
        return self._points(found)

    def highest(self, value: Callable[[RunReceipt], float | None]) -> list[Point]:
        """The highest value of the receipts in each bucket."""
        found: list[float | None] = [None] * BUCKETS
        for receipt in self.receipts:
            known = value(receipt)
            if known is not None:
                place = self.bucket(receipt.ended_at)
                found[place] = max(found[place] or 0.0, known)
        return self._points(found)

    def sums(self, value: Callable[[RunReceipt], float]) -> list[Point]:
        found: list[float | None] = [0.0] * BUCKETS
        for receipt in self.receipts:
            place = self.bucket(receipt.ended_at)
            found[place] = (found[place] or 0.0) + value(receipt)
        return self._points(found)

    def outcomes(self) -> list[tuple[datetime, Counter[str]]]:
        """How many runs ended well (`ok`) and badly (`failed`) in each bucket."""
        counts: list[Counter[str]] = [Counter() for _ in range(BUCKETS)]
        for receipt in self.receipts:
            if receipt.exit_code is None:
                counts[self.bucket(receipt.ended_at)]["ok"] += 1
        for run in self.runs:
            if run.exit_code is not None or run.failed:
                counts[self.bucket(run.ended_at)]["failed" if run.failed else "ok"] += 1
        return [(self.start + self.step * n, count) for n, count in enumerate(counts)]

    def _points(self, values: Iterable[float | None]) -> list[Point]:
        return [Point(self.start + self.step * n, value) for n, value in enumerate(values)]


def changes(receipt: RunReceipt) -> int:
    """Rows changed; a TRUNCATE counts as one change."""
    counts = (receipt.inserts, receipt.updates, receipt.deletes, receipt.truncates)
    return sum(count or 0 for count in counts)


def as_of(receipt: RunReceipt) -> datetime | None:
    """The moment whose state the destination has after a receipt."""
    if receipt.lag_seconds is not None:
        return receipt.ended_at - timedelta(seconds=receipt.lag_seconds)
    if receipt.exit_code == 0 and _loads(receipt):
        return receipt.started_at
    return None


def _loads(receipt: RunReceipt) -> bool:
    return receipt.command in ("snapshot", "cdc")
