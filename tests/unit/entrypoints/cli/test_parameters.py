"""Settings as options: which there are, and what the command line makes of them."""

from __future__ import annotations

from importlib.metadata import distribution

import pytest
from pydantic import BaseModel

from entrypoints import wheel
from entrypoints.cli import parameters
from entrypoints.cli.arguments import PROGRAM
from entrypoints.cli.main import main
from entrypoints.settings.model import Settings
from tests.unit.entrypoints.conftest import DSN, PASSWORD

DUCKDB = ("--destination=duckdb", "--duckdb-credentials=there/lake.duckdb")


def _leaves(model, prefix=""):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_setting_is_an_option_of_its_own_or_a_secret():
    options = list(parameters.OPTIONS.values())
    assert len(set(options)) == len(options)
    assert set(_leaves(Settings)) - set(options) == {
        "sources.pg_replication.credentials",
        "sources.pg_replication.mask_key",
        "destination.duckdb.create_indexes",
        "destination.databricks.create_indexes",
        *(
            f"destination.filesystem.{key}"
            for key in ("credentials", "kwargs", "client_kwargs", "deltalake_storage_options")
        ),
        *(
            f"destination.databricks.credentials.{key}"
            for key in ("access_token", "client_secret", "http_headers", "connection_parameters")
        ),
    }


def test_two_destinations_with_a_key_of_the_same_name():
    keys = ["destination.databricks.credentials.catalog", "destination.lake.catalog"]
    named = dict(zip(["catalog", "lake-catalog"], keys, strict=True))
    assert parameters._named(keys) == named


def test_every_command_takes_settings_as_options(monkeypatch, capsys, tmp_path):
    """The file's folder is missing, which says that the option was read; and nothing else was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", DSN)
    for command in ("check", "status", "verify", "cdc", "snapshot"):
        assert main([command, *DUCKDB]) == 2
        assert "its folder does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["status", "--slot-name=A"], "sources.pg_replication.slot_name = 'A' must be"),
        (["status", "--slot-name=a", "--slot-name=b"], "--slot-name: given twice"),
        (["status", "--credentials=" + DSN], "unrecognized arguments: --credentials;"),
        (["status", "--credentials", DSN], "unrecognized arguments: --credentials;"),
        (["status", DSN], "unrecognized arguments;"),
        (["status", "--log-level=LOUD"], "LOG_LEVEL is 'LOUD'"),
        (["slot", "--slot-name=a"], "ACTION"),
    ],
)
def test_wrong_options_are_exit_2(arguments, told, monkeypatch, capsys):
    monkeypatch.setenv("LOG_LEVEL", "INFO")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert PASSWORD not in error


def test_a_failed_command_fails_its_task(monkeypatch, capsys):
    (script,) = distribution(PROGRAM).entry_points.select(name=PROGRAM)
    assert script.load() is wheel.command
    monkeypatch.setattr("sys.argv", ["task", "verify", "--slot-name=A"])
    with pytest.raises(wheel.TaskFailed) as end:
        wheel.command()
    assert end.value.code == 2
    assert str(end.value) == capsys.readouterr().err.strip()
    # A command that only reports says why in its log.
    monkeypatch.setattr(wheel, "main", lambda lines: 1)
    with pytest.raises(wheel.TaskFailed, match="exit code 1; the log says why"):
        wheel.command()
