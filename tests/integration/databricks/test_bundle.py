"""The asset bundle against the published classes of bundles, the wheel and its real arguments."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from typing import Any

import pytest
from databricks.bundles.jobs import Job

from adapters.dlt_destination.databricks.engines import chosen_engine
from cdc_core.values.errors import SettingsError
from entrypoints import wheel
from entrypoints.cli import main as cli
from entrypoints.cli import parameters
from entrypoints.settings.model import Settings
from tests.support import constraints
from tests.support.bundle import BUNDLE, ROOT, USER, jobs, tasks
from tests.support.bundle import parameters as arguments

GIVEN = {"catalog": "main", "http_path": "/sql/1.0/warehouses/abc123"}
#: The tasks of each job, with the mode of the wheel's script or the command.
JOBS = {
    "full_load": {"full_load": "snapshot"},
    "cdc_stream": {"cdc_stream": "cdc"},
    "health": {"check": "check", "status": "status", "verify": "verify"},
}
TASKS = [(job, task) for job, found in JOBS.items() for task in found]
#: Options of the wheel that are no variable of the bundle, and why.
NO_VARIABLES = {
    **{
        name: "of another destination"
        for name, key in parameters.OPTIONS.items()
        if key.startswith("destination.") and not key.startswith("destination.databricks.")
    },
    "destination": "it is databricks",
    "plugin-name": "there is one",
    "password-command": "a job reads its secrets from the scope",
    "session-timezone": "there is one, UTC",
}
HOSTILE_USERS = (
    "jürgen.müller",
    "Jane-Doe+test",
    "ΩЖ漢字",
    "x" * 100,
    "o'brien; drop table",
    "ß",
)


def options(job: str, task: str, target: str = "prod", **variables: Any) -> dict[str, str]:
    """The settings of a task by their keys, as the wheel reads its parameters."""
    given = arguments(jobs(target, **{**GIVEN, **variables})[job], task)
    if job == "health":
        chosen, others = parameters.split(given, "pgbronze")
        assert cli.build_parser().parse_args(others).command == task
    else:
        script = tasks(jobs(target, **GIVEN)[job])[task]["entry_point"]
        chosen = wheel.build_parser(script, JOBS[job][task]).parse_args(given)
    assert chosen.log_level == "INFO"
    return parameters.given(chosen)


@pytest.fixture
def scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Databricks, with the source's credentials in its scope."""
    secret = {"sources.pg_replication.credentials": "postgresql://app@db/shop"}
    monkeypatch.setattr("entrypoints.settings.load.databricks_scope", lambda _: secret)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4")


@pytest.mark.parametrize("given", [GIVEN, {"catalog": "main"}], ids=["warehouse", "no warehouse"])
@pytest.mark.parametrize("target", BUNDLE["targets"])
def test_jobs_are_what_the_published_classes_take(target: str, given: dict[str, str]) -> None:
    hook = {"id": "0481e838-0a59-4eff-9541-a4ca6f149574"}
    found = jobs(target, **given, notify=["ops@example.com"], notify_webhooks=[hook])
    assert tuple(found) == tuple(JOBS)
    for name, job in found.items():
        # Equal: the classes would turn a value of another type into theirs.
        assert Job.from_dict(job).as_dict() == job
        assert tuple(tasks(job)) == tuple(JOBS[name])


def test_a_field_that_does_not_exist_is_refused() -> None:
    job = {**jobs("prod", **GIVEN)["full_load"], "max_runs": 1}
    with pytest.raises(ValueError, match="max_runs"):
        Job.from_dict(job)


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("version", constraints.ENVIRONMENTS)
def test_jobs_are_serverless_and_one_at_a_time(name: str, version: str) -> None:
    job = Job.from_dict(jobs("prod", **GIVEN, environment_version=version)[name])
    (environment,) = job.environments
    for task in job.tasks:
        assert task.environment_key == environment.environment_key
        assert (task.existing_cluster_id, task.new_cluster, task.job_cluster_key) == (None,) * 3
        # A run is called by the tasks that no other depends on: each must fail it.
        assert not task.depends_on
    assert environment.spec.environment_version == version
    assert environment.spec.client is None
    assert environment.spec.dependencies == ["./dist/*.whl", "-r ./constraints.txt"]
    assert job.max_concurrent_runs == 1


