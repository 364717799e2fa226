"""Results as text for a terminal and as Markdown for the docs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.figures import CaseResult, Figure, Report

HEADS = (
    "contender", "rows/s", "ratio", "seconds", "CPU s", "server CPU s", "peak MB", "runs",
    "produces",
)  # fmt: skip


def as_text(report: Report) -> str:
    parts = [", ".join(f"{name} {value}" for name, value in report.environment.items())]
    for case in report.cases:
        rows = [HEADS, *map(_cells, case.figures)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(HEADS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        parts.append("\n".join([_title(case), *lines, *_values(case)]))
    return "\n\n".join(parts)


def as_markdown(report: Report) -> str:
    """A section for each case: a table, and the values that are no row of one."""
    parts = []
    for case in report.cases:
        lines = [f"### {_title(case)}", "", *_table(HEADS, map(_cells, case.figures))]
        if case.values:
            lines += ["", *_table(("value", ""), ((k, f"{v:g}") for k, v in case.values.items()))]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _title(case: CaseResult) -> str:
    return f"{case.name[:1].upper()}{case.name[1:]}: {case.about}"


def _cells(figure: Figure) -> tuple[str, ...]:
    produces = f"{figure.produces} ({figure.note})" if figure.note else figure.produces
    if not figure.runs:
        return (figure.contender, *["-"] * 6, "0", f"not measured: {figure.note}")
    return (
        figure.contender,
        f"{figure.rows_per_second:,}",
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        f"{figure.seconds:.2f}",
        f"{figure.cpu_seconds:.1f}",
        f"{figure.server_cpu_seconds:.1f}",
        str(figure.peak_mb),
        str(figure.runs),
        produces,
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    aligned = [":--" if n in (0, 8) else "--:" for n in range(len(heads))]
    return [_row(heads), _row(aligned), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _values(case: CaseResult) -> list[str]:
    return [f"{name}: {value:g}" for name, value in case.values.items()]
