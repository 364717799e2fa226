"""Measure throughput, latency and memory of whole processes, next to PostgreSQL's tools and peers.

    uv run python -m benchmarks.run [CASE …] [--rows N] [--repeat N] [--peers [NAME …]] [--json F]

It starts its own server and creates all data. Each case prepares its WAL or table once, and every
contender reads that in turn. Figures are medians. `ratio` is rows per second relative to the case's
first contender. --json replaces the measured cases in the file and keeps the others.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.embedded_postgres import EmbeddedPostgres
from benchmarks.bench import Bench
from benchmarks.figures import Report, read_report
from benchmarks.peers.choice import PEERS
from benchmarks.peers.environment import default_cache
from benchmarks.report import as_text
from benchmarks.scenarios.choice import CASES
from benchmarks.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = 2_000_000
ORDER = [name.replace("-", " ") for name in CASES]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=(__doc__ or "").partition("\n")[0]
    )
    found.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}"
    )
    found.add_argument(
        "--rows",
        type=int,
        default=ROWS,
        help="scales the sizes of all cases (default: %(default)s)",
    )
    found.add_argument(
        "--repeat",
        type=int,
        default=3,
        help="runs of pgbronze and PostgreSQL's tools; 0: peers only",
    )
    found.add_argument("--peer-repeat", type=int, default=1, help="runs of each peer")
    found.add_argument("--peers", default="", help=f"`all`, or some of {','.join(PEERS)}")
    found.add_argument(
        "--cache", type=Path, default=default_cache(), help="folder to install peers in"
    )
    found.add_argument("--follow-seconds", type=float, default=60.0, help="duration of `latency`")
    found.add_argument(
        "--postgres-bin", type=Path, help="folder of another server's programs (its version's)"
    )
    found.add_argument("--json", type=Path, help="write results to this file")
    return found


def environment(server: Server, rows: int) -> dict[str, object]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": server.version,
        "rows": rows,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parser()
    chosen = asked.parse_args(arguments)
    peers = PEERS if chosen.peers == "all" else tuple(filter(None, chosen.peers.split(",")))
    for what, names, known in (("case", chosen.cases, CASES), ("peer", peers, PEERS)):
        if unknown := sorted(set(names) - set(known)):
            asked.error(f"no such {what}: {', '.join(unknown)}")
    programs: Path | None = chosen.postgres_bin
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(bin_dir=programs) as embedded:
        server = Server(embedded, programs)
        bench = Bench(
            server,
            Path(folder),
            chosen.cache,
            chosen.rows,
            chosen.repeat,
            chosen.peer_repeat,
            peers,
            chosen.follow_seconds,
        )
        now = environment(server, chosen.rows)
        report = Report(now)
        if chosen.json and chosen.json.exists():
            report = read_report(chosen.json)
            if report.environment != now:
                asked.error(f"{chosen.json} was measured on {report.environment}, not on {now}")
        measured = Report(now)
        for name in chosen.cases or CASES:
            case = CASES[name](bench)
            measured.put(case)
            report.put(case)
            report.cases.sort(key=lambda known: ORDER.index(known.name))
            if chosen.json:
                report.write(chosen.json)
    print(as_text(measured))


if __name__ == "__main__":
    main()