@pytest.mark.parametrize("name", JOBS)
def test_only_failures_and_long_runs_notify(name: str) -> None:
    hook = {"id": "0481e838-0a59-4eff-9541-a4ca6f149574"}
    job = jobs("prod", **GIVEN, notify=["ops@example.com"], notify_webhooks=[hook])[name]
    told = ("on_failure", "on_duration_warning_threshold_exceeded")
    assert job["email_notifications"] == {when: ["ops@example.com"] for when in told}
    assert job["webhook_notifications"] == {when: [hook] for when in told}
    (rule,) = Job.from_dict(job).health.rules
    assert (rule.metric.value, rule.op.value) == ("RUN_DURATION_SECONDS", "GREATER_THAN")
    follow = {p["name"]: p["default"] for p in job["parameters"]}.get("follow_seconds", "0")
    assert rule.value > int(follow)


def test_how_jobs_start_is_for_a_variable_to_say() -> None:
    found = {name: job["performance_target"] for name, job in jobs("prod", **GIVEN).items()}
    assert found == {
        "full_load": "STANDARD",
        "cdc_stream": "PERFORMANCE_OPTIMIZED",
        "health": "STANDARD",
    }
    given = {"performance_target": "PERFORMANCE_OPTIMIZED", "cdc_performance_target": "STANDARD"}
    changed = {
        name: job["performance_target"] for name, job in jobs("prod", **GIVEN, **given).items()
    }
    assert changed["health"] == "PERFORMANCE_OPTIMIZED"
    assert changed["cdc_stream"] == "STANDARD"


def test_a_plain_deployment_neither_pauses_the_stream_nor_needs_it_paused() -> None:
    """What a stream does that was never loaded is in `test_lakeflow`."""
    job = jobs("prod", **GIVEN)["cdc_stream"]
    assert job["continuous"]["pause_status"] == "UNPAUSED"
    assert "--await-snapshot" in arguments(job, "cdc_stream")
    rests = jobs("prod", **GIVEN, cdc_pause_status="PAUSED")["cdc_stream"]
    assert Job.from_dict(rests).continuous.pause_status.value == "PAUSED"


def test_nothing_of_a_developers_copy_runs_by_itself() -> None:
    found = jobs("dev", **GIVEN)
    assert found["cdc_stream"]["continuous"]["pause_status"] == "PAUSED"
    assert found["health"]["schedule"]["pause_status"] == "PAUSED"
    assert jobs("prod", **GIVEN)["health"]["schedule"]["pause_status"] == "UNPAUSED"


@pytest.mark.parametrize(("job", "task"), TASKS)
def test_entry_points_are_the_wheels(job: str, task: str) -> None:
    script = tasks(jobs("prod", **GIVEN)[job])[task]
    assert script["package_name"] == "pgbronze"
    (entry,) = distribution("pgbronze").entry_points.select(name=script["entry_point"])
    expected = wheel.command if job == "health" else getattr(wheel, script["entry_point"])
    assert entry.load() is expected


@pytest.mark.parametrize("target", BUNDLE["targets"])
@pytest.mark.parametrize(("job", "task"), TASKS)
@pytest.mark.usefixtures("scope")
def test_the_wheel_takes_every_parameter(job: str, task: str, target: str) -> None:
    given = options(job, task, target, secret_key="shop", schemas="public,app")
    settings = parameters.settings(given)
    assert settings.pipeline.destination == "databricks"
    assert settings.destination.databricks.credentials.for_dlt() == {
        "http_path": "/sql/1.0/warehouses/abc123",
        "catalog": "main",
    }
    assert (settings.source.dlt_scope, settings.source.pg_connection_string) == (
        "dlt_scope",
        "shop",
    )
    assert settings.source.schemas == ("public", "app")
    number = USER["id"]
    own = (settings.pipeline.dataset_name, settings.source.slot_name, settings.source.pub_name)
    assert (
        own
        == {
            "prod": ("bronze", "dlt_cdc_slot", "dlt_cdc_pub"),
            "dev": (f"dev_{number}_bronze", f"dlt_cdc_slot_{number}", f"dlt_cdc_pub_{number}"),
        }[target]
    )


@pytest.mark.parametrize("name", HOSTILE_USERS)
@pytest.mark.usefixtures("scope")
def test_names_are_valid_whoever_deploys(name: str) -> None:
    user = {"id": "18446744073709551615", "userName": f"{name}@example.com", "short_name": name}
    for job, task in TASKS:
        settings = parameters.settings(options(job, task, "dev", user=user))
        assert re.fullmatch(r"[a-z0-9_]{1,63}", settings.source.slot_name)
        assert name not in str(settings.pipeline) + str(settings.source)


