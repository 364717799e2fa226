"""Frame a run: emit where it starts and ends, observe its slot, and write its receipts."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from cdc_core.ports.clock import Clock, SystemClock
from cdc_core.ports.progress import Listeners, RunEnded, RunStarted, SlotObserved, Warned
from cdc_core.runs.tally import Tally
from cdc_core.values.changes import Operations
from cdc_core.values.errors import CdcError, DestinationUnavailable, SourceUnavailable
from cdc_core.values.runs import RunReceipt, RunTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.run_log import RunLog
    from cdc_core.runs.tally import Counts

#: While following: how often the slot is observed, and how often a receipt is written.
OBSERVE_SECONDS = 15.0
RECEIPT_SECONDS = 60.0
#: While following: how often old receipts are deleted. Every run does it at its end.
FORGET_SECONDS = 24 * 3600.0


def _describe(error: BaseException) -> tuple[int, str]:
    if isinstance(error, CdcError):
        return error.exit_code, str(error)
    return 1, f"unexpected {type(error).__name__}"


@dataclass(frozen=True)
class RunRecorder:
    """Records runs, one after the other. By default it writes no receipts.

    `describe` returns the exit code and the line of an error, without secrets and row values.
    """

    progress: Listeners = field(default_factory=Listeners)
    receipts: bool = False
    keep_days: int = 90
    version: str = ""
    clock: Clock = field(default_factory=SystemClock)
    describe: Callable[[BaseException], tuple[int, str]] = _describe
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    peak_memory: Callable[[], int | None] = lambda: None
    new_id: Callable[[], str] = lambda: uuid4().hex

    @contextmanager
    def run(
        self, command: str, source: ChangeSource, log: RunLog, *, follow: bool = False
    ) -> Iterator[RecordedRun]:
        """Record a run while the block lasts; `source` and `log` are open. An error ends the run
        with its exit code; an interrupt leaves what was written before.
        """
        run = RecordedRun(self, command, source, log, follow=follow)
        self.progress.add(run.tally)
        try:
            self.progress.emit(RunStarted(command))
            try:
                yield run
            except Exception as error:
                run.fail(error)
                raise
            run.end()
        finally:
            self.progress.remove(run.tally)


class RecordedRun:
    """A run that is being recorded."""

    def __init__(
        self,
        recorder: RunRecorder,
        command: str,
        source: ChangeSource,
        log: RunLog,
        *,
        follow: bool,
    ) -> None:
        self.tally = Tally(lambda: int(recorder.now().timestamp() * 1e6))
        #: The outcome of a run that ends without an error.
        self.exit_code = 0
        self.error = ""
        self._recorder = recorder
        self._command = command
        self._source = source
        self._log = log
        self._follow = follow
        self._id = recorder.new_id()
        self._seq = 0
        self._started_at = recorder.now()
        self._from: int | None = None
        self._statements = 0
        self._warned = False
        now = recorder.clock.monotonic()
        self._observed, self._written, self._forgot = now, now, now

    def tick(self) -> None:
        """Observe the slot and write a receipt if they are due. For a run that follows, between two
        batches."""
        if not self._follow:
            return
        now = self._recorder.clock.monotonic()
        if now - self._observed >= OBSERVE_SECONDS:
            self._observe()
        if now - self._written >= RECEIPT_SECONDS and not self.tally.counts.nothing:
            self._observe()
            self._write(None, "")

    def fail(self, error: Exception) -> None:
        self.exit_code, self.error = self._recorder.describe(error)
        self._end(
            observe=not isinstance(error, SourceUnavailable),
            # Reaching it again would take as long as the attempts that failed.
            write=not isinstance(error, DestinationUnavailable),
        )

    def end(self) -> None:
        self._end(observe=True, write=True)

    def _end(self, *, observe: bool, write: bool) -> None:
        if observe:
            # What it reports is worth less than the outcome of the run.
            with suppress(Exception):
                self._observe()
        if write:
            self._write(self.exit_code, self.error)
        self._recorder.progress.emit(RunEnded(self.exit_code, self.error))

    def _observe(self) -> None:
        self._observed = self._recorder.clock.monotonic()
        slot = self._source.slot()
        self._recorder.progress.emit(SlotObserved(slot, self._source.current_lsn()))

    def _write(self, exit_code: int | None, error: str) -> None:
        recorder = self._recorder
        if not recorder.receipts:
            return
        self._written = recorder.clock.monotonic()
        ended_at = recorder.now()
        forget = exit_code is not None or self._written - self._forgot >= FORGET_SECONDS
        before = ended_at - timedelta(days=recorder.keep_days) if forget else None
        try:
            receipt = self._receipt(ended_at, exit_code, error, self.tally.counts)
            tables = self._tables(self.tally.counts)
            self._log.write_receipt(receipt, tables, forget_before=before)
        except Exception as refused:  # noqa: BLE001 - whatever it is, the run matters more
            if not self._warned:
                _, line = recorder.describe(refused)
                recorder.progress.emit(Warned(f"the run's receipt was not written: {line}"))
            self._warned = True
            return
        self.tally.take_counts()
        self._seq += 1
        self._from, self._statements = receipt.to_lsn, self._statements + receipt.statements
        if forget:
            self._forgot = self._written

    def _receipt(
        self, ended_at: datetime, exit_code: int | None, error: str, counts: Counts
    ) -> RunReceipt:
        tally, operations = self.tally, counts.operations
        return RunReceipt(
            run_id=self._id,
            seq=self._seq,
            command=self._command,
            started_at=self._started_at,
            ended_at=ended_at,
            exit_code=exit_code,
            error=error or None,
            from_lsn=self._from if self._seq else _number(tally.first_lsn),
            to_lsn=_number(tally.checkpoint.lsn if tally.checkpoint else None),
            source_lsn=_number(tally.source_lsn),
            transactions=counts.transactions,
            inserts=operations.inserts,
            updates=operations.updates,
            deletes=operations.deletes,
            truncates=operations.truncates,
            rows_read=sum(counts.rows_read.values()),
            bytes_read=counts.bytes_read,
            tables=len(counts.names),
            batches=counts.batches,
            statements=self._log.statements - self._statements,
            lag_bytes=tally.lag_bytes,
            lag_seconds=tally.lag_seconds,
            retained_wal_bytes=tally.slot.retained_bytes if tally.slot else None,
            peak_memory_bytes=self._recorder.peak_memory(),
            version=self._recorder.version,
        )

    def _tables(self, counts: Counts) -> list[RunTable]:
        def row(name: str) -> RunTable:
            done = counts.tables.get(name, Operations())
            return RunTable(
                self._id, self._seq, name, self.tally.target(name),
                done.inserts, done.updates, done.deletes, done.truncates,
                counts.rows_read.get(name, 0),
            )  # fmt: skip

        return [row(name) for name in counts.names]


def _number(lsn: int | None) -> int | None:
    return None if lsn is None else int(lsn)
