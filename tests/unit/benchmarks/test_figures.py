"""The benchmarks' arithmetic, and that what is shown is what was measured."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ET

import duckdb
import pytest

from benchmarks import document
from benchmarks.bench import Bench, Contender, NotMeasured
from benchmarks.chart import throughput_chart
from benchmarks.figures import CaseResult, Figure, Report, Run, figure, read_report, with_ratios
from benchmarks.ours import Pgbronze
from benchmarks.peers.environment import Environment
from benchmarks.processes import CommandFailed, MemoryWatch, weigh
from benchmarks.report import as_markdown, as_text
from benchmarks.run import parser
from benchmarks.scenarios.choice import CASES
from benchmarks.scenarios.growth import exponent, exponents
from benchmarks.scenarios.latency import Timeline, delays_of

TOTAL = "SELECT count(*), sum(quantity) FROM {table}"


def _run(seconds, peak_mb=10.0, rows_out=None):
    return Run(seconds, seconds / 2, seconds / 4, peak_mb, rows_out)


def _case():
    figures = [
        figure("inserts", "pg_recvlogical", "raw bytes", 1000, [_run(2.0)]),
        figure("inserts", "pgbronze cdc", "tables", 1000, [_run(1.0), _run(9.0), _run(0.5)]),
        figure("inserts", "peer", "events", 1000, [], "needs a JVM"),
    ]
    return CaseResult("inserts", "rows", with_ratios(figures), {"p95": 0.25})


def test_ratios_are_of_medians_and_peaks_are_the_highest():
    base, ours, peer = _case().figures
    assert (base.ratio, ours.ratio, peer.ratio) == (1.0, 2.0, None)
    assert (ours.seconds, ours.rows_per_second, ours.runs) == (1.0, 1000, 3)
    assert figure("c", "x", "", 1, [_run(1, 5.0), _run(1, 70.4)]).peak_mb == 70


def test_rows_lost_by_a_contender_are_reported():
    lost = figure("c", "x", "events", 1000, [_run(1.0, rows_out=999)])
    assert lost.note == "gave 999 of 1,000 rows"
    assert "gave 999 of 1,000 rows" in as_text(Report({}, [CaseResult("c", "", [lost])]))
    assert figure("c", "x", "", 1000, [_run(1.0, rows_out=1000)]).note == ""


def test_exponents_of_growth_are_reported_with_and_without_the_fixed_cost():
    whole = [
        Figure("c", "x", "", n, 1, 2.0 + n / 1000, cpu_seconds=1.5 + n / 500, server_cpu_seconds=k)
        for n, k in ((0, 0.5), (1000, 1.5), (2000, 4.5), (4000, 16.5), (8000, 64.5))
    ]
    imported = [Figure("c", "x", "", n, 1, 3 + n * n / 1e6) for n in (0, 1000, 2000, 4000, 8000)]
    once_imported, cpu, without, seconds = exponents(whole, imported).values()
    assert once_imported == 2.0
    assert cpu == exponent([1000, 2000, 4000, 8000], [3, 8, 24, 80])
    assert without == 1.0
    assert seconds < 0.6
    assert math.isnan(exponent([1000, 2000], [1, 2], 1.0))


def test_latency_ends_at_the_first_moment_that_confirms_the_commit():
    commits, confirmed = Timeline(), Timeline()
    for lsn, moment in ((10, 1.0), (20, 1.5), (30, 2.0)):
        commits.add(lsn, moment)
    for lsn, moment in ((5, 0.5), (20, 3.0), (35, 4.0)):
        confirmed.add(lsn, moment)
    assert list(delays_of(commits, confirmed)) == [2.0, 1.5, 2.0]


def test_memory_counts_the_whole_process_tree(tmp_path):
    child = "import time; held = b'x' * 150_000_000; time.sleep(0.6)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert weigh([sys.executable, "-c", parent], tmp_path).peak_mb > 150


def test_memory_of_a_very_short_process(tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryWatch, "_watch", lambda self: None)
    assert weigh(["true"], tmp_path).peak_mb > 0


def test_a_command_that_fails_or_hangs_is_no_measurement(tmp_path):
    with pytest.raises(CommandFailed, match="exit 3: why"):
        weigh([sys.executable, "-c", "print('why'); raise SystemExit(3)"], tmp_path)
    with pytest.raises(CommandFailed, match=r"not done after 0\.5 s"):
        weigh([sys.executable, "-c", "import time; time.sleep(30)"], tmp_path, limit_seconds=0.5)


def test_a_peer_that_cannot_be_installed_is_named_with_its_reason(tmp_path):
    bench = Bench(None, tmp_path, tmp_path, 1000, say=lambda _: None)
    future = Environment("none", (), python=(3, 99))

    def refused():
        future.bin(tmp_path)

    def measured(*, peer):
        contenders = [
            Contender("base", "", lambda: _run(1.0), 1),
            Contender("peer", "events", refused, 1, peer=peer),
        ]
        return bench.measure("inserts", "", 1000, contenders)

    case = measured(peer=True)
    assert case.figures[1].runs == 0
    told = as_markdown(Report({}, [case]))
    assert "| peer | - | - | - | - | - | - | 0 | not measured: needs Python 3.99 or newer" in told
    with pytest.raises(NotMeasured):
        measured(peer=False)


def test_a_lake_that_is_not_the_source_ends_the_benchmark(tmp_path):
    class Source:
        total = (2, 30)

        def row(self, query):
            assert query == TOTAL.format(table="orders")
            return self.total

    bench = Bench(Source(), tmp_path, tmp_path, 1000)
    ours = Pgbronze(bench)
    with duckdb.connect(str(ours.lake)) as lake:
        lake.execute("CREATE SCHEMA bronze")
        lake.execute("CREATE TABLE bronze.orders AS SELECT unnest([10, 20]) AS quantity")
    ours.require_equal(TOTAL, ["orders"])
    bench.server.total = (2, 31)
    with pytest.raises(AssertionError, match="2, 31"):
        ours.require_equal(TOTAL, ["orders"])


def test_contenders_that_were_not_asked_for_are_left_out(tmp_path):
    bench = Bench(None, tmp_path, tmp_path, 1000, say=lambda _: None)
    contenders = [
        Contender("ours", "", lambda: _run(1.0), 0),
        Contender("p", "", lambda: _run(1.0), 1),
    ]
    ours, peer = bench.measure("inserts", "", 1000, contenders).figures
    assert (ours.runs, ours.note, peer.runs) == (0, "left out", 1)


def test_chart_is_drawn_from_the_figures_and_always_the_same():
    chart = throughput_chart([_case()])
    assert chart == throughput_chart([_case()])
    bars = [rect for rect in ET.fromstring(chart) if rect.get("height") == "16"]
    base, ours = (float(bar.get("width")) for bar in bars)
    assert ours == pytest.approx(2 * base)


def test_results_outlive_their_file_and_replace_their_own_case_only(tmp_path):
    report = Report({"cores": 2}, [_case(), CaseResult("latency", "", [], {"p95": 1.0})])
    report.write(tmp_path / "results.json")
    again = read_report(tmp_path / "results.json")
    assert again == report
    again.put(CaseResult("inserts", "anew", []))
    assert [(case.name, case.about) for case in again.cases] == [
        ("inserts", "anew"),
        ("latency", ""),
    ]


def test_figures_in_the_docs_are_those_of_the_results():
    assert document.main(["--check"]) == 0


def test_commands_in_the_docs_are_understood():
    command = ["uv", "run", "python", "-m", "benchmarks.run"]
    lines = [line.split() for line in document.PAGE.read_text().splitlines()]
    told = [line[5:] for line in lines if line[:5] == command]
    assert len(told) == 2
    for arguments in told:
        chosen = parser().parse_args(arguments)
        assert set(chosen.cases) <= CASES.keys()


def test_cases_measured_once_are_marked_provisional():
    marks = f"{document.BEGIN}{document.END}"
    machine = {"cores": 2, "machine": "x", "postgresql": "18", "python": "3.11"}
    single = CaseResult("snapshot", "", [figure("snapshot", "ours", "", 1, [_run(1.0)])])
    assert "work: snapshot.\n" in document.page(marks, Report(machine, [_case(), single]))
    assert "Provisional" not in document.page(marks, Report(machine, [_case()]))


def test_stale_docs_are_found(tmp_path, monkeypatch):
    page, chart = tmp_path / "page.md", tmp_path / "chart.svg"
    page.write_text(document.PAGE.read_text())
    chart.write_text(document.CHART.read_text())
    monkeypatch.setattr(document, "PAGE", page)
    monkeypatch.setattr(document, "CHART", chart)
    assert document.main(["--check"]) == 0
    page.write_text(page.read_text().replace("on loopback", "on a network"))
    assert document.main(["--check"]) == 1
    assert document.main([]) == 0
    assert page.read_text() == document.PAGE.read_text()
