"""Task parameters of the wheel scripts."""

from __future__ import annotations

import pytest

from entrypoints import wheel
from entrypoints.settings import Settings
from tests.unit.entrypoints.conftest import DSN, PASSWORD


def _fails(capsys, program, *arguments, mode=None, code=2):
    assert wheel.run(program, arguments, mode) == code
    out, error = capsys.readouterr()
    assert out == ""
    assert PASSWORD not in error
    return error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "--mode"),
        ("--mode both", "unknown --mode 'both'"),
        ("--mode snapshot --mode", "--mode"),
        ("--mode cdc --log-level LOUD", "LOG_LEVEL"),
        ("--mode cdc --destination lake", "unknown --destination 'lake'"),
        ("--mode cdc --slot-name X", "sources.pg_replication.slot_name"),
        ("--mode cdc --warehouse x", "--warehouse"),
        ("--mode cdc --destination duckdb", "credentials is missing"),
    ],
)
def test_wrong_parameters_are_exit_2(arguments, told, capsys):
    assert told in _fails(capsys, "pipeline_main", *arguments.split())


def test_mode_is_fixed_in_the_other_scripts(capsys):
    assert "--mode" in _fails(capsys, "full_load", "--mode", "cdc", mode="snapshot")
    assert "--follow" in _fails(capsys, "full_load", "--follow", mode="snapshot")
    assert "--tables" in _fails(capsys, "cdc_load", "--tables", "x", mode="cdc")


@pytest.mark.parametrize("script", [wheel.pipeline_main, wheel.full_load, wheel.cdc_load])
def test_scripts_fail_the_task_by_their_exit_code(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["script", "--nonsense"])
    with pytest.raises(SystemExit) as end:
        script()
    assert end.value.code == 2


def test_every_parameter_is_a_setting():
    for key in wheel.PARAMETERS.values():
        model = Settings
        for part in key.split("."):
            field = model.model_fields[part]
            model = field.annotation


def test_parameters_become_settings(monkeypatch):
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    given = (
        "--mode cdc --catalog main --http-path /sql/1 --server-hostname w.example.com"
        " --dataset-name silver --parallelism 4 --schemas public,app --keep-staged-files true"
        " --client-id abc"
    )
    chosen = wheel.build_parser("pipeline_main").parse_args(given.split())
    monkeypatch.setenv("DESTINATION__DATABRICKS__CREDENTIALS__CLIENT_SECRET", "x")
    settings = wheel._settings(chosen)
    credentials = settings.databricks.credentials
    assert (credentials.catalog, credentials.http_path) == ("main", "/sql/1")
    assert settings.pipeline.dataset_name == "silver"
    assert settings.source.parallelism == 4
    assert settings.source.schemas == ("public", "app")
    assert settings.databricks.keep_staged_files


def test_http_path_is_asked_for_even_on_databricks(monkeypatch, capsys):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4")
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    line = _fails(capsys, "pipeline_main", "--mode", "cdc", "--catalog", "main")
    assert "http_path is missing" in line
