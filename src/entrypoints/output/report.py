"""Print the outcome of commands: tables for people, documents for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cdc_core.check.findings import Level, ok
from entrypoints.output.progress import size
from entrypoints.output.rules import rules_text
from entrypoints.output.terminal import console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdc_core.check.findings import Finding
    from cdc_core.ports.change_source import SlotState
    from cdc_core.use_cases.show_status import StatusReport
    from cdc_core.values.changes import Operations
    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.verify.report import ParityReport


def table(*headings: str, title: str = "", right: tuple[str, ...] = ()) -> Table:
    """Return an empty table; `right` names the right-aligned columns."""
    found = Table(
        title=title or None, title_justify="left", header_style="bold", box=_box(), show_edge=False
    )
    for heading in headings:
        found.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return found


def show_slot(name: str, slot: SlotState | None) -> None:
    if slot is None:
        console().print(f"replication slot {name} does not exist", markup=False)
        return
    for line in _slot_lines(slot):
        console().print(line, markup=False)


def show_status(report: StatusReport) -> None:
    out = console()
    source = report.source
    out.print(f"source       {source.database}, cluster {source.system_id}", markup=False)
    if report.slot is None:
        out.print(f"slot         {report.source.slot_name} does not exist", markup=False)
    else:
        for line in _slot_lines(report.slot):
            out.print(line, markup=False)
    if report.checkpoint is None:
        out.print("checkpoint   none")
    else:
        lag = f"{size(report.lag_bytes or 0)}, {report.lag_seconds or 0:.0f} s"
        out.print(
            f"checkpoint   {report.checkpoint.lsn}; source at {report.current_lsn}; lag {lag}"
        )
    if report.problem:
        out.print(f"problem      {report.problem}", style="bold red", markup=False)
    if report.warning:
        out.print(f"warning      {report.warning}", style="yellow", markup=False)
    if report.tables:
        rows = table("table", "in the destination", "rows", "state", right=("rows",))
        for found in report.tables:
            count = "" if found.rows is None else f"{found.rows:,}"
            notes = [found.reason] if found.reason else []
            if found.deleted_rows:
                notes.append(f"marked as deleted: {found.deleted_rows:,}")
            if found.dropped_columns:
                notes.append(f"dropped at the source: {', '.join(found.dropped_columns)}")
            if found.rules:
                notes.append(f"rules: {rules_text(found.rules)}")
            rows.add_row(found.table, found.target, count, "; ".join([found.state, *notes]))
        out.print(rows, markup=False)
    for one in report.passed_over:
        line = f"passed over  {one.table}: {one.reason.value}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def status_as_json(report: StatusReport) -> dict[str, Any]:
    slot, checkpoint = report.slot, report.checkpoint
    return {
        "source": {
            "system_id": report.source.system_id,
            "database": report.source.database,
            "current_lsn": str(report.current_lsn),
        },
        "slot": None if slot is None else _slot_as_json(slot),
        "checkpoint": None
        if checkpoint is None
        else {"lsn": str(checkpoint.lsn), "committed_at_us": checkpoint.committed_at},
        "lag": {"bytes": report.lag_bytes, "seconds": report.lag_seconds},
        "problem": report.problem or None,
        "warning": report.warning or None,
        "tables": [
            {
                "table": line.table,
                "target": line.target or None,
                "rows": line.rows,
                "deleted_rows": line.deleted_rows,
                "state": line.state,
                "reason": line.reason or None,
                "dropped_columns": list(line.dropped_columns),
                "rules": dict(line.rules),
            }
            for line in report.tables
        ],
        "passed_over": [
            {"table": str(one.table), "reason": one.reason.value} for one in report.passed_over
        ],
    }


def show_check(findings: Sequence[Finding], *, every_table: bool = False) -> int:
    """Print a line per finding and return the exit code, 3 if one says fail. Tables without a
    finding share a line, unless `every_table` is true."""
    out = console()
    styles = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
    for found in findings if every_table else _with_one_line_for_fine_tables(findings):
        out.print(f"{found.level.value:<5}", style=styles[found.level], end="")
        cure = f"; {found.cure}" if found.cure else ""
        out.print(
            f"{found.subject}: {found.sentence}{cure}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return 3 if any(found.level is Level.FAIL for found in findings) else 0


def _with_one_line_for_fine_tables(findings: Sequence[Finding]) -> list[Finding]:
    """Replace the lines of fine tables with one, in the place of the last."""
    fine = [number for number, found in enumerate(findings) if found.table]
    if not fine:
        return list(findings)
    shared = ok("tables", f"{len(fine):,} without a finding; pgbronze check --all lists them")
    return [
        shared if number == fine[-1] else found
        for number, found in enumerate(findings)
        if not found.table or number == fine[-1]
    ]


#: Keys that `verify` prints per table; `--json` prints all.
KEYS_SHOWN = 10


def show_replay(
    checkpoint: Checkpoint, changes: Mapping[str, Operations], rows: Mapping[str, int]
) -> None:
    """Show each table of a replay that has changes or rows."""
    from cdc_core.values.changes import Operations  # imports NumPy

    names = ("inserts", "updates", "deletes", "truncates")
    shown = table("table", "in the destination", *names, "rows", "state", right=(*names, "rows"))
    for state in sorted(checkpoint.tables.values(), key=lambda state: state.table):
        done = changes.get(str(state.table), Operations())
        count = rows.get(state.target, 0)
        if count or done != Operations():
            counts = [f"{getattr(done, name):,}" for name in names]
            status = "; ".join(filter(None, [state.status.value, state.reason]))
            shown.add_row(str(state.table), state.target, *counts, f"{count:,}", status)
    console().print(shown, markup=False)


def show_verify(report: ParityReport) -> None:
    out = console()
    numbers = ("rows at source", "rows at destination", "missing", "extra", "different")
    rows = table("table", *numbers, "outcome", right=numbers)
    for found in report.tables:
        counts = (
            found.source_rows, found.target_rows, found.missing, found.extra, found.different,
        )  # fmt: skip
        outcome = "repaired" if found.repaired else "equal" if found.equal else "differs"
        notes = [note for note in (found.problem, found.note) if note]
        shown = [f"{n:,}" for n in counts]
        if not found.compared:
            shown, outcome = [""] * len(counts), "not compared"
        rows.add_row(found.table, *shown, "; ".join([outcome, *notes]))
    out.print(rows, markup=False)
    for found in report.tables:
        for key in found.keys[:KEYS_SHOWN]:
            out.print(f"{found.table}: {key.kind} {key.key}", markup=False, soft_wrap=True)
        if len(found.keys) > KEYS_SHOWN:
            more = f"{found.table}: … and more; --json names up to {len(found.keys):,}"
            out.print(more, markup=False)
    if report.lag_bytes:
        out.print(
            f"the checkpoint {report.checkpoint_lsn} is {size(report.lag_bytes)} of WAL behind the "
            "source" + ("" if report.equal else "; what cdc will bring shows as differences")
        )
    if report.problem:
        out.print(f"problem: {report.problem}", style="bold red", markup=False)


def verify_as_json(report: ParityReport) -> dict[str, Any]:
    return {
        "equal": report.equal,
        "checkpoint_lsn": str(report.checkpoint_lsn),
        "source_lsn": str(report.source_lsn),
        "lag_bytes": report.lag_bytes,
        "problem": report.problem or None,
        "tables": [
            {
                "table": found.table,
                "target": found.target or None,
                "equal": found.equal,
                "repaired": found.repaired,
                "compared": found.compared,
                "rows": {"source": found.source_rows, "destination": found.target_rows},
                "missing": found.missing,
                "extra": found.extra,
                "different": found.different,
                "keys": [{"kind": key.kind, "key": json.loads(key.key)} for key in found.keys],
                "problem": found.problem or None,
                "note": found.note or None,
            }
            for found in report.tables
        ],
    }


def _slot_lines(slot: SlotState) -> list[str]:
    reader = "nobody reads it" if slot.active_pid is None else f"read by backend {slot.active_pid}"
    kind = f"{slot.plugin}, database {slot.database}" if slot.database else "a physical slot"
    if slot.lost:
        left = "nothing can be read from it any more"
    elif slot.safe_bytes is None:
        left = "no limit"
    else:
        left = f"{size(slot.safe_bytes)} more until it is lost"
    return [
        f"slot         {slot.name} ({kind}), {reader}",
        f"confirmed    {slot.confirmed_flush_lsn}; restart from {slot.restart_lsn}",
        f"WAL retained {size(slot.retained_bytes)}, wal_status {slot.wal_status}; {left}",
    ]


def _slot_as_json(slot: SlotState) -> dict[str, Any]:
    def lsn(value: object) -> str | None:
        return None if value is None else str(value)

    return {
        "name": slot.name,
        "plugin": slot.plugin,
        "database": slot.database,
        "active_pid": slot.active_pid,
        "restart_lsn": lsn(slot.restart_lsn),
        "confirmed_flush_lsn": lsn(slot.confirmed_flush_lsn),
        "wal_status": slot.wal_status,
        "retained_bytes": slot.retained_bytes,
        "safe_bytes": slot.safe_bytes,
    }


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD
