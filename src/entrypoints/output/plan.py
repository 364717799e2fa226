"""Print a plan: a paragraph for each table for people, one document for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from cdc_core.plan.plan import Action, DefinitionKind
from entrypoints.output.progress import size
from entrypoints.output.rules import rules_text
from entrypoints.output.terminal import console, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdc_core.plan.plan import Definition, PlannedColumn, PlannedTable, RunPlan

#: The words for people.
_WORDS = {
    Action.READ: "is read whole",
    Action.STREAM: "gets its changes from the stream",
    Action.STAY: "stays as it is",
    Action.SET_ASIDE: "is set aside",
}
_STYLES = {Action.SET_ASIDE: "bold yellow", Action.READ: "bold cyan"}


def show_plan(plan: RunPlan) -> None:
    out = console()

    def line(text: str, style: str = "") -> None:
        out.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)

    line(f"next run     {plan.run.value}: {plan.why}", "bold")
    if plan.problem:
        line(f"problem      {plan.problem}", "bold red")
    read = [table for table in plan.tables if table.action is Action.READ]
    rows, wal = sum(table.rows for table in read), plan.wal_bytes
    reads = f"{len(read):,} of {len(plan.tables):,} tables whole"
    if read:
        reads += f", {_amount(rows, sum(table.bytes for table in read))}"
    line(f"reads        {reads}" + ("" if wal is None else f"; {size(wal)} of WAL"))
    streams = any(table.action is Action.STREAM for table in plan.tables)
    more = ", and one for each table and batch with changes" if streams else ""
    line(f"statements   {plan.statements:,} in the destination{more}")
    for change in plan.at_source:
        line(f"at source    {change}")
    aside = [table for table in plan.tables if table.action is Action.SET_ASIDE]
    if aside:
        count = f"{len(aside):,} of {len(plan.tables):,} tables"
        line(f"set aside    {count}; the run will end with exit code 3", "bold yellow")
    for table in plan.tables:
        why = f" ({table.reason})" if table.reason else ""
        head = f"{table.table} -> {table.target or 'no table'}: {_WORDS[table.action]}{why}"
        # In one piece: a console takes long for each.
        details = "".join(f"\n  {printable(detail)}" for detail in _details(table))
        style = _STYLES.get(table.action, "")
        text = Text.assemble("\n", (printable(head), style), details)
        out.print(text, highlight=False, soft_wrap=True)
    for one in plan.passed_over:
        line(f"passed over  {one.table}: {one.reason.value}")


def _details(table: PlannedTable) -> Iterator[str]:
    if table.action is Action.READ:
        yield _amount(table.rows, table.bytes)
    yield from (definition_text(definition) for definition in table.definitions)
    yield from (f"write the difference to {name}" for name in table.history)
    if table.rules:
        yield f"rules: {rules_text(table.rules)}"
    yield from table.notes
    if table.dropped_columns:
        yield f"dropped at the source, kept as NULL in new rows: {', '.join(table.dropped_columns)}"
    yield from _column_lines(table.columns)
    for column in table.left_out:
        yield f"left out: {column.name}, {column.why}"


def _amount(rows: int, bytes_: int) -> str:
    if not (rows or bytes_):
        return "empty, or without statistics yet"
    return f"about {rows:,} rows, {size(bytes_)}"


def _column_lines(columns: Sequence[PlannedColumn]) -> Iterator[str]:
    """Yield the columns as aligned text; a column that keeps its name shows it once."""
    cells = []
    for column in columns:
        name = column.name if column.name == column.target else f"{column.name} as {column.target}"
        notes = ["key"] if column.key else []
        types = (column.type, column.target_type)
        cells.append((name, *types, "; ".join([*notes, *column.losses])))
    widths = [max((len(row[n]) for row in cells), default=0) for n in range(3)]
    for row in cells:
        padded = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        yield "  ".join([*padded, row[3]]).rstrip()


def definition_text(definition: Definition) -> str:
    match definition.kind:
        case DefinitionKind.RENAME_TABLE:
            return f"rename table {definition.was} to {definition.table}"
        case DefinitionKind.RENAME_COLUMN:
            return f"rename column {definition.was} to {definition.column}"
        case DefinitionKind.ADD_COLUMN:
            return f"add column {definition.column} {definition.type}"
        case DefinitionKind.WIDEN_COLUMN:
            return f"widen column {definition.column} from {definition.was} to {definition.type}"
        case kind:
            return f"{kind.value} {definition.table}"


def plan_as_json(plan: RunPlan) -> dict[str, Any]:
    return {
        "run": plan.run.value,
        "why": plan.why,
        "problem": plan.problem or None,
        "source": {
            "system_id": plan.source.system_id,
            "database": plan.source.database,
            "slot_name": plan.source.slot_name,
            "current_lsn": str(plan.current),
        },
        "checkpoint_lsn": None if plan.checkpoint is None else str(plan.checkpoint),
        "at_source": list(plan.at_source),
        "statements": plan.statements,
        "wal_bytes": plan.wal_bytes,
        "bytes": plan.bytes,
        "tables": [_table(table) for table in plan.tables],
        "passed_over": [
            {"table": str(one.table), "reason": one.reason.value} for one in plan.passed_over
        ],
    }


def _table(table: PlannedTable) -> dict[str, Any]:
    return {
        "table": table.table,
        "target": table.target,
        "action": table.action.value,
        "reason": table.reason or None,
        "columns": [
            {
                "name": column.name,
                "type": column.type,
                "target": column.target,
                "target_type": column.target_type,
                "key": column.key,
                "losses": list(column.losses),
            }
            for column in table.columns
        ],
        "left_out": [{"name": column.name, "why": column.why} for column in table.left_out],
        "dropped_columns": list(table.dropped_columns),
        "definitions": [
            {
                "kind": definition.kind.value,
                "table": definition.table,
                "column": definition.column or None,
                "type": definition.type or None,
                "was": definition.was or None,
            }
            for definition in table.definitions
        ],
        "rules": dict(table.rules),
        "history": list(table.history),
        "statements": table.statements,
        "notes": list(table.notes),
        "rows": table.rows,
        "bytes": table.bytes,
    }
