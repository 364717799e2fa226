"""Writes `constraints.txt`: the versions of all that the wheel needs and serverless does not have.

    python -m tests.support.constraints

`uv pip compile` resolves the wheel's dependencies for Python 3.12 under the packages that the
serverless environments have installed (`serverless-N.txt`) and, for all else, the versions of our
lock. A package that two environments have in different versions cannot be pinned: each keeps its
own.
"""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
#: Versions of the serverless environment that the wheel runs on.
ENVIRONMENTS = ("4", "5", "6")
PYTHON = "3.12"
#: Every Python environment has one, which the lists do not always say.
NOT_PINNED = {"setuptools"}
HEADER = """\
# What the wheel needs beside the libraries of Databricks serverless environments 4, 5 and 6.
# Written by: uv run python -m tests.support.constraints
"""


def shipped_file(environment: str) -> Path:
    return ROOT / "tests" / "integration" / "databricks" / f"serverless-{environment}.txt"


def shipped(environment: str) -> dict[str, str]:
    """What a serverless environment has installed: version by name."""
    return pins_of(shipped_file(environment))


def pins_of(file: Path) -> dict[str, str]:
    """The versions in a file of constraints, by name."""
    return _pins(file.read_text())


def locked() -> dict[str, str]:
    """The versions of our lock that count for Python 3.12 on Linux."""
    options = ("--no-dev", "--no-hashes", "--no-annotate", "--no-emit-project")
    return _resolved(_uv("export", "--frozen", "--quiet", *options))


@cache
def resolved() -> Mapping[str, str]:
    """All that the wheel needs, with the versions of the first environment that has them."""
    installed = map(shipped, reversed(ENVIRONMENTS))
    known = {name: version for pinned in installed for name, version in pinned.items()}
    return _resolved((ROOT / "pyproject.toml").read_text(), {**locked(), **known})


def pins() -> dict[str, str]:
    """What `constraints.txt` is to hold."""
    installed = [shipped(environment) for environment in ENVIRONMENTS]
    return {
        name: version
        for name, version in resolved().items()
        if name not in NOT_PINNED
        and all(pinned.get(name, version) == version for pinned in installed)
    }


def _resolved(requirements: str, constraints: dict[str, str] | None = None) -> dict[str, str]:
    """What `uv pip compile` makes of requirements, or of a `pyproject.toml`, for serverless."""
    with tempfile.TemporaryDirectory() as folder:
        kind = "pyproject.toml" if requirements.lstrip().startswith("[") else "requirements.txt"
        (Path(folder) / kind).write_text(requirements)
        (Path(folder) / "known.txt").write_text(
            "\n".join(f"{name}=={version}" for name, version in (constraints or {}).items())
        )
        done = _uv(
            "pip", "compile", f"{folder}/{kind}", "--constraints", f"{folder}/known.txt",
            "--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28",
            "--no-header", "--no-annotate", "--quiet",
        )  # fmt: skip
    return _pins(done)


def _pins(text: str) -> dict[str, str]:
    lines = [line.partition(" ")[0] for line in text.splitlines() if "==" in line]
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def _uv(*arguments: str) -> str:
    done = subprocess.run(["uv", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    lines = [f"{name}=={version}\n" for name, version in pins().items()]
    CONSTRAINTS.write_text(HEADER + "".join(lines))
