"""Write results into the docs: the tables between two marks of the page, and the chart.

    uv run python -m benchmarks.document [--json FILE] [--check]

FILE is the output of `benchmarks.run --json`. --check writes nothing, and exits with 1 if the docs
do not match FILE.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.chart import throughput_chart
from benchmarks.figures import read_report
from benchmarks.report import as_markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Report

DOCS = Path(__file__).parents[1] / "docs" / "explanation"
RESULTS = DOCS / "performance.json"
PAGE = DOCS / "performance.md"
CHART = DOCS / "performance.svg"
BEGIN = "<!-- figures: begin (written by benchmarks.document) -->"
END = "<!-- figures: end -->"


def page(text: str, report: Report) -> str:
    """The page with the report's figures between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page has no marks {BEGIN!r} and {END!r}")
    found = report.environment
    machine = (
        f"Measured on a machine of {found['cores']} cores ({found['machine']}), PostgreSQL "
        f"{found['postgresql']} on loopback, Python {found['python']}."
    )
    parts = [BEGIN, machine, *_provisional(report), as_markdown(report), END]
    return before + "\n\n".join(parts) + after


def _provisional(report: Report) -> list[str]:
    """A warning that names the cases in which every contender ran only once."""
    once = [
        case.name for case in report.cases if max((f.runs for f in case.figures), default=0) < 2
    ]
    # Latency needs one long run, not many runs.
    once = [name for name in once if not name.startswith("latency")]
    if not once:
        return []
    warning = "Provisional, from single runs that may have shared the machine with other work"
    return [f"{warning}: {', '.join(once)}."]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.document")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file of results to read")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    chosen = parser.parse_args(arguments)
    report = read_report(chosen.json)
    wanted = {PAGE: page(PAGE.read_text(), report), CHART: throughput_chart(report.cases)}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if chosen.check:
        for path in stale:
            print(f"{path.name} does not match {chosen.json.name}", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
