"""A week of runs as their receipts tell it, and the status at its end: for the page and its charts.

The runs are made up, by seed: one each 15 minutes, a comparison each night. What happens in them is
what operators meet: the destination is gone for some hours, a table is new, a backlog grows, the
slot is lost.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cdc_core.ports.catalog import PassedOver, Reason
from cdc_core.ports.change_source import SlotState
from cdc_core.slot.continuity import RESNAPSHOT
from cdc_core.slot.wal_budget import WalUse
from cdc_core.use_cases.show_status import StatusReport, TableLine
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
from cdc_core.values.errors import SourceUnavailable
from cdc_core.values.lsn import Lsn
from cdc_core.values.relation import TableName
from cdc_core.values.runs import RunReceipt
from entrypoints.output.html.facts import PageFacts

NOW = datetime(2026, 3, 8, 14, 2, tzinfo=UTC)
EVERY = timedelta(minutes=15)
WEEK = timedelta(days=7)
#: Bytes of WAL that the source writes a second, by day and by night.
WAL_A_SECOND = 40_000
LIMIT = 8 << 30

NAMES = (
    "customers", "orders", "order_lines", "payments", "refunds", "products", "prices", "stock",
    "warehouses", "shipments", "carriers", "invoices", "suppliers", "purchase_orders", "users",
    "sessions", "audit_log", "coupons", "reviews", "addresses",
)  # fmt: skip


@dataclass
class Week:
    """`gone`: when the destination cannot be reached; `lost_at`: when the slot is lost."""

    gone: tuple[tuple[timedelta, timedelta], ...] = ()
    backlog: tuple[timedelta, timedelta] | None = None
    lost_at: timedelta | None = None
    every: timedelta = EVERY
    seed: int = 1
    receipts: list[RunReceipt] = field(default_factory=list)

    def run(self) -> list[RunReceipt]:
        """Return the receipts, newest first."""
        chance = random.Random(self.seed)
        start = NOW - WEEK
        lsn, loaded, as_of = 0x16_0000_0000, 0x16_0000_0000, start
        moment, number = start, 0
        while moment < NOW:
            passed = moment - start
            busy = 1 + 2 * (8 <= moment.hour < 18) + 30 * _within(passed, self.backlog)
            written = int(
                WAL_A_SECOND * busy * self.every.total_seconds() * chance.uniform(0.7, 1.3)
            )
            lsn += written
            lost = self.lost_at is not None and passed >= self.lost_at
            gone = any(_within(passed, hours) for hours in self.gone)
            number += 1
            base = self._receipt(f"run-{number}", "cdc", moment, chance.uniform(4, 20))
            base = replace(base, from_lsn=loaded, source_lsn=lsn)
            if lost:
                error = (
                    "replication slot 'dlt_cdc_slot' is lost (wal_status = lost); raise "
                    f"max_slot_wal_keep_size or run cdc more often; {RESNAPSHOT}"
                )
                failed = replace(base, exit_code=3, error=error)
            elif gone:
                error = (
                    "databricks dataset 'bronze', opening: the warehouse does not answer (503); "
                    "make sure that the warehouse runs; run again"
                )
                failed = replace(base, exit_code=1, error=error)
            else:
                failed = None
            if failed is not None:
                age = (failed.ended_at - as_of).total_seconds()
                self.receipts.append(
                    replace(
                        failed, to_lsn=loaded, lag_bytes=lsn - loaded, lag_seconds=age,
                        retained_wal_bytes=None if lost else lsn - loaded + (16 << 20),
                    )
                )  # fmt: skip
            else:
                count = written // 400
                loaded, as_of = lsn, base.ended_at - timedelta(seconds=2)
                new_table = 300_000 if number in (200, 203) else 0
                self.receipts.append(
                    replace(
                        base, to_lsn=loaded, transactions=count // 3, inserts=count // 2,
                        updates=count // 3, deletes=count // 6, bytes_read=written, tables=9,
                        batches=1 + count // 200_000, statements=10, rows_read=new_table,
                        lag_bytes=int(written * 0.002), lag_seconds=2.0,
                        retained_wal_bytes=(16 << 20) + int(written * 0.1),
                    )
                )  # fmt: skip
            if moment.hour == 3 and moment.minute < 15 and not (lost or gone):
                self.receipts.append(
                    replace(
                        self._receipt(f"verify-{number}", "verify", moment, 300),
                        rows_read=4_000_000, tables=20,
                    )
                )  # fmt: skip
            moment += self.every
        return self.receipts[::-1]

    def _receipt(self, run_id: str, command: str, began: datetime, seconds: float) -> RunReceipt:
        return RunReceipt(
            run_id=run_id, seq=0, command=command, started_at=began,
            ended_at=began + timedelta(seconds=seconds), exit_code=0, error=None, from_lsn=None,
            to_lsn=None, source_lsn=None, transactions=0, inserts=0, updates=0, deletes=0,
            truncates=0, rows_read=0, bytes_read=0, tables=0, batches=0, statements=0,
            lag_bytes=None, lag_seconds=None, retained_wal_bytes=None,
            peak_memory_bytes=180 << 20, version="0.1.0",
        )  # fmt: skip


def _within(passed: timedelta, hours: tuple[timedelta, timedelta] | None) -> bool:
    return hours is not None and hours[0] <= passed < hours[1]


def status(
    receipts: list[RunReceipt], *, lost: bool = False, trouble: bool = False
) -> StatusReport:
    """The status at the end of a week with these receipts, the last of them the newest."""
    chance = random.Random(3)
    source = SourceIdentity("7301234567890123456", "shop", "dlt_cdc_slot", 1)
    last = next(receipt for receipt in receipts if receipt.command == "cdc")
    current, behind = Lsn(last.source_lsn or 0), last.lag_bytes or 0
    checkpoint = Checkpoint(source, Lsn(last.to_lsn or 0), committed_at=0)
    retained = last.retained_wal_bytes or 0
    limit = int(retained / 0.87) if trouble else LIMIT
    slot = SlotState(
        "dlt_cdc_slot", "pgoutput", "shop", None, None if lost else Lsn(current - retained),
        checkpoint.lsn, "lost" if lost else "reserved", retained,
        None if lost else limit - retained,
    )  # fmt: skip
    lines = [
        TableLine(str(TableName("public", name)), name, "streaming", "", chance.randrange(10**6))
        for name in NAMES
    ]
    if lost:
        lines = [replace(line, state="needs snapshot") for line in lines]
    if trouble:
        lines[3] = replace(lines[3], state="needs snapshot", reason="the table was rewritten")
        reason = (
            "has no primary key: PostgreSQL would refuse its UPDATE and DELETE once published; "
            'run: ALTER TABLE "public"."audit_log" REPLICA IDENTITY FULL'
        )
        lines[16] = replace(lines[16], state="not streamed", reason=reason)
        lines[17] = replace(lines[17], state="dropped", reason="dropped at the source, or excluded")
        lines[5] = replace(lines[5], dropped_columns=("old_price",))
        lines.append(TableLine("public.new_today", "", "not loaded yet", "", None))
    problem = (
        "replication slot 'dlt_cdc_slot' is lost (wal_status = lost); raise max_slot_wal_keep_size "
        f"or run cdc more often; {RESNAPSHOT}"
    )
    use = None if lost else WalUse("dlt_cdc_slot", "max_slot_wal_keep_size", retained, limit)
    age = (NOW - last.ended_at).total_seconds() + (last.lag_seconds or 0)
    return StatusReport(
        source, slot, checkpoint, current, behind, age, problem if lost else "", lines,
        str(use) if use and use.near else "",
        [PassedOver(TableName("public", "v_sales"), Reason.VIEW),
         PassedOver(TableName("public", "_dlt_loads"), Reason.RESERVED)],
        use,
    )  # fmt: skip


def facts(report: StatusReport | None, receipts: list[RunReceipt]) -> PageFacts:
    return PageFacts("pgbronze", "databricks", "bronze", NOW, "0.1.0", report, None, receipts)


def calm() -> PageFacts:
    """A week in which the destination was away once, days ago."""
    away = (timedelta(days=2, hours=5), timedelta(days=2, hours=8))
    receipts = Week(gone=(away,)).run()
    return facts(status(receipts), receipts)


def troubled() -> PageFacts:
    """The last runs fail, WAL piles up, and tables wait for an operator."""
    hours = timedelta(hours=1)
    earlier, now = (30 * hours, 32 * hours), (WEEK - 5 * hours, WEEK + hours)
    receipts = Week(gone=(earlier, now), backlog=(70 * hours, 74 * hours)).run()
    return facts(status(receipts, trouble=True), receipts)


def slot_lost() -> PageFacts:
    """The slot was lost ten hours ago."""
    hours = timedelta(hours=1)
    receipts = Week(gone=((60 * hours, 66 * hours),), lost_at=WEEK - 10 * hours).run()
    return facts(status(receipts, lost=True), receipts)


def unreachable() -> PageFacts:
    """The source does not answer: the page shows what the receipts say."""
    error = SourceUnavailable(
        "PostgreSQL at db.example.com:5432 cannot be reached: connection refused",
        "make sure that the server runs and can be reached from here",
    )
    return replace(facts(None, Week().run()), error=error)


def first_day() -> PageFacts:
    """No snapshot was taken."""
    report = status(Week().run())
    lines = [replace(line, target="", state="not loaded yet", rows=None) for line in report.tables]
    before = replace(
        report, slot=None, checkpoint=None, lag_bytes=None, lag_seconds=None, wal_use=None,
        problem="no snapshot was taken yet; run: pgbronze snapshot", tables=lines,
    )  # fmt: skip
    return facts(before, [])


def following() -> PageFacts:
    """A run that follows and leaves a receipt each minute."""
    week = Week(every=timedelta(minutes=1))
    receipts = [
        replace(receipt, run_id="follow", seq=number, exit_code=None, started_at=NOW - WEEK)
        for number, receipt in enumerate(week.run()[::-1])
        if receipt.command == "cdc"
    ]
    return facts(status(receipts[::-1]), receipts[::-1])


SCENES = {
    "calm": calm, "troubled": troubled, "slot-lost": slot_lost, "unreachable": unreachable,
    "first-day": first_day, "following": following,
}  # fmt: skip
