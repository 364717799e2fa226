"""The asset bundle against the published classes of bundles, the wheel and its real arguments."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from typing import Any

import pytest
from databricks.bundles.jobs import Job

from entrypoints import wheel
from tests.support.bundle import BUNDLE, ROOT, USER, jobs, parameters

GIVEN = {"catalog": "main", "warehouse_id": "abc123"}
JOBS = ("full_load", "cdc_stream")
MODES = {"full_load": "snapshot", "cdc_load": "cdc"}


def wheel_task(job: dict[str, Any]) -> dict[str, Any]:
    (task,) = job["tasks"]
    found: dict[str, Any] = task["python_wheel_task"]
    return found


@pytest.mark.parametrize("target", BUNDLE["targets"])
def test_jobs_are_what_the_published_classes_take(target: str) -> None:
    found = jobs(target, **GIVEN, notify=["ops@example.com"])
    assert tuple(found) == JOBS
    for job in found.values():
        # Equal: the classes would turn a value of another type into theirs.
        assert Job.from_dict(job).as_dict() == job


def test_a_field_that_does_not_exist_is_refused() -> None:
    job = {**jobs("prod", **GIVEN)["full_load"], "max_runs": 1}
    with pytest.raises(ValueError, match="max_runs"):
        Job.from_dict(job)


@pytest.mark.parametrize("name", JOBS)
def test_jobs_are_serverless_and_one_at_a_time(name: str) -> None:
    job = Job.from_dict(jobs("prod", **GIVEN)[name])
    (task,), (environment,) = job.tasks, job.environments
    assert task.environment_key == environment.environment_key
    assert (task.existing_cluster_id, task.new_cluster, task.job_cluster_key) == (None,) * 3
    assert environment.spec.environment_version == "4"
    assert environment.spec.client is None
    assert environment.spec.dependencies[0] == "./dist/*.whl"
    assert job.max_concurrent_runs == 1


def test_the_stream_is_continuous_and_waits_to_be_let_loose() -> None:
    assert jobs("prod", **GIVEN)["cdc_stream"]["continuous"]["pause_status"] == "PAUSED"
    loose = jobs("prod", **GIVEN, cdc_pause_status="UNPAUSED")["cdc_stream"]
    assert Job.from_dict(loose).continuous.pause_status.value == "UNPAUSED"


@pytest.mark.parametrize("target", BUNDLE["targets"])
@pytest.mark.parametrize("name", JOBS)
def test_the_wheel_takes_every_parameter(
    name: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"sources.pg_replication.credentials": "postgresql://app@db/shop"}
    monkeypatch.setattr("entrypoints.settings.databricks_scope", lambda _: secret)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4")
    job = jobs(target, **GIVEN, secret_key="shop", schemas="public,app")[name]
    task = wheel_task(job)
    assert task["package_name"] == "wal2delta"
    (entry,) = distribution("wal2delta").entry_points.select(name=task["entry_point"])
    assert entry.load() is getattr(wheel, task["entry_point"])
    parser = wheel.build_parser(task["entry_point"], MODES[task["entry_point"]])
    chosen = parser.parse_args(parameters(job))
    settings = wheel._settings(chosen)
    assert settings.pipeline.destination == "databricks"
    assert settings.databricks.credentials.for_dlt() == {
        "http_path": "/sql/1.0/warehouses/abc123",
        "catalog": "main",
    }
    assert (settings.source.dlt_scope, settings.source.pg_connection_string) == (
        "dlt_scope",
        "shop",
    )
    assert settings.source.schemas == ("public", "app")
    own = (settings.pipeline.dataset_name, settings.source.slot_name, settings.source.pub_name)
    assert (
        own
        == {
            "prod": ("bronze", "dlt_cdc_slot", "dlt_cdc_pub"),
            "dev": (f"dev_{USER}_bronze", f"dlt_cdc_slot_{USER}", f"dlt_cdc_pub_{USER}"),
        }[target]
    )
    assert chosen.log_level == "INFO"


def test_job_parameters_reach_the_run() -> None:
    found = jobs("prod", **GIVEN)
    parser = wheel.build_parser("full_load", "snapshot")
    full = parser.parse_args(parameters(found["full_load"], tables="orders,public.line*"))
    assert wheel._tables(full) == ["orders", "public.line*"]
    assert wheel._tables(parser.parse_args(parameters(found["full_load"]))) == []
    parser = wheel.build_parser("cdc_load", "cdc")
    assert parser.parse_args(parameters(found["cdc_stream"])).follow == 3600
    short = parser.parse_args(parameters(found["cdc_stream"], follow_seconds="0"))
    assert short.follow == 0


def test_every_variable_is_explained_and_used() -> None:
    text = (ROOT / "databricks.yml").read_text()
    for name, declared in BUNDLE["variables"].items():
        assert declared["description"], name
        assert f"${{var.{name}}}" in text, name
    needed = {name for name, v in BUNDLE["variables"].items() if "default" not in v}
    assert needed == GIVEN.keys()


def test_pins_are_the_versions_that_the_tests_run_with() -> None:
    locked = {
        package["name"]: package["version"]
        for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    }
    found = jobs("prod", **GIVEN)["cdc_stream"]["environments"][0]["spec"]["dependencies"]
    pins = dict(re.fullmatch(r"(\S+)==(\S+)", pin).groups() for pin in found[1:])
    assert pins
    assert pins == {name: locked[name] for name in pins}
