"""dlt's providers, compared with what dlt itself finds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from adapters.secrets.dlt_providers import DltProviders, settings_folders
from adapters.setting_names import environment_name


def test_values_are_those_that_dlt_finds(tmp_path):
    """The same folder and environment, read by dlt in a process of its own."""
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "secrets.toml").write_text(
        "[sources.pg_replication]\nslot_name = 'secrets'\npub_name = 'secrets'\n"
    )
    (tmp_path / ".dlt" / "config.toml").write_text(
        "[sources.pg_replication]\nslot_name = 'config'\nplugin_name = 'config'\n"
    )
    given = {"SOURCES__PG_REPLICATION__PUB_NAME": "environment", "DLT_PROJECT_DIR": str(tmp_path)}
    keys = [f"sources.pg_replication.{name}" for name in ("slot_name", "pub_name", "plugin_name")]
    code = f"import dlt; print([dlt.config.get(k) or dlt.secrets.get(k) for k in {keys}])"
    environ = {**os.environ, **given, "RUNTIME__DLTHUB_TELEMETRY": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    ours = DltProviders.find(["sources.pg_replication"], given)
    assert done.stdout.strip() == str([ours.get(key) for key in keys])


def test_global_folder_is_dlts():
    from dlt.common.runtime.run_context import global_dir

    assert str(settings_folders(os.environ)[1]) == global_dir()


def test_origin_names_the_place(tmp_path):
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text("[pipeline]\nname = 'x'\n")
    environ = {"DLT_PROJECT_DIR": str(tmp_path), "PIPELINE__DATASET_NAME": "y"}
    providers = DltProviders.find(["pipeline"], environ, {"pipeline.destination": "duckdb"})
    assert providers.origin("pipeline.name").endswith("config.toml")
    assert "PIPELINE__DATASET_NAME" in providers.origin("pipeline.dataset_name")
    assert providers.origin("pipeline.destination") == "the command line"
    assert providers.origin("pipeline") is not None
    assert providers.origin("pipeline.other") is None


@pytest.mark.parametrize("key", ["pipeline.name", "sources.pg_replication.credentials"])
def test_environment_name(key):
    assert environment_name(key) == key.upper().replace(".", "__")
