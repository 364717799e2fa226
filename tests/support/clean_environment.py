"""An environment of its own for the wheel: Python 3.12 and the versions that Databricks ships."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import constraints
from tests.support.bundle import BUNDLE, ROOT


@dataclass(frozen=True)
class CleanEnvironment:
    #: Of the serverless environment.
    version: str
    python: Path
    versions: dict[str, str]


def built_wheel(folder: Path) -> Path:
    """The wheel, built by the bundle's own command in a copy that holds an older one."""
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        place = folder / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    (folder / "dist").mkdir()
    (folder / "dist" / "pgbronze-0.0.1-py3-none-any.whl").touch()
    subprocess.run(BUNDLE["artifacts"]["wheel"]["build"], shell=True, check=True, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def clean_environment(folder: Path, wheel: Path, version: str) -> CleanEnvironment:
    """What serverless environment `version` has installed, as far as the wheel and IPython need it,
    and then the wheel with `constraints.txt`, as the bundle has it."""
    shipped = constraints.shipped(version)
    needed = [*(constraints.resolved().keys() & shipped.keys()), "ipython"]
    python = folder / "venv" / "bin" / "python"
    uv("venv", "--python", _interpreter(), str(folder / "venv"))
    install = ("pip", "install", "--python", str(python))
    uv(*install, *needed, "--constraints", str(constraints.shipped_file(version)))
    uv(*install, str(wheel), "-r", str(constraints.CONSTRAINTS))
    frozen = uv("pip", "freeze", "--python", str(python)).splitlines()
    versions = dict(line.split("==") for line in frozen if "==" in line)
    return CleanEnvironment(version, python, versions)


def _interpreter() -> str:
    """This one if it is of that version, else pyenv's, whom `uv` cannot ask; else `uv` finds it."""
    if sys.version.startswith(constraints.PYTHON):
        return sys.executable
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return next(
        map(str, home.glob(f"versions/{constraints.PYTHON}*/bin/python")), constraints.PYTHON
    )


def uv(*arguments: str) -> str:
    """What `uv` prints."""
    # A module is compiled when it is first imported, not all of them at the start: few are. Nothing
    # is copied.
    environment = {k: v for k, v in os.environ.items() if k != "UV_COMPILE_BYTECODE"}
    environment["UV_LINK_MODE"] = "symlink"
    done = subprocess.run(
        ["uv", *arguments, "--quiet"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
