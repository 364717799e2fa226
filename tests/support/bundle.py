"""The asset bundle `databricks.yml` as the Databricks CLI sees it: variables in, jobs out.

Of the CLI's rules only those that the bundle uses: `${…}` of variables, of the bundle and of the
workspace; `{{…}}`, which the job scheduler puts in. An unknown name is a `KeyError`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
BUNDLE: dict[str, Any] = yaml.safe_load((ROOT / "databricks.yml").read_text())

#: Who deploys, in the tests: as the CLI has users, whose short names keep all of Unicode's letters.
USER = {"id": "7083512345678901", "userName": "jane.doe@example.com", "short_name": "jane_doe"}


def jobs(target: str, user: Mapping[str, str] = USER, **variables: Any) -> dict[str, Any]:
    """The jobs of a target, resolved."""
    found: dict[str, Any] = resources(BUNDLE, target, user, **variables)["jobs"]
    return found


def resources(
    bundle: Mapping[str, Any], target: str, user: Mapping[str, str] = USER, **variables: Any
) -> dict[str, Any]:
    """The resources of a bundle's target, resolved."""
    chosen = bundle["targets"][target].get("variables", {})
    defaults = {
        name: declared["default"]
        for name, declared in bundle["variables"].items()
        if "default" in declared
    }
    known = {f"var.{name}": value for name, value in {**defaults, **chosen, **variables}.items()}
    known |= {
        "bundle.name": bundle["bundle"]["name"],
        "bundle.target": target,
    }
    known |= {f"workspace.current_user.{key}": value for key, value in user.items()}
    resolved: dict[str, Any] = _resolved(bundle["resources"], known)
    return resolved


def tasks(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the job's tasks run, by their keys."""
    return {task["task_key"]: task["python_wheel_task"] for task in job["tasks"]}


def parameters(job: dict[str, Any], task: str, **job_parameters: str) -> list[str]:
    """The arguments of one task of the job, in a run with these job parameters."""
    values = {f"job.parameters.{given['name']}": given["default"] for given in job["parameters"]}
    given = {f"job.parameters.{name}": value for name, value in job_parameters.items()}
    unknown = given.keys() - values.keys()
    if unknown:
        raise KeyError(unknown)
    values |= {**given, "task.name": task}
    return [
        re.sub(r"\{\{([\w.]+)\}\}", lambda found: values[found[1]], argument)
        for argument in tasks(job)[task]["parameters"]
    ]


def _resolved(value: Any, known: dict[str, Any]) -> Any:
    match value:
        case dict():
            return {key: _resolved(inner, known) for key, inner in value.items()}
        case list():
            return [_resolved(inner, known) for inner in value]
        case str() if whole := re.fullmatch(r"\$\{([^}]+)\}", value):
            return _resolved(known[whole[1]], known)
        case str():
            return re.sub(
                r"\$\{([^}]+)\}", lambda found: str(_resolved(known[found[1]], known)), value
            )
        case _:
            return value
