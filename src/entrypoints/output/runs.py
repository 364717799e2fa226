"""Print the receipts of runs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from entrypoints.output.html.history import SILENCE
from entrypoints.output.progress import size
from entrypoints.output.report import table
from entrypoints.output.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.values.runs import RunReceipt

_NUMBERS = ("took", "inserts", "updates", "deletes", "rows read", "tables", "lag")


def show_runs(receipts: Sequence[RunReceipt]) -> None:
    out = console()
    if not receipts:
        out.print("no runs yet")
        return
    rows = table("ended (UTC)", "command", "outcome", *_NUMBERS, right=_NUMBERS)
    now, last = datetime.now(UTC), {each.run_id: each.seq for each in reversed(receipts)}
    for each in receipts:
        rows.add_row(
            f"{each.ended_at:%Y-%m-%d %H:%M:%S}",
            each.command,
            _outcome(each, last[each.run_id], now),
            _time(each.ended_at, each.started_at),
            *(f"{n:,}" for n in (each.inserts, each.updates, each.deletes, each.rows_read)),
            f"{each.tables:,}",
            ""
            if each.lag_bytes is None
            else f"{size(each.lag_bytes)}, {each.lag_seconds or 0:.0f} s",
        )
    out.print(rows, markup=False)
    for each in receipts:
        if each.error:
            line = f"{each.ended_at:%Y-%m-%d %H:%M:%S} {each.command}: {each.error}"
            out.print(line, markup=False, highlight=False, soft_wrap=True)


def runs_as_json(receipts: Sequence[RunReceipt]) -> list[dict[str, Any]]:
    """Return an object for each row, with the table's columns as keys and times as ISO 8601."""
    return [
        {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(each).items()
        }
        for each in receipts
    ]


def _outcome(receipt: RunReceipt, last: int, now: datetime) -> str:
    """`last` is the number of the run's last receipt. A run that follows and has nothing to report
    writes none, so silence does not prove that it was killed."""
    if receipt.exit_code is None:
        silent = receipt.seq == last and now - receipt.ended_at >= SILENCE
        return "unknown (killed?)" if silent else "running"
    return "done" if receipt.exit_code == 0 else f"exit {receipt.exit_code}"


def _time(end: datetime, begin: datetime) -> str:
    seconds = (end - begin).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
