"""The benchmark's own command at a size of seconds: every contender of ours ends with all rows."""

from __future__ import annotations

import pytest

from benchmarks.figures import read_report
from benchmarks.run import main
from benchmarks.scenarios import growth

#: Not in the order in which results are told.
ASKED = ["snapshot", "inserts", "latency"]
SMALL = ["--rows", "400", "--repeat", "1", "--follow-seconds", "1"]


def test_command_measures_and_keeps_results(tmp_path, capsys):
    path = tmp_path / "results.json"
    main([*ASKED, *SMALL, "--json", str(path)])
    report = read_report(path)
    assert [case.name for case in report.cases] == ["inserts", "snapshot", "latency"]
    inserts, snapshot, latency = report.cases
    assert [figure.rows for figure in inserts.figures] == [400] * 4
    assert [figure.rows for figure in snapshot.figures] == [1000] * 4
    assert [figure.rows for figure in latency.figures] == [500]
    for case in report.cases:
        for figure in case.figures:
            assert (figure.runs, figure.note) == (1, "")
            assert figure.rows_per_second > 0
            assert figure.peak_mb > 0
    assert 0 < latency.values["p50"] <= latency.values["p95"] <= latency.values["longest"]
    assert "pgbronze cdc --follow" in capsys.readouterr().out


def test_every_destination_and_history_ends_with_all_rows(tmp_path):
    """Each run compares the rows itself, or counts them."""
    asked = ["mixed", "history-updates", "delta-inserts", "delta-merge", "databricks-inserts"]
    path = tmp_path / "results.json"
    main([*asked, *SMALL, "--json", str(path)])
    report = read_report(path)
    assert [case.name for case in report.cases] == [name.replace("-", " ") for name in asked]
    assert all(figure.note == "" for case in report.cases for figure in case.figures)
    assert report.cases[-1].values["bytes uploaded per changed row"] > 0


def test_growth_is_reported_for_whole_runs_and_imported_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "SIZES", (1, 8))
    path = tmp_path / "results.json"
    main(["growth-cdc", *SMALL, "--json", str(path)])
    (case,) = read_report(path).cases
    assert [f.rows for f in case.figures[::2]] == [1000, 200, 1600]
    for whole, imported in zip(case.figures[::2], case.figures[1::2], strict=True):
        assert 0 < imported.seconds < whole.seconds
    assert len(case.values) == 4


def test_every_command_is_measured_over_many_tables(tmp_path):
    path = tmp_path / "results.json"
    main(["small-tables", "--rows", "6000", "--repeat", "1", "--json", str(path)])
    (case,) = read_report(path).cases
    assert [(figure.rows, figure.runs, figure.note) for figure in case.figures] == [(3, 1, "")] * 6


@pytest.mark.spark
def test_spark_reads_every_row(tmp_path):
    path = tmp_path / "results.json"
    main(["spark", *SMALL, "--json", str(path)])
    (case,) = read_report(path).cases
    ours, jdbc = case.figures[:3], case.figures[3]
    assert [(figure.rows, figure.runs, figure.note) for figure in ours] == [(1000, 1, "")] * 3
    assert jdbc.runs == 1 or "libpostgresql-jdbc-java" in jdbc.note


def test_an_unknown_case_or_peer_is_refused(capsys):
    for wrong in (["insert"], ["inserts", "--peers", "debezum"]):
        with pytest.raises(SystemExit):
            main(wrong)
        assert "no such" in capsys.readouterr().err
