"""Results of one contender in one case, and the tables made of them: medians and ratios."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One whole process: from its start to its end, everything that it started included.

    `server_cpu_seconds` is what the database spent meanwhile, its background workers too.
    """

    seconds: float
    cpu_seconds: float
    server_cpu_seconds: float
    peak_mb: float
    #: Rows that the contender reports, or that were counted in its output; None if unknown.
    rows_out: int | None = None

    def of_rows(self, rows_out: int) -> Run:
        return replace(self, rows_out=rows_out)


@dataclass(frozen=True)
class Figure:
    """The medians of a contender's runs. `ratio` is its rows/s against the case's baseline, which
    is the case's first contender. Without runs `note` says why it was not measured."""

    case: str
    contender: str
    produces: str
    rows: int
    runs: int = 0
    seconds: float = 0.0
    rows_per_second: int = 0
    ratio: float | None = None
    cpu_seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    peak_mb: int = 0
    note: str = ""


@dataclass
class CaseResult:
    """A case: its table, and what is no row of a table (percentiles, exponents) by name."""

    name: str
    about: str
    figures: list[Figure]
    values: dict[str, float] = field(default_factory=dict)


@dataclass
class Report:
    """All cases measured on one class of machine; `environment` names it in neutral words."""

    environment: dict[str, Any]
    cases: list[CaseResult] = field(default_factory=list)

    def put(self, case: CaseResult) -> None:
        """Add the case, in the place of an older result of it."""
        names = [known.name for known in self.cases]
        if case.name in names:
            self.cases[names.index(case.name)] = case
        else:
            self.cases.append(case)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read_report(path: Path) -> Report:
    raw = json.loads(path.read_text())
    cases = [
        CaseResult(c["name"], c["about"], [Figure(**f) for f in c["figures"]], c["values"])
        for c in raw["cases"]
    ]
    return Report(raw["environment"], cases)


def figure(
    case: str, contender: str, produces: str, rows: int, runs: Sequence[Run], note: str = ""
) -> Figure:
    """The medians of `runs`, the highest peak. A count that is off is noted, never left out."""
    if not runs:
        return Figure(case, contender, produces, rows, note=note)
    seconds = statistics.median(run.seconds for run in runs)
    wrong = sorted({run.rows_out for run in runs if run.rows_out not in (None, rows)})
    if wrong:
        note = "; ".join(filter(None, [note, f"gave {wrong[0]:,} of {rows:,} rows"]))
    return Figure(
        case,
        contender,
        produces,
        rows,
        runs=len(runs),
        seconds=round(seconds, 2),
        rows_per_second=round(rows / seconds),
        cpu_seconds=round(statistics.median(run.cpu_seconds for run in runs), 2),
        server_cpu_seconds=round(statistics.median(run.server_cpu_seconds for run in runs), 2),
        peak_mb=round(max(run.peak_mb for run in runs)),
        note=note,
    )


def with_ratios(figures: Iterable[Figure]) -> list[Figure]:
    """`ratio` of each figure against the first."""
    figures = list(figures)
    base = figures[0].rows_per_second if figures else 0
    return [
        replace(f, ratio=round(f.rows_per_second / base, 2)) if base and f.runs else f
        for f in figures
    ]
