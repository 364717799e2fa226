"""The asset bundle `databricks.yml` as the Databricks CLI sees it: variables in, jobs out.

Of the CLI's rules only those that the bundle uses: `${…}` of variables, of the bundle and of the
workspace; `{{job.parameters.…}}`, which the job scheduler puts in. An unknown name is a `KeyError`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BUNDLE: dict[str, Any] = yaml.safe_load((ROOT / "databricks.yml").read_text())

#: Who deploys, in the tests.
USER = "jane_doe"


def jobs(target: str, **variables: Any) -> dict[str, Any]:
    """The jobs of a target, resolved."""
    chosen = BUNDLE["targets"][target].get("variables", {})
    defaults = {
        name: declared["default"]
        for name, declared in BUNDLE["variables"].items()
        if "default" in declared
    }
    known = {f"var.{name}": value for name, value in {**defaults, **chosen, **variables}.items()}
    known |= {
        "bundle.name": BUNDLE["bundle"]["name"],
        "bundle.target": target,
        "workspace.current_user.short_name": USER,
    }
    resolved: dict[str, Any] = _resolved(BUNDLE["resources"]["jobs"], known)
    return resolved


def parameters(job: dict[str, Any], **job_parameters: str) -> list[str]:
    """The arguments of the job's one task, in a run with these job parameters."""
    values = {declared["name"]: declared["default"] for declared in job["parameters"]}
    unknown = job_parameters.keys() - values.keys()
    if unknown:
        raise KeyError(unknown)
    values |= job_parameters
    (task,) = job["tasks"]
    return [
        re.sub(r"\{\{job\.parameters\.(\w+)\}\}", lambda found: values[found[1]], argument)
        for argument in task["python_wheel_task"]["parameters"]
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
