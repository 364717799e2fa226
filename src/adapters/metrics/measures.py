"""The metrics of a run by name: the one list that Prometheus and OpenTelemetry export.

Source: Prometheus documentation, "Metric and label naming", "Histograms and summaries".
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from cdc_core.ports.progress import BatchLoaded, CaughtUp, RunEnded
from cdc_core.runs.tally import Tally
from cdc_core.values.checkpoint import TableStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cdc_core.ports.progress import Event

#: Upper bounds of the histogram, in seconds; the last bucket has none.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Metric:
    """`labels` come after `pipeline` and `slot`, which every metric has."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("pgbronze_lag_bytes", "gauge", "WAL that the source wrote after the checkpoint.", "By"),
    Metric("pgbronze_lag_seconds", "gauge", "Age of the state that the destination has.", "s"),
    Metric("pgbronze_retained_wal_bytes", "gauge", "WAL that the slot keeps on disk.", "By"),
    Metric(
        "pgbronze_safe_wal_bytes", "gauge", "WAL that can be written until the slot is lost.", "By"
    ),
    Metric("pgbronze_confirmed_flush_lsn", "gauge", "Position that the slot has confirmed."),
    Metric("pgbronze_transactions_total", "counter", "Transactions loaded."),
    Metric("pgbronze_changes_total", "counter", "Changes loaded.", labels=("table", "op")),
    Metric("pgbronze_rows_read_total", "counter", "Rows read at the source.", labels=("table",)),
    Metric("pgbronze_batches_total", "counter", "Batches of changes loaded."),
    Metric(
        "pgbronze_last_success_timestamp_seconds",
        "gauge",
        "When everything committed at the source was last loaded.",
        "s",
    ),
    Metric("pgbronze_tables", "gauge", "Tables by state.", labels=("state",)),
)
BATCH_SECONDS = "pgbronze_batch_seconds"
BATCH_SECONDS_HELP = "Time from the start of reading a batch until it is loaded."

_OPERATIONS = {"inserts": "insert", "updates": "update", "deletes": "delete"}
_OPERATIONS |= {"truncates": "truncate"}


@dataclass
class Histogram:
    """`counts` has a number for each bucket, the one without an upper bound included."""

    counts: list[float] = field(default_factory=lambda: [0.0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.total += value


class Measures:
    """A listener of events; any thread may ask for the values.

    `labels` are those of every metric. Counters start at `earlier`, the values of a run before.
    `now` returns seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        pipeline: str,
        slot: str,
        earlier: Mapping[tuple[str, Labels], float] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self.labels = {"pipeline": pipeline, "slot": slot}
        self._earlier = dict(earlier or {})
        self._tally = Tally(lambda: int(now() * 1e6))
        self._batches = Histogram()
        self._succeeded = self._earlier.pop(("pgbronze_last_success_timestamp_seconds", ()), None)
        self._caught_up: float | None = None
        self._lock = threading.Lock()

    def start_batches_at(self, batches: Histogram) -> None:
        """Continue the histogram of a run before."""
        self._batches = batches

    def emit(self, event: Event) -> None:
        with self._lock:
            self._tally.emit(event)
            match event:
                case BatchLoaded():
                    self._batches.observe(event.seconds)
                case CaughtUp():
                    self._caught_up = self._now()
                case RunEnded(exit_code):
                    if exit_code == 0:
                        self._succeeded = self._now()
                    self._caught_up = None

    def histogram(self) -> Histogram:
        with self._lock:
            return Histogram(list(self._batches.counts), self._batches.total)

    def values(self) -> dict[tuple[str, Labels], float]:
        """Return the values of `METRICS` by name and own labels. A gauge without a value is
        missing."""
        with self._lock:
            values = {name: value for name, value in self._gauges() if value is not None}
            found = dict(self._earlier)
            for name, value in self._counters():
                found[name] = found.get(name, 0.0) + value
            return {**values, **found}

    def _gauges(self) -> Iterator[tuple[tuple[str, Labels], float | None]]:
        tally, slot = self._tally, self._tally.slot
        yield ("pgbronze_lag_bytes", ()), tally.lag_bytes
        yield ("pgbronze_lag_seconds", ()), tally.lag_seconds
        if slot is not None:
            yield ("pgbronze_retained_wal_bytes", ()), slot.retained_bytes
            yield ("pgbronze_safe_wal_bytes", ()), slot.safe_bytes
            yield ("pgbronze_confirmed_flush_lsn", ()), slot.confirmed_flush_lsn
        succeeded = self._caught_up or self._succeeded
        yield ("pgbronze_last_success_timestamp_seconds", ()), succeeded
        if tally.checkpoint is not None:
            states = Counter(state.status for state in tally.checkpoint.tables.values())
            for status in TableStatus:
                yield ("pgbronze_tables", (("state", status.value),)), states[status]

    def _counters(self) -> Iterator[tuple[tuple[str, Labels], float]]:
        counts = self._tally.counts
        yield ("pgbronze_transactions_total", ()), counts.transactions
        yield ("pgbronze_batches_total", ()), counts.batches
        for table, operations in counts.tables.items():
            for name, number in asdict(operations).items():
                labels = (("table", table), ("op", _OPERATIONS[name]))
                yield ("pgbronze_changes_total", labels), number
        for table, rows in counts.rows_read.items():
            yield ("pgbronze_rows_read_total", (("table", table),)), rows
