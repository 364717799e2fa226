"""How far one process goes, and what more workers or more slots would change: a calculation.

    uv run python -m benchmarks.scale

It prints the tables of docs/explanation/scale.md, from the measured rates in performance.json and
those below. A unit test compares both. Nothing here was run at that size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.document import RESULTS
from benchmarks.figures import read_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.figures import Figure, Report

MB, GB, TB = 10**6, 10**9, 10**12

#: Bytes of a row of the benchmark's table on the source's disk.
ROW_BYTES = 149
#: CPU seconds of a Spark worker to read, decode and hand over 1,000,000 such rows, measured beside
#: other work: of both Python workers together. Java took another 1.5.
WORKER_SECONDS = 0.93


@dataclass(frozen=True)
class Source:
    """What the server and the way to it can deliver: bytes per second, and cores for reading."""

    disk: float = 1 * GB
    network: float = 1.25 * GB
    cores: int = 16


@dataclass(frozen=True)
class Rates:
    """Bytes per second of one core: of the server, of a worker, and of the driver, which decodes
    nothing and writes Parquet; and changes per second."""

    server: float
    worker: float
    driver: float
    changes_loaded: float
    changes_read: float
    server_seconds_per_million: float

    @classmethod
    def of(cls, report: Report) -> Rates:
        copy = _figure(report, "snapshot", "psql COPY")
        alone = _figure(report, "snapshot", "pgbronze, table to Parquet alone")
        stream = _figure(report, "inserts", "pgbronze cdc")
        read = _figure(report, "inserts", "pgbronze, WAL to Parquet alone")
        assert copy.server_cpu_seconds
        assert alone.rows_per_second
        assert stream.rows_per_second
        assert read.rows_per_second
        assert read.server_cpu_seconds
        return cls(
            server=copy.rows * ROW_BYTES / copy.server_cpu_seconds,
            worker=1e6 * ROW_BYTES / WORKER_SECONDS,
            driver=alone.rows_per_second * ROW_BYTES,
            changes_loaded=stream.rows_per_second,
            changes_read=read.rows_per_second,
            server_seconds_per_million=read.server_cpu_seconds / read.rows * 1e6,
        )


def _figure(report: Report, case: str, contender: str) -> Figure:
    (found,) = [known for known in report.cases if known.name == case]
    return next(one for one in found.figures if one.contender.startswith(contender))


def limits(rates: Rates, source: Source, connections: int, *, by_driver: bool) -> dict[str, float]:
    """Bytes per second that each part allows."""
    found = {
        "workers": connections * rates.worker,
        "source's disk": source.disk,
        "network": source.network,
        "source's cores": min(source.cores, connections) * rates.server,
    }
    return found | ({"driver": rates.driver} if by_driver else {})


def loads(rates: Rates) -> Iterator[str]:
    """10 TB over 64 workers, by the sessions that they may have."""
    yield "| rows go | sessions | limit | MB/s | 10 TB in hours |"
    yield "|---|---|---|---|---|"
    for by_driver in (True, False):
        for connections in (4, 16, 64):
            found = limits(rates, Source(), connections, by_driver=by_driver)
            name = min(found, key=lambda one: found[one])
            way = "through the driver" if by_driver else "from workers to files"
            hours = 10 * TB / found[name] / 3600
            yield (f"| {way} | {connections} | {name} | {found[name] / MB:,.0f} | {hours:,.1f} |")


def slots(rates: Rates) -> Iterator[str]:
    """Tables split over several slots: every slot decodes the whole WAL on the server."""
    yield "| slots | changes/s at most | server's CPU s for 1,000,000 changes |"
    yield "|---|---|---|"
    server = rates.server_seconds_per_million / 1e6
    client = 1 / rates.changes_read - server
    for count in (1, 2, 4, 8):
        # Each slot's walsender decodes all changes; its reader gets a share of them.
        speed = 1 / (server + max(0.0, client) / count)
        cost = count * rates.server_seconds_per_million
        yield f"| {count} | {speed:,.0f} | {cost:,.1f} |"


def one_process(rates: Rates) -> Iterator[str]:
    yield "| one process | rows/s | MB/s |"
    yield "|---|---|---|"
    for what, speed in (
        ("reads a table and writes Parquet", rates.driver / ROW_BYTES),
        ("reads WAL and writes Parquet", rates.changes_read),
        ("reads WAL and merges it into DuckDB", rates.changes_loaded),
    ):
        yield f"| {what} | {speed:,.0f} | {speed * ROW_BYTES / MB:,.0f} |"


def main() -> None:
    rates = Rates.of(read_report(RESULTS))
    for table in (one_process, loads, slots):
        print("\n".join(table(rates)), end="\n\n")


if __name__ == "__main__":
    main()
