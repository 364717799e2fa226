"""Task parameters of the wheel scripts."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from entrypoints import wheel
from entrypoints.cli import parameters
from entrypoints.settings.model import Settings
from tests.unit.entrypoints.conftest import DSN, PASSWORD


def _fails(capsys, program, *arguments, mode=None, code=2):
    with pytest.raises(wheel.TaskFailed) as end:
        wheel.run(program, arguments, mode)
    assert end.value.code == code
    out, error = capsys.readouterr()
    assert out == ""
    assert PASSWORD not in error
    # What a job's page shows is the last line of the log.
    assert error.splitlines()[-1] == str(end.value)
    return error


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """What the scripts set for their process is not for other tests."""
    monkeypatch.setenv("LOG_LEVEL", "INFO")
    monkeypatch.setenv("TERM", "dumb")


def _chosen(*arguments, mode=None):
    return wheel.build_parser("script", mode).parse_args(arguments)


def _settings(chosen):
    return parameters.settings(parameters.given(chosen))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "--mode"),
        ("--mode both", "unknown --mode 'both'"),
        ("--mode snapshot --mode", "--mode"),
        ("--mode snapshot --mode cdc", "--mode: given twice"),
        ("--mode cdc --destination duckdb --destination delta", "--destination: given twice"),
        ("--mode cdc --follow --follow 60", "--follow: given twice"),
        ("--mode cdc --log-level LOUD", "LOG_LEVEL"),
        ("--mode cdc --destination lake", "unknown --destination 'lake'"),
        ("--mode cdc --destination lake", "one of: databricks, duckdb, delta; see"),
        ("--mode cdc --slot-name X", "sources.pg_replication.slot_name"),
        ("--mode cdc --warehouse x", "--warehouse"),
        ("--mode cdc --destination duckdb", "credentials is missing"),
        ("--mode cdc --tables orders", "--tables does not go with --mode cdc"),
        ("--mode snapshot --follow", "--follow does not go with --mode snapshot"),
        ("--mode cdc --follow soon", "'soon' is not a number of seconds"),
    ],
)
def test_wrong_parameters_are_exit_2(arguments, told, capsys):
    assert told in _fails(capsys, "pipeline_main", *arguments.split())


def test_mode_is_fixed_in_the_other_scripts(capsys):
    assert "--mode" in _fails(capsys, "full_load", "--mode", "cdc", mode="snapshot")
    assert "--follow" in _fails(capsys, "full_load", "--follow", mode="snapshot")
    assert "--tables" in _fails(capsys, "cdc_load", "--tables", "x", mode="cdc")


SCRIPTS = [wheel.pipeline_main, wheel.full_load, wheel.cdc_load, wheel.command]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_fail_the_task_and_return_otherwise(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["script", "--nonsense"])
    with pytest.raises(SystemExit) as end:
        script()
    assert end.value.code == 2
    monkeypatch.setattr("sys.argv", ["script", "--help"])
    assert script() is None


def test_a_process_ends_with_the_exit_code_and_one_line():
    code = "import sys; sys.argv[1:] = ['--x']; from entrypoints.wheel import full_load as f; f()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_parameters_become_settings(monkeypatch):
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    given = (
        "--mode cdc --catalog main --http-path /sql/1 --server-hostname w.example.com"
        " --dataset-name silver --parallelism 4 --schemas public,app --keep-staged-files true"
        " --client-id abc"
    )
    monkeypatch.setenv("DESTINATION__DATABRICKS__CREDENTIALS__CLIENT_SECRET", "x")
    settings = _settings(_chosen(*given.split()))
    credentials = settings.destination.databricks.credentials
    assert (credentials.catalog, credentials.http_path) == ("main", "/sql/1")
    assert settings.pipeline.dataset_name == "silver"
    assert settings.source.parallelism == 4
    assert settings.source.schemas == ("public", "app")
    assert settings.destination.databricks.keep_staged_files


def test_an_empty_parameter_is_none(monkeypatch):
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    given = ["--mode", "cdc", "--destination", "duckdb", "--log-level", "", "--follow", ""]
    given += ["--dlt-scope", "", "--exclude", "", "--tables", "", "--batch-max-rows", ""]
    chosen = _chosen(*given)
    settings = _settings(chosen)
    assert settings.source.dsn == DSN
    assert settings.source.batch_max_rows == Settings().source.batch_max_rows
    assert wheel._tables(chosen) == []
    assert chosen.follow == 0


def test_an_empty_destination_is_none_too(monkeypatch):
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    monkeypatch.setenv("PIPELINE__DESTINATION", "duckdb")
    settings = _settings(_chosen("--destination=", mode="snapshot"))
    assert settings.pipeline.destination == "duckdb"


def test_a_parameter_may_be_said_again():
    given = ["--slot-name=", "--slot-name=a", "--slot-name=a", "--slot-name="]
    assert _chosen(*given, mode="cdc").slot_name == "a"


@pytest.mark.parametrize(
    ("given", "seconds"), [([], 0), (["--follow"], math.inf), (["--follow", "60"], 60)]
)
def test_follow_has_a_length(given, seconds):
    assert _chosen(*given, mode="cdc").follow == seconds


def test_one_parameter_may_name_several_tables():
    chosen = _chosen("--tables", "orders, public.line*", "app.x", mode="snapshot")
    assert wheel._tables(chosen) == ["orders", "public.line*", "app.x"]


def test_http_path_is_asked_for_where_a_warehouse_is_chosen(monkeypatch, capsys):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4")
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    given = ("--mode", "cdc", "--catalog", "main", "--engine", "warehouse")
    line = _fails(capsys, "pipeline_main", *given)
    assert "http_path is missing" in line