def test_a_name_of_the_user_in_a_slot_would_be_refused() -> None:
    with pytest.raises(SettingsError, match="slot_name"):
        parameters.settings(options("full_load", "full_load", slot_name="dlt_cdc_slot_jürgen"))


@pytest.mark.parametrize(("job", "task"), TASKS)
@pytest.mark.usefixtures("scope")
def test_every_setting_is_a_variable_whose_default_is_the_settings_own(job: str, task: str) -> None:
    """A setting that is new needs a variable and a parameter here, or a reason to have none."""
    passed = {
        argument.partition("=")[0].removeprefix("--"): argument.partition("=")[2]
        for argument in tasks(BUNDLE["resources"]["jobs"][job])[task]["parameters"]
        if argument.startswith("--")
    }
    assert parameters.OPTIONS.keys() - passed.keys() == NO_VARIABLES.keys()
    for name in parameters.OPTIONS.keys() - NO_VARIABLES.keys():
        assert "${var." in passed[name], name
    chosen = parameters.settings(options(job, task)).model_dump()
    default = Settings().model_dump()
    for section in ("pipeline", "sources", "destination"):
        differing = dict(_differing(chosen[section], default[section]))
        expected = {
            "sources": {"credentials", "slot_wait_seconds"},
            "destination": {"http_path", "catalog"},
        }
        assert differing.keys() == expected.get(section, set())


def _differing(one: Any, other: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [found for key in one for found in _differing(one[key], other[key], key)]
    return [] if one == other else [(name, one)]


def test_job_parameters_reach_the_run() -> None:
    found = jobs("prod", **GIVEN)
    parser = wheel.build_parser("full_load", "snapshot")
    given = arguments(found["full_load"], "full_load", tables="orders,public.line*")
    assert wheel._tables(parser.parse_args(given)) == ["orders", "public.line*"]
    assert wheel._tables(parser.parse_args(arguments(found["full_load"], "full_load"))) == []
    parser = wheel.build_parser("cdc_load", "cdc")
    follows = parser.parse_args(arguments(found["cdc_stream"], "cdc_stream"))
    assert (follows.follow, follows.await_snapshot) == (3600, True)
    short = arguments(found["cdc_stream"], "cdc_stream", follow_seconds="0")
    assert parser.parse_args(short).follow == 0


def test_jobs_wait_longer_for_the_slot_than_the_stream_follows() -> None:
    follows = {p["name"]: p["default"] for p in jobs("prod", **GIVEN)["cdc_stream"]["parameters"]}
    waits = BUNDLE["variables"]["slot_wait_seconds"]["default"]
    assert int(waits) > int(follows["follow_seconds"])


def test_every_variable_is_explained_and_used() -> None:
    text = (ROOT / "databricks.yml").read_text()
    for name, declared in BUNDLE["variables"].items():
        assert declared["description"], name
        assert f"${{var.{name}}}" in text, name
    needed = {name for name, v in BUNDLE["variables"].items() if "default" not in v}
    assert needed == {"catalog"}


@pytest.mark.parametrize(("job", "task"), TASKS)
@pytest.mark.usefixtures("scope")
def test_without_a_warehouse_each_job_runs_the_statements_itself(
    job: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4")
    settings = parameters.settings(options(job, task, http_path=""))
    chosen = (
        settings.destination.databricks.engine,
        settings.destination.databricks.credentials.http_path,
    )
    assert chosen == (None, None)
    assert chosen_engine(*chosen) == "spark"
    given = parameters.settings(options(job, task)).destination.databricks
    assert chosen_engine(given.engine, given.credentials.http_path) == "warehouse"


def test_pins_are_all_that_serverless_does_not_have() -> None:
    """As `python -m tests.support.constraints` writes them; the versions are our lock's, but where
    an environment has the package in another."""
    pins = constraints.pins_of(constraints.CONSTRAINTS)
    locked = {
        package["name"]: package["version"]
        for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    }
    shipped = [constraints.shipped(environment) for environment in constraints.ENVIRONMENTS]
    assert len(pins) > 30
    for name, version in pins.items():
        there = {pinned[name] for pinned in shipped if name in pinned}
        assert there in ({version}, set()), name
        assert there or locked[name] == version
    # Nothing that the wheel needs is left to chance: it is pinned, or an environment has it.
    known = [pins.keys() | pinned.keys() | constraints.NOT_PINNED for pinned in shipped]
    assert all(constraints.resolved().keys() <= names for names in known)
